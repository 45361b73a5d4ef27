//! The cluster's DNS server: zone data from Kubernetes objects, the server, and the forwarder for other zones.
//!
//! A query's way: [`server`] receives it, [`fast`] answers it from the [`zone`] when it is plain, [`full`] when it is
//! not, and [`forward`] when it is about another zone. What both `fast` and `full` answer has the same bytes. Where an answer
//! opens something by policy, [`names`] asks the node's agent before it goes.
#![forbid(unsafe_code)]

pub mod corefile;
pub mod counter;
pub mod crowd;
pub mod descriptors;
mod encode;
pub mod fast;
pub mod feed;
pub mod files;
pub mod forward;
pub mod full;
pub mod hosts;
pub mod manner;
pub mod meter;
pub mod mirror;
pub mod name;
pub mod names;
pub mod plan;
mod random;
pub mod seldom;
pub mod server;
pub mod site;
pub mod stats;
pub mod wire;
pub mod zone;

pub use name::{NameError, WireName};
pub use zone::{Answer, Builder, Zone};
