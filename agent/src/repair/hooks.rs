//! Programs and the pins of their links.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// The filters of clsact qdiscs that exist.
#[derive(Debug, Clone)]
pub struct Filters {
    /// When the kernel was asked for the first of them: what was attached since may be missing.
    pub as_of: Instant,
    /// The interfaces that it was asked about: of others nothing is known.
    pub interfaces: BTreeSet<u32>,
    /// The ids of their programs.
    pub programs: BTreeMap<FilterPlace, u32>,
}

/// Where a filter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilterPlace {
    /// The index of the interface.
    pub ifindex: u32,
    /// Whether it sees what comes in there.
    pub ingress: bool,
    /// Its priority.
    pub priority: u16,
}

/// What should be at a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantHook {
    /// The id of the program.
    pub program: u32,
    /// Whether it is attached by a link, which needs a pin to outlive the agent.
    pub by_link: bool,
    /// Whether it stands behind another program and drops what that one passes on as undecided: it may be attached only
    /// once the other is there.
    pub is_guard: bool,
}

/// What is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HaveHook {
    /// The id of the program of ours that is attached.
    pub program: Option<u32>,
    /// Whether its link has its pin.
    pub pinned: bool,
    /// Whether somebody else's program sees packets before it, and may keep them from it.
    pub behind: bool,
    /// Whether a filter that stood in for its link is still there: should the link be lost, a program that may be of an agent
    /// long gone would judge packets in place of the guard.
    pub leftover: bool,
}

/// What has to be done at a hook, in this order over all hooks: traffic first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookStep {
    /// Attach the program, with a pin where it has a link.
    Attach,
    /// Put the program, which is attached, before those of others.
    First,
    /// Attach the guard behind it.
    Guard,
    /// Pin the link, which is attached.
    Pin,
    /// Remove the filter that stood in for the link, which is attached and pinned.
    Clear,
}

/// What has to be done. A hook of which nothing was seen has nothing.
#[must_use]
pub fn compare_hooks<K: Ord + Clone>(want: &BTreeMap<K, WantHook>, have: &BTreeMap<K, HaveHook>) -> Vec<(K, HookStep)> {
    let step = |(key, want): (&K, &WantHook)| {
        let have = have.get(key).copied().unwrap_or_default();
        let step = match (have.program == Some(want.program), want.is_guard) {
            (false, false) => HookStep::Attach,
            (false, true) => HookStep::Guard,
            // It comes with a pin, and what is left after this step is found by the next look.
            (true, _) if want.by_link && have.behind => HookStep::First,
            (true, _) if want.by_link && !have.pinned => HookStep::Pin,
            (true, _) if want.by_link && have.leftover => HookStep::Clear,
            (true, _) => return None,
        };
        Some((key.clone(), step))
    };
    let mut steps: Vec<_> = want.iter().filter_map(step).collect();
    steps.sort_by_key(|(_, step)| *step);
    steps
}
