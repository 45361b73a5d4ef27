//! Sockets of the node's own processes: those whose other end is gone are ended (SOCK_DESTROY), so that their processes notice
//! and connect anew. A socket hook sees only `connect`; what is connected already is out of its reach.
//!
//! [`mod@plan`] says which (pure), [`message`] is what the kernel is asked and answers, [`diag`] asks it.

mod diag;
mod message;
mod plan;

pub use diag::Diag;
pub use plan::{SeenSocket, Transport, World, plan, tell_apart};
