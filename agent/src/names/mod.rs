//! Names of domains as peers: what pods of this node were told, and for how long it opens what it names.
//!
//! `fairlead-dns` asks before it gives a pod an answer that a rule with `domainNames` is about ([`Server`]). The addresses become
//! part of [`Names`], which policy is compiled from, and are in force before the server hears of it; a [`Journal`] keeps them
//! over a restart. The server is answered by a thread of its own, which waits for nothing that takes long. When an answer has ended,
//! its addresses open nothing new, and what is open goes on ([`fairlead_datapath::peer::Peer::known_class`]).
//!
//! Whose answers concern the agent stands in a file that the server reads ([`crate::compile::policy::coverage()`]): where the agent is away, that says
//! which answers can't be given.

mod journal;
mod outside;
mod server;
mod store;
mod turns;

pub use journal::Journal;
pub use outside::is_outside;
pub use server::{DIRECTORY, Server, Told, directory, is_directory};
pub use store::{Answer, Bounds, Change, Names};

/// Milliseconds that an address opens beyond the time of its answer. The client has the answer later than the agent, and may
/// connect at the last moment; where a SYN is lost, the kernel sends others after 1 and 3 seconds (`TCP_TIMEOUT_INIT`), which are
/// new connections to the programs.
pub const GRACE: u64 = 5000;
