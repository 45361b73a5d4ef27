//! How a process of Fairlead lets itself be looked at: health and metrics over HTTP. The agent and the DNS server share
//! it.
//!
//! What answers here must not fail with what it tells of: a server answers from memory, a client that is slow or sends
//! garbage costs nobody else anything, and an address that is taken is said, waited for, and stops nothing.
#![forbid(unsafe_code)]

mod answer;
mod listen;
mod process;
mod serve;
mod text;

pub use answer::Answer;
pub use listen::{any, listen, listen_only};
pub use process::Process;
pub use serve::{Handler, keep, serve};
pub use text::{counter, counters, exposition, family, gauge, gauges, labels};
