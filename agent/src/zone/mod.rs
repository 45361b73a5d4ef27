//! The cluster's zone in the kernel: what the node's DNS server tells ([`fairlead_objects::zone`]), written into the tables by which
//! programs answer in its place.
//!
//! The server says what it would say itself, in the order in which that changes, and that it holds; so the kernel says nothing else,
//! whatever the server's configuration is. What is in force is a lease ([`Writer`]): it ends by itself when the server, its
//! connection or this agent is gone, and queries go to the server as they always have.

mod state;
mod writer;

pub use state::{InKernel, State, answers, now};
pub use writer::{Node, Outcome, Store, Writer, WriterError};
