//! What policies in audit mode would drop.
//!
//! Policies with `fairlead.io/mode: audit` judge nobody in the kernel. They are compiled here beside those in force, into tables in
//! ordinary memory, and asked about the flows that pass: each sweep of the tables of flows tells of those that it had not seen
//! before. Nothing of it costs a packet anything, and without such a policy nothing is done at all. A flow that comes and is
//! forgotten between two sweeps is not seen. Where policies change, flows that last are judged by the new ones.

mod auditor;
mod collect;
mod findings;
#[cfg(test)]
mod tests;
mod texts;
mod turns;

pub use auditor::{Auditor, Denied};
pub use collect::{Collector, Known, Seen};
pub use findings::{Finding, Findings, Found};
pub use texts::Texts;
pub use turns::in_turns;
