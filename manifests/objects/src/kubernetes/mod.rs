//! The source for a node of a cluster: the API server.
//!
//! Each kind has a watch of its own that begins with a streaming list (KEP-3157) where the server has them. An object
//! is made slim as it arrives, so the whole of it is never kept; one that can't be read holds up no other. The server's
//! list after a lost watch is compared with what the stream was told, and what is missing in it is deleted. Of pods a node
//! needs its own, and those of others only where there are policies (`scope`).
//!
//! [`Cluster`] is the way to the server: it knows several addresses and goes on with another when one is away
//! (`servers`, `failover`), and it says what is wrong with the watches.

mod access;
mod cluster;
mod failover;
mod heard;
mod interest;
mod relist;
mod requests;
mod scope;
mod served;
mod servers;
mod trouble;
mod watch;
mod wire;

pub use access::{Access, AccessError, ServerUrl};
pub use cluster::Cluster;
pub use heard::WatchState;
pub use interest::Interest;
pub use requests::{BUCKETS, Durations, RequestCounts};
pub use trouble::forbidden;
pub(crate) use watch::watch;
