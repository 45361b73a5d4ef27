//! The source for a node of a cluster: the API server.
//!
//! Each kind has a watch of its own that begins with a streaming list (KEP-3157) where the server has them. An object
//! is made slim as it arrives, so the whole of it is never kept; one that can't be read holds up no other. The server's
//! list after a lost watch is compared with what the stream was told, and what is missing in it is deleted.

mod relist;
mod watch;

pub use watch::watch;
