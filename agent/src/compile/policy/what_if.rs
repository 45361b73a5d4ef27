//! What a change of policies would open and close, before anybody makes it. Pure.
//!
//! Ends that the policies can't tell apart, before and after, are one: pods with the same policies, nodes, and the networks that
//! policies name. Of each two of them that the change concerns both states are asked, for every stretch of ports in which no
//! rule begins or ends. [`mod@super::reference`] says the same of two addresses and one port.

mod ends;
mod judge;
mod sets;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use fairlead_objects::Protocol;

use super::World;
use ends::End;
use judge::Pair;
pub use summary::Difference;

/// Pairs of ends that are compared at most: it takes some seconds.
const MOST: usize = 4_000_000;

/// So much can't be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the change concerns {pairs} pairs of pods, nodes and networks that policies tell apart, and {MOST} can be compared: ask \
     about fewer policies at a time"
)]
pub struct TooMuch {
    pairs: usize,
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

/// Compares two states of a cluster in which nothing differs but policies.
///
/// # Errors
/// It would take too long.
pub fn compare(before: &World<'_>, after: &World<'_>) -> Result<Vec<Difference>, TooMuch> {
    let worlds = [before, after];
    let ends = ends::of(worlds);
    let changed = |direction: usize| -> Vec<usize> {
        let differs = |end: &End| end.sets[0][direction] != end.sets[1][direction];
        (0..ends.list.len()).filter(|place| differs(&ends.list[*place])).collect()
    };
    let (receivers, senders) = (changed(0), changed(1));
    let pairs = (receivers.len() + senders.len()) * ends.list.len();
    if pairs > MOST {
        return Err(TooMuch { pairs });
    }
    let all = 0..ends.list.len();
    let mut asked: BTreeSet<(usize, usize)> =
        senders.iter().flat_map(|from| all.clone().map(move |to| (*from, to))).collect();
    asked.extend(receivers.iter().flat_map(|to| all.clone().map(move |from| (from, *to))));
    let mut found: BTreeMap<(usize, usize), [Option<Change>; 2]> = BTreeMap::new();
    for (from, to) in asked {
        let (a, b) = (&ends.list[from], &ends.list[to]);
        // A pod and itself: policy is not asked.
        if from == to && a.names.len() == 1 {
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
