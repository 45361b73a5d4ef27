//! Which policy sets fit, and who is cut off when they do not.
//!
//! Sets get their places one after the other: first those of namespaces that need no more than their [share](super::share);
//! of the others those that are in force as they are, so that nobody loses its place to another; then those of pods that a
//! set judges already; then those of new pods; each by the name of its first pod. A set that does not fit beside those
//! before it has no place, and those after it are asked all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::peer::{CidrKey, PeerFlags, PodWord};
use fairlead_datapath::policy::{PAGE_BITS, PolicySet as SetRow, is_closed};
use fairlead_objects::ObjectKey;

use super::change::is_same;
use super::exposed::Whole;
use super::rows::{self, Rows};
use super::share::Shares;
use super::{Capacity, Content};
use crate::compile::peers::{is_told, record};
use crate::compile::policy::{Demand, Direction, Draft, DraftPod, Judge, Wanted};

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
        /// What of it is the namespace's share.
        share: usize,
    },
    /// The policies of this node ask about too many different peers.
    TooManyPeers {
        /// How many there may be for all pods of the node.
        most: usize,
        /// How many of them are the namespace's share.
        share: usize,
    },
    /// Rules that deny or pass would not match addresses that a table has no room for.
    Exposed {
        /// The table.
        table: TableId,
        /// What the table holds for the node.
        size: usize,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyRules { rules, most } => {
                write!(f, "{rules} rules together, and a pod can have at most {most}: merge rules")
            }
            Self::Full { table, size, share } => write!(
                f,
                "more than is left of the {size} entries of table {table} on this node, of which each namespace is \
                 guaranteed {share}: use fewer or simpler rules"
            ),
            Self::TooManyPeers { most, share } => write!(
                f,
                "more distinct peers than are left of the {most} on this node, of which each namespace is guaranteed \
                 {share}: use fewer or simpler peers"
            ),
            Self::Exposed { table, size } => write!(
                f,
                "rules that deny or pass addresses of pods or nodes for which the {size} entries of table {table} on \
                 this \
                 node have no room: deny their networks instead"
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
        let of_cluster = policies.iter().any(|policy| policy.namespace.is_empty());
        let hint = if of_cluster && matches!(why, Why::TooManyRules { .. }) {
            format!(
                " (a rule of a ClusterNetworkPolicy counts twice, and the Admin tier is rounded up to a multiple of \
                 {PAGE_BITS})"
            )
        } else {
            String::new()
        };
        format!(
            "{direction} of the selected pods is cut off: nothing passes, since policies {named}{more} have \
                 {why}{hint}"
        )
    }
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}: {}", self.pod, self.of_policies())
    }
}

/// The sets in the order in which they get their places.
fn order(old: &Content, draft: &Draft<'_>) -> Vec<usize> {
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

/// What is wanted of the sets that have a place, and how many elements were left out of it, by table.
pub(super) type Fitting = (Places, Wanted, BTreeMap<TableId, usize>);

/// Gives places, and leaves out the addresses and prefixes for which there is no room. A set that would let something pass
/// for that has no place.
pub(super) fn fit(old: &Content, draft: &Draft<'_>, capacity: &Capacity) -> Fitting {
    let order = order(old, draft);
    let mut banned = BTreeMap::new();
    loop {
        let ((kept, refused), mut wanted) = places(draft, &order, capacity, &banned);
        let is_over = wanted.peers.len() > capacity.peers || wanted.cidrs.len() > capacity.cidrs;
        let whole = is_over.then(|| Whole::of(&wanted));
        let left_out = trim(old, &mut wanted, capacity);
        let exposed = whole.map(|whole| whole.exposed(&wanted)).unwrap_or_default();
        if exposed.is_empty() {
            return ((kept, refused), wanted, left_out);
        }
        let (table, size) = match left_out.contains_key(&TableId::Peers) {
            true => (TableId::Peers, capacity.peers),
            false => (TableId::Cidrs, capacity.cidrs),
        };
        let sets = exposed.iter().filter_map(|place| kept.get(*place));
        banned.extend(sets.map(|set| (*set, Why::Exposed { table, size })));
    }
}

/// Gives places by what each set asks for by itself, and compiles those that have one. `banned` have none.
fn places(draft: &Draft<'_>, order: &[usize], capacity: &Capacity, banned: &BTreeMap<usize, Why>) -> (Places, Wanted) {
    let demands: Vec<_> = (0..draft.count()).map(|set| draft.demand(set)).collect();
    let shares = Shares::new(draft, &demands, capacity);
    let table = Tables { draft, demands, capacity, share: &shares.share };
    let order = shares.first(order);
    let (kept, refused) = table.sieve(&order, banned);
    let wanted = draft.finish(&kept);
    if rows::count(&wanted) <= capacity.peer_rows {
        return ((kept, refused), wanted);
    }
    let order = shares.first_by_rows(&order, &kept, &wanted);
    let mut banned = banned.clone();
    loop {
        let (kept, refused) = table.sieve(&order, &banned);
        let wanted = draft.finish(&kept);
        let over = overflow(&wanted, capacity.peer_rows);
        let Some(first) = over.first() else { return ((kept, refused), wanted) };
        let (size, share) = (capacity.peer_rows, shares.share.peer_rows);
        let why = || Why::Full { table: TableId::PolicyPeers, size, share };
        let mut all = banned.clone();
        all.extend(over.iter().map(|place| (kept[*place], why())));
        let (left, refused) = table.sieve(&order, &all);
        if left.iter().all(|set| kept.contains(set)) {
            let wanted = draft.finish(&left);
            return ((left, refused), wanted);
        }
        // Without those another set has a place, so who comes after the first may be others.
        banned.insert(kept[*first], why());
    }
}

/// The tables whose elements are a sum of what sets ask for.
struct Tables<'a> {
    draft: &'a Draft<'a>,
    demands: Vec<Demand<'a>>,
    capacity: &'a Capacity,
    share: &'a Capacity,
}

impl Tables<'_> {
    fn sieve(&self, order: &[usize], banned: &BTreeMap<usize, Why>) -> Places {
        let Self { capacity, share, .. } = self;
        let (mut kept, mut refused) = (Vec::new(), banned.clone());
        let mut prefixes: BTreeSet<_> = self.draft.node_prefixes().take(capacity.cidrs).collect();
        let mut atoms = BTreeSet::new();
        let (mut ports, mut ranges) = (0, 0);
        for set in order.iter().filter(|set| !banned.contains_key(set)) {
            let demand = &self.demands[*set];
            let named = demand.prefixes.iter().map(|prefix| CidrKey::prefix(prefix.network().into(), prefix.prefix()));
            let named: Vec<_> = named.filter(|key| !prefixes.contains(key)).collect();
            let asked: Vec<_> = demand.atoms.iter().filter(|atom| !atoms.contains(*atom)).copied().collect();
            let full = |table, size, share| Some(Why::Full { table, size, share });
            let why = if demand.rules > capacity.rules {
                Some(Why::TooManyRules { rules: demand.rules, most: capacity.rules })
            } else if kept.len() + 1 > capacity.sets {
                full(TableId::PolicySets, capacity.sets, share.sets)
            } else if ports + demand.ports > capacity.port_rows {
                full(TableId::PolicyPorts, capacity.port_rows, share.port_rows)
            } else if ranges + demand.ranges > capacity.range_rows {
                full(TableId::PolicyRanges, capacity.range_rows, share.range_rows)
            } else if prefixes.len() + named.len() > capacity.cidrs {
                full(TableId::Cidrs, capacity.cidrs, share.cidrs)
            } else if atoms.len() + asked.len() > capacity.atoms {
                Some(Why::TooManyPeers { most: capacity.atoms, share: share.atoms })
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
}

/// The sets, by their place, whose rows of `POLICY_PEERS` do not fit beside those of the sets before that do.
fn overflow(wanted: &Wanted, room: usize) -> Vec<usize> {
    if rows::count(wanted) <= room {
        return Vec::new();
    }
    let (mut rows, room) = (Rows::new(wanted), room.saturating_sub(rows::of_pairs(wanted)));
    (0..wanted.sets.len()).filter(|place| !rows.add(*place, room)).collect()
}

/// Leaves out addresses and nodes' prefixes for which there is no room: this node's pods and nodes come before others, and of
/// these who is in the tables stays. What is left out is known by its node's prefix at best: rules that select pods do not
/// let it pass. Returns how many were left out, by table.
fn trim(old: &Content, wanted: &mut Wanted, capacity: &Capacity) -> BTreeMap<TableId, usize> {
    let mut left_out = BTreeMap::new();
    let over = wanted.peers.len().saturating_sub(capacity.peers);
    if over > 0 {
        left_out.insert(TableId::Peers, over);
        let mut addrs: Vec<_> = wanted
            .peers
            .iter()
            .map(|(addr, peer)| {
                let is_pod = peer.slot.is_none() && peer.flags & PeerFlags::NODE == 0;
                // What a pod was told opens something, and closes nothing.
                (is_told(peer.flags), is_pod, !old.peer.peers.contains_key(addr), *addr)
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
