//! The agent's side of CNI: addresses, their journal, and the server that the plugin talks to.
//!
//! The plugin wires, the agent decides: which slot and addresses a pod gets, and when its policy is in force. What was
//! decided is in a journal before the plugin hears of it, so an agent that is killed knows its pods when it is back.

mod error;
mod journal;
mod ledger;
mod network;
mod pool;
mod server;
mod service;
mod session;
#[cfg(test)]
mod tests;

pub use error::CniError;
pub use journal::Journal;
pub(crate) use ledger::room;
pub use ledger::{Entry, Ledger, Record};
pub use network::{AttachError, AttachedPod, Health, KnownPod, NodeNetwork, PodNetwork};
pub use server::Server;
