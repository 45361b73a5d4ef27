//! What a change of policies would open and close, before anybody makes it. Pure.
//!
//! Ends that the policies can't tell apart, before and after, are one: pods with the same policies, nodes, and the networks and
//! names that policies have. Of each two of them that the change concerns both states are asked, for every stretch of ports in which no
//! rule begins or ends. [`mod@super::reference`] says the same of two addresses and one port.

mod ends;
mod judge;
mod places;
mod sets;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use fairlead_objects::Protocol;

use super::World;
use judge::Pair;
pub use places::{LeftOut, Places, Selected};
pub use summary::Difference;

/// So much can't be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the change concerns {pairs} pairs of pods, nodes and networks that policies tell apart, and {most} can be compared: ask \
     about fewer policies at a time, or, where an agent is asked, use --objects"
)]
pub struct TooMuch {
    pairs: usize,
    most: usize,
}

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

/// A stretch of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Traffic {
    /// The protocol; `None` for those without ports, ICMP among them.
    pub protocol: Option<Protocol>,
    /// The first port; 0 where there are none.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// What changes between two ends in one family: the traffic that is opened, and that which is closed.
type Change = [Vec<Traffic>; 2];

/// Compares two states of a cluster in which nothing differs but policies. Each pair of ends takes some microseconds.
///
/// # Errors
/// There are more than `most` pairs of ends to compare.
pub fn compare(before: &World<'_>, after: &World<'_>, most: usize) -> Result<Vec<Difference>, TooMuch> {
    let worlds = [before, after];
    let ends = ends::of(worlds);
    let changed = |direction: usize| -> Vec<bool> {
        ends.list.iter().map(|end| end.sets[0][direction] != end.sets[1][direction]).collect()
    };
    let (receives, sends) = (changed(0), changed(1));
    let concerned = receives.iter().chain(&sends).filter(|changed| **changed).count();
    let pairs = concerned * ends.list.len();
    if pairs > most {
        return Err(TooMuch { pairs, most });
    }
    let places = 0..ends.list.len();
    let all = places.clone().flat_map(|from| places.clone().map(move |to| (from, to)));
    let mut found: BTreeMap<(usize, usize), [Option<Change>; 2]> = BTreeMap::new();
    for (from, to) in all.filter(|(from, to)| sends[*from] || receives[*to]) {
        let (a, b) = (&ends.list[from], &ends.list[to]);
        // A pod and itself, a node and its pods: policy is not asked. Names open nothing to a pod.
        if a.is_named || (from == to && a.names.len() == 1) || a.is_node_of(b) {
            continue;
        }
        let change = Family::BOTH.map(|family| {
            let both = a.met[family as usize].is_some() && b.met[family as usize].is_some();
            both.then(|| Pair { ends: &ends, from: a, to: b, family }.change())
        });
        if change.iter().flatten().flatten().any(|traffic| !traffic.is_empty()) {
            found.insert((from, to), change);
        }
    }
    Ok(summary::of(&ends.list, found))
}
