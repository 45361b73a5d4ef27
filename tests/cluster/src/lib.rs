//! Tests on a real cluster: kubelets, containerd and an API server on this machine. `cargo xtask test` brings the cluster up,
//! runs them one after the other, and takes it down. Each begins with [`World::open`], which finds or makes a cluster on
//! which Fairlead runs, and leaves it so.
#![forbid(unsafe_code)]

mod load;
mod objects;
mod soak;
mod world;

pub use load::{Running, Strain, all_end_well};
pub use objects::static_pod;
pub use soak::{Network, Soaked, questions, soak};
pub use world::{Footprint, SYSTEM, World, wait};
