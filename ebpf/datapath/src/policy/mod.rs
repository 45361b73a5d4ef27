//! Policy: from (policy set, class of the peer, protocol and port) to a verdict and its explanation.

/// The policy set of a pod that may not talk yet: everything is denied. Also what an unset word means.
pub const DENY_ALL: u32 = 0;

/// The policy set of a pod that nothing selects: everything is allowed, no table is asked.
pub const ALLOW_ALL: u32 = 1;
