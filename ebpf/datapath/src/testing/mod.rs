//! The kernel's stand-in, for tests and fuzzers: a packet in a vector, tables in hash maps, a clock and chance that are
//! set by hand. Here, and in what uses it, things panic when they are not as they should be.
//!
//! - [`Frame`]: a packet with what the kernel knows of it; [`Message`] builds one, [`Seen`] reads one and checks it
//! - [`Host`]: one packet at one hook
//! - [`Node`]: a node with pods and services, where a packet is carried from hook to hook
//! - [`Judged`]: a small model of what may pass, held against a node
//! - [`Record`]: what has run at a hook, to be run again in a kernel

mod arena;
mod carry;
mod flows;
mod frame;
mod headers;
mod hook;
mod host;
mod judged;
mod message;
mod node;
mod record;
mod recording;
mod replay;
mod seen;
mod tables;

pub use carry::Landed;
pub use flows::{Counted, Flows, What};
pub use frame::{Frame, Partial};
pub use hook::{Fate, Hook};
pub use host::Host;
pub use judged::{End, Event, Judged};
pub use message::{L4, Message};
pub use node::{Node, ip};
pub use recording::VARIABLE;
pub use replay::{Entry, Record, Step};
pub use seen::Seen;
