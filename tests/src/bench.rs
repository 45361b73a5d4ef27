//! Benches in the lab, as `cargo xtask bench` starts them: Fairlead beside what else does the same, in one run.

pub mod cni;
pub mod dns;
pub mod load;
pub mod names;
mod netfilter;
pub mod soak;
mod table;
pub mod xdp;
