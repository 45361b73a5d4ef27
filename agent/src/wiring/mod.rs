//! Links, routes and kernel settings of the node.
//!
//! A socket of rtnetlink belongs to the network namespace of the thread that opened it: [`Netlink::open`] is to be
//! called in the node's.

mod error;
mod links;
mod netlink;

pub use error::WiringError;
pub use links::{PodLink, PodLinks};
pub use netlink::Netlink;
