//! Links, routes, the tunnel and kernel settings of the node.
//!
//! A socket of rtnetlink belongs to the network namespace of the thread that opened it: [`Netlink::open`] is to be
//! called in the node's.

mod choice;
mod error;
mod linger;
mod links;
mod list;
mod neighbours;
mod netlink;
pub mod overlay;
mod peers;
mod pods;
mod routes;
mod sides;
mod source;
pub mod svc;
mod sysctl;
#[cfg(test)]
mod tests;
mod uplinks;
mod watch;

pub use choice::{Choice, NamePattern};
pub use error::{Kept, WiringError};
pub use linger::Lingering;
pub use links::{PodLink, PodLinks};
pub use neighbours::neighbours;
pub use netlink::Netlink;
pub use peers::{Changed, Peers};
pub use pods::Names;
pub use routes::{NODE_ROUTE_PROTOCOL, NodeRoute, Via, desired, difference};
pub use sides::{Side, Sides, Veths};
pub use sysctl::record::RecordError;
pub use sysctl::{PROC_SYS, Sysctls};
pub use uplinks::{Framing, Uplink};
pub use watch::{Change, Watch, watch};
