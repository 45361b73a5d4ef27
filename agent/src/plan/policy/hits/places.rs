//! How sets share the counters that there are.

use std::collections::{BTreeMap, BTreeSet};

/// A set that is to be counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need<'a> {
    pub(super) set: u32,
    /// Whose share it is counted to.
    pub(super) namespace: &'a str,
    pub(super) counters: usize,
    pub(super) is_counted: bool,
}

/// The sets that are counted. Each namespace has a share of the room, which it fills first with sets that are counted already, then
/// with the smallest; what is left goes to all others likewise. So one that needs no more than its share is counted whole,
/// whatever others have.
pub(super) fn places(needs: &[Need<'_>], room: usize) -> BTreeSet<u32> {
    let mut order: Vec<_> = needs.iter().collect();
    order.sort_by_key(|need| (!need.is_counted, need.counters, need.set));
    let mut namespaces: BTreeMap<&str, Vec<&Need<'_>>> = BTreeMap::new();
    order.iter().for_each(|need| namespaces.entry(need.namespace).or_default().push(need));
    let share = room / namespaces.len().max(1);
    let (mut placed, mut left) = (BTreeSet::new(), room);
    for needs in namespaces.into_values() {
        let mut of_share = share;
        for need in needs {
            let Some(rest) = of_share.checked_sub(need.counters) else { break };
            of_share = rest;
            left -= need.counters;
            placed.insert(need.set);
        }
    }
    for need in order {
        if !placed.contains(&need.set) && need.counters <= left {
            left -= need.counters;
            placed.insert(need.set);
        }
    }
    placed
}
