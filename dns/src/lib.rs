//! The cluster's DNS server: zone data from Kubernetes objects.
#![forbid(unsafe_code)]

pub mod feed;
pub mod name;
pub mod wire;
pub mod zone;

pub use name::{NameError, WireName};
pub use zone::{Answer, Builder, Zone};
