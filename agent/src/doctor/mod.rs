//! `fairlead doctor`: what on this node would stop or hinder Fairlead, and what to do about it.
//!
//! It needs no agent. [`collect()`] looks at the node and gives [`Facts`]; [`findings()`] is a pure function of them. What
//! a node does without ([`without()`]) is no fault, and said beside. What could not be looked at is said, since silence would look like health.

mod collect;
mod facts;
mod findings;
pub mod migration;
mod without;

pub use collect::{Places, collect, kernel, proxy};
pub use facts::{Facts, Kernel, Proxy};
pub use findings::{Finding, Severity, findings, kube_proxy};
pub use without::{Without, without};
