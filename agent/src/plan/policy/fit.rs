//! Which policy sets fit, and who is cut off when they do not.
//!
//! Sets get their places one after the other: first those that are in force as they are, so that nobody loses its place
//! to another; then those of pods that a set judges already; then those of new pods; each by the name of its first pod.
//! A set that does not fit beside those before it has no place, and those after it are asked all the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::peer::{CidrKey, PeerFlags, PodWord};
use fairlead_datapath::policy::{PolicySet as SetRow, is_closed};
use fairlead_objects::ObjectKey;

use super::change::is_same;
use super::{Capacity, Content};
use crate::compile::peers::record;
use crate::compile::policy::{Direction, Draft, DraftPod, Judge, PolicySet, Wanted};

/// Why a set has no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// More rules than a set can hold.
    TooManyRules {
        /// How many there are.
        rules: usize,
        /// How many there may be.
        most: usize,
    },
    /// A table is full.
    Full {
        /// The table.
        table: TableId,
        /// What the table holds for all pods of the node.
        size: usize,
    },
    /// The policies of this node ask about too many different peers.
    TooManyPeers {
        /// How many there may be for all pods of the node.
        most: usize,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyRules { rules, most } => {
                write!(f, "{rules} rules together, and a pod can have {most}: merge rules")
            }
            Self::Full { table, size } => write!(
                f,
                "more than what is left of the {size} entries of table {table} on this node: use fewer or simpler rules"
            ),
            Self::TooManyPeers { most } => write!(
                f,
                "more different peers than what is left of the {most} on this node: use fewer or simpler peers"
            ),
        }
    }
}

/// A direction of a pod that is cut off, since what would judge it does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutOff {
    /// The pod's slot.
    pub slot: u16,
    /// The pod.
    pub pod: ObjectKey,
    /// The pod's uid, where it is known.
    pub uid: String,
    /// The direction.
    pub direction: Direction,
    /// The policies that select it.
    pub policies: Vec<ObjectKey>,
    /// Why their rules do not fit.
    pub why: Why,
}

/// Policies that are named in one text.
const NAMED: usize = 4;

impl CutOff {
    /// What is said on its policies, which may be those of other pods too.
    #[must_use]
    pub fn of_policies(&self) -> String {
        let Self { direction, policies, why, .. } = self;
        let named: Vec<_> = policies.iter().take(NAMED).map(ToString::to_string).collect();
        let more = policies.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named = named.join(", ");
        format!(
            "{direction} of the pods that they select is cut off, nothing passes: policies {named}{more} have {why}"
        )
    }
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}: {}", self.pod, self.of_policies())
    }
}

/// The sets in the order in which they get their places.
pub(super) fn order(old: &Content, draft: &Draft<'_>) -> Vec<usize> {
    let mut first = vec![None; draft.count()];
    for (slot, pod) in draft.pods() {
        for (direction, judge) in pod.judges() {
            let Judge::Set(set) = judge else { continue };
            let claim = Some((rank(old, *slot, pod, direction, draft.content(set)), &pod.local.key, *slot, direction));
            if first[set].is_none() || claim < first[set] {
                first[set] = claim;
            }
        }
    }
    let mut order: Vec<_> = (0..draft.count()).collect();
    order.sort_by_key(|set| first[*set]);
    order
}

/// 0: the set is in force for this pod; 1: another is, or none; 2: the pod is new or cut off.
fn rank(old: &Content, slot: u16, pod: &DraftPod<'_>, direction: Direction, content: u64) -> u8 {
    let Some(stored) = old.peer.pods.get(&slot).filter(|stored| is_same(stored, &record(pod.local))) else { return 2 };
    let word = PodWord(stored.word);
    let set = if direction == Direction::Ingress { word.ingress() } else { word.egress() };
    let row = old.policy.sets.get(&SetRow::index(set)).filter(|row| row.id == set);
    match row {
        _ if is_closed(set) => 2,
        Some(row) if row.content == content => 0,
        _ => 1,
    }
}

/// The sets that get a place, in order, and why the others do not.
pub(super) type Places = (Vec<usize>, BTreeMap<usize, Why>);

/// Gives places by what each set asks for by itself, and compiles those that have one.
pub(super) fn places(draft: &Draft<'_>, order: &[usize], capacity: &Capacity) -> (Places, Wanted) {
    let mut banned = BTreeMap::new();
    loop {
        let (kept, refused) = sieve(draft, order, &banned, capacity);
        let wanted = draft.finish(&kept);
        let over = overflow(&wanted, capacity.peer_rows);
        let Some(first) = over.first() else { return ((kept, refused), wanted) };
        let why = || Why::Full { table: TableId::PolicyPeers, size: capacity.peer_rows };
        let mut all = banned.clone();
        all.extend(over.iter().map(|place| (kept[*place], why())));
        let (left, refused) = sieve(draft, order, &all, capacity);
        if left.iter().all(|set| kept.contains(set)) {
            let wanted = draft.finish(&left);
            return ((left, refused), wanted);
        }
        // Without those another set has a place, so who comes after the first may be others.
        banned.insert(kept[*first], why());
    }
}

fn sieve(draft: &Draft<'_>, order: &[usize], banned: &BTreeMap<usize, Why>, capacity: &Capacity) -> Places {
    let (mut kept, mut refused) = (Vec::new(), banned.clone());
    let mut prefixes: BTreeSet<_> = draft.node_prefixes().take(capacity.cidrs).collect();
    let mut atoms = BTreeSet::new();
    let (mut ports, mut ranges) = (0, 0);
    for set in order.iter().filter(|set| !banned.contains_key(set)) {
        let demand = draft.demand(*set);
        let named = demand.prefixes.iter().map(|prefix| CidrKey::prefix(prefix.network().into(), prefix.prefix()));
        let named: Vec<_> = named.filter(|key| !prefixes.contains(key)).collect();
        let asked: Vec<_> = demand.atoms.iter().filter(|atom| !atoms.contains(*atom)).copied().collect();
        let full = |table, size| Some(Why::Full { table, size });
        let why = if demand.rules > capacity.rules {
            Some(Why::TooManyRules { rules: demand.rules, most: capacity.rules })
        } else if kept.len() + 1 > capacity.sets {
            full(TableId::PolicySets, capacity.sets)
        } else if ports + demand.ports > capacity.port_rows {
            full(TableId::PolicyPorts, capacity.port_rows)
        } else if ranges + demand.ranges > capacity.range_rows {
            full(TableId::PolicyRanges, capacity.range_rows)
        } else if prefixes.len() + named.len() > capacity.cidrs {
            full(TableId::Cidrs, capacity.cidrs)
        } else if atoms.len() + asked.len() > capacity.atoms {
            Some(Why::TooManyPeers { most: capacity.atoms })
        } else {
            None
        };
        if let Some(why) = why {
            refused.insert(*set, why);
            continue;
        }
        kept.push(*set);
        ports += demand.ports;
        ranges += demand.ranges;
        prefixes.extend(named);
        atoms.extend(asked);
    }
    (kept, refused)
}

/// The sets, by their place, whose rows of `POLICY_PEERS` do not fit beside those of the sets before that do.
///
/// Rows depend on all sets: what one asks about peers splits the classes of every other.
fn overflow(wanted: &Wanted, room: usize) -> Vec<usize> {
    let everybody = wanted.classes.first().map(|(signature, _)| signature);
    let rows = |set: &PolicySet, class: usize| {
        let of_everybody = everybody.map(|signature| set.peers(signature));
        let (Some(of_everybody), Some((signature, _))) = (of_everybody, wanted.classes.get(class)) else { return 0 };
        let own = set.peers(signature);
        own.pages().iter().zip(of_everybody.pages()).filter(|(own, everybody)| own != everybody).count()
    };
    let all: usize = wanted
        .sets
        .iter()
        .map(|set| set.pages() + (1..wanted.classes.len()).map(|n| rows(set, n)).sum::<usize>())
        .sum();
    let mut over = Vec::new();
    if all <= room {
        return over;
    }
    // The group of each class: classes of one group look alike to the sets that have a place.
    let mut groups = vec![0; wanted.classes.len()];
    let mut kept: Vec<(usize, BTreeMap<usize, usize>)> = Vec::new();
    for (place, set) in wanted.sets.iter().enumerate() {
        let asked = set.atoms();
        let mut next = HashMap::new();
        let split: Vec<usize> = (wanted.classes.iter().zip(&groups))
            .map(|((signature, _), group)| {
                let seen: Vec<_> = signature.intersection(&asked).collect();
                let new = next.len();
                *next.entry((*group, seen)).or_insert(new)
            })
            .collect();
        // A class of each group, but of the one of those that meet nothing.
        let mut of_group: BTreeMap<usize, usize> = BTreeMap::new();
        for (class, group) in split.iter().enumerate() {
            of_group.entry(*group).or_insert(class);
        }
        of_group.remove(&split.first().copied().unwrap_or_default());
        kept.push((place, BTreeMap::new()));
        let needed: usize = kept
            .iter_mut()
            .map(|(place, known)| {
                let set = &wanted.sets[*place];
                let of_class = |class: &usize| *known.entry(*class).or_insert_with(|| rows(set, *class));
                set.pages() + of_group.values().map(of_class).sum::<usize>()
            })
            .sum();
        if needed <= room {
            groups = split;
        } else {
            kept.pop();
            over.push(place);
        }
    }
    over
}

/// Leaves out addresses and nodes' prefixes for which there is no room: who is in the tables stays, then this node's pods
/// and nodes come before others. What is left out is known by its node's prefix at best: rules that select pods do not let it
/// pass, and nothing else is lost. Returns how many were left out, by table.
pub(super) fn trim(old: &Content, wanted: &mut Wanted, capacity: &Capacity) -> BTreeMap<TableId, usize> {
    let mut left_out = BTreeMap::new();
    let over = wanted.peers.len().saturating_sub(capacity.peers);
    if over > 0 {
        left_out.insert(TableId::Peers, over);
        let mut addrs: Vec<_> = wanted
            .peers
            .iter()
            .map(|(addr, peer)| {
                let is_pod = peer.slot.is_none() && peer.flags & PeerFlags::NODE == 0;
                (is_pod, !old.peer.peers.contains_key(addr), *addr)
            })
            .collect();
        addrs.sort_unstable();
        let gone: BTreeSet<_> = addrs.iter().skip(capacity.peers).map(|(.., addr)| *addr).collect();
        wanted.peers.retain(|addr, _| !gone.contains(addr));
    }
    let over = wanted.cidrs.len().saturating_sub(capacity.cidrs);
    if over > 0 {
        left_out.insert(TableId::Cidrs, over);
        let mut keys: Vec<_> = wanted
            .cidrs
            .keys()
            .map(|key| (!wanted.named.contains(key), !old.peer.cidrs.contains_key(key), *key))
            .collect();
        keys.sort_unstable();
        let gone: BTreeSet<_> = keys.iter().skip(capacity.cidrs).map(|(.., key)| *key).collect();
        wanted.cidrs.retain(|key, _| !gone.contains(key));
    }
    left_out
}
