//! Policy: from (policy set, class of the peer, protocol and port) to a verdict and its explanation.
//!
//! A policy set is an immutable list of rules, a bit each. One table says which rules a class of peers meets, another
//! which rules a protocol and port meet. The lowest bit that both have decides, and names the rule.

mod decide;
#[cfg(any(test, feature = "host"))]
mod host;

pub use decide::{Common, Decision, Outcome, Question, decide, decide_by, page};
#[cfg(any(test, feature = "host"))]
pub use host::HostTables;

pub use crate::tables::policy::*;

/// The policy set of a pod that may not talk yet: everything is denied. Also what an unset word means.
pub const DENY_ALL: u32 = 0;

/// The policy set of a pod whose policies have no room in the tables, or whose room others get just now: everything is denied.
pub const CUT_OFF: u32 = 2;

/// Whether a policy set denies everything, also what a pod says to itself.
#[inline(always)]
#[must_use]
pub const fn is_closed(set: u32) -> bool {
    set == DENY_ALL || set == CUT_OFF
}

/// The policy set of a pod that nothing selects: everything is allowed, no table is asked.
pub const ALLOW_ALL: u32 = 1;
