//! Indexes of other nodes in `NODES`. A flow keeps the one that its other end had when it began, so a node keeps its index as long
//! as it is known to be the same, and what one has left goes to another node last of all.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use fairlead_datapath::Addr;
use fairlead_datapath::peer::NodeHop;

use crate::compile::policy::content_hash;

/// Indexes that nodes have left, longest ago first, each with its last record. A new agent knows of none.
#[derive(Debug, Default)]
pub(super) struct Former(VecDeque<(u16, NodeHop)>);

impl Former {
    /// An element of `NODES` is written: what it was and what it is.
    pub(super) fn note(&mut self, index: u16, before: Option<&NodeHop>, now: &NodeHop) {
        self.0.retain(|(former, _)| *former != index);
        if *now == NodeHop::default() {
            self.0.extend(before.map(|hop| (index, *hop)));
        }
    }
}

/// Whether a record is that of a node.
type Fits = fn(&NodeHop, &NodeHop) -> bool;

/// The indexes of nodes, nothing for one that has no place: of the record with the same addresses, else of one that has some of
/// them and none that differs, else those that the node has left. Others get one by their addresses that no node has had, or the
/// one that was left longest ago.
pub(super) fn assign(old: &BTreeMap<u16, NodeHop>, former: &Former, wanted: &[NodeHop], most: u16) -> Vec<Option<u16>> {
    let left = || former.0.iter().filter(|(index, _)| !old.contains_key(index) && *index < most);
    let there = Records::new(old.iter().map(|(index, hop)| (*index, *hop)));
    let gone = Records::new(left().copied());
    let mut given = HashSet::new();
    let mut indexes = vec![None; wanted.len()];
    let fits: [(&Records, Fits); 4] = [(&there, is_same), (&there, agrees), (&gone, is_same), (&gone, agrees)];
    for (records, fits) in fits {
        for (place, hop) in indexes.iter_mut().zip(wanted).filter(|(place, _)| place.is_none()) {
            *place = records
                .of(hop)
                .filter(|(_, record)| fits(record, hop))
                .map(|(index, _)| index)
                .find(|index| given.insert(*index));
        }
    }
    let mut unused: BTreeSet<u16> = (0..most).filter(|index| !old.contains_key(index)).collect();
    for (index, _) in left() {
        unused.remove(index);
    }
    let mut longest_ago = left().map(|(index, _)| *index).filter(|index| !given.contains(index));
    for (place, hop) in indexes.iter_mut().zip(wanted).filter(|(place, _)| place.is_none()) {
        // By its addresses, so that a new agent gives a node that comes back the index that it had.
        let start = content_hash(&[hop.v4.hi, hop.v4.lo, hop.v6.hi, hop.v6.lo]).checked_rem(most.into()).unwrap_or(0);
        let next = unused.range(start as u16..).next().or_else(|| unused.first()).copied();
        next.map(|index| unused.remove(&index));
        *place = next.or_else(|| longest_ago.next());
    }
    indexes
}

/// Records by each of their addresses, lowest index first.
struct Records(HashMap<Addr, Vec<(u16, NodeHop)>>);

fn addresses(hop: &NodeHop) -> impl Iterator<Item = Addr> + use<> {
    [hop.v4, hop.v6].into_iter().filter(|addr| *addr != Addr::UNSPECIFIED)
}

impl Records {
    fn new(records: impl Iterator<Item = (u16, NodeHop)>) -> Self {
        let mut by_address: HashMap<Addr, Vec<(u16, NodeHop)>> = HashMap::new();
        for (index, hop) in records {
            addresses(&hop).for_each(|addr| by_address.entry(addr).or_default().push((index, hop)));
        }
        by_address.values_mut().for_each(|records| records.sort_by_key(|(index, _)| *index));
        Self(by_address)
    }

    /// Those that have an address of these.
    fn of(&self, hop: &NodeHop) -> impl Iterator<Item = (u16, NodeHop)> {
        addresses(hop).filter_map(|addr| self.0.get(&addr)).flatten().copied()
    }
}

/// Whether both have the same addresses.
fn is_same(a: &NodeHop, b: &NodeHop) -> bool {
    (a.v4, a.v6) == (b.v4, b.v6)
}

/// Whether neither has an address of a family where the other has a different one.
fn agrees(a: &NodeHop, b: &NodeHop) -> bool {
    let is_known = |a: Addr, b: Addr| a != Addr::UNSPECIFIED && b != Addr::UNSPECIFIED;
    [(a.v4, b.v4), (a.v6, b.v6)].into_iter().all(|(a, b)| a == b || !is_known(a, b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hop(v4: u8, v6: u8) -> NodeHop {
        let addr = |text: &str, n: u8| match n {
            0 => Addr::UNSPECIFIED,
            n => Addr::from(format!("{text}{n}").parse::<std::net::IpAddr>().unwrap()),
        };
        NodeHop { v4: addr("172.18.0.", v4), v6: addr("fd00:172:18::", v6), ..NodeHop::default() }
    }

    /// Tables that plans are carried out on.
    #[derive(Default)]
    struct Tables {
        nodes: BTreeMap<u16, NodeHop>,
        former: Former,
    }

    impl Tables {
        fn write(&mut self, index: u16, hop: NodeHop) {
            self.former.note(index, self.nodes.get(&index), &hop);
            match hop == NodeHop::default() {
                true => drop(self.nodes.remove(&index)),
                false => drop(self.nodes.insert(index, hop)),
            }
        }

        fn want(&mut self, wanted: &[NodeHop], most: u16) -> Vec<Option<u16>> {
            let indexes = assign(&self.nodes, &self.former, wanted, most);
            let target: HashMap<u16, NodeHop> =
                indexes.iter().zip(wanted).filter_map(|(index, hop)| Some(((*index)?, *hop))).collect();
            for (index, hop) in &target {
                self.write(*index, *hop);
            }
            let gone: Vec<u16> = self.nodes.keys().filter(|index| !target.contains_key(index)).copied().collect();
            gone.into_iter().for_each(|index| self.write(index, NodeHop::default()));
            indexes
        }
    }

    #[test]
    fn an_address_more_or_less_is_the_same_node() {
        let mut tables = Tables::default();
        let first = tables.want(&[hop(1, 0), hop(2, 0)], 8);
        assert_eq!(tables.want(&[hop(2, 2), hop(1, 1)], 8), [first[1], first[0]]);
        assert_eq!(tables.want(&[hop(0, 1), hop(2, 2)], 8), first);
        // Who has exactly these addresses comes first, and another address is another node.
        let now = tables.want(&[hop(1, 1), hop(0, 1), hop(3, 2)], 8);
        assert_eq!(now[1], first[0]);
        assert!(!first.contains(&now[0]) && !first.contains(&now[2]), "{now:?}");
    }

    #[test]
    fn what_a_node_has_left_goes_to_others_last() {
        let mut tables = Tables::default();
        let first = tables.want(&[hop(1, 1), hop(2, 2), hop(3, 3)], 4);
        tables.want(&[hop(3, 3)], 4);
        tables.want(&[], 4);
        assert_eq!(tables.want(&[hop(2, 2), hop(1, 1)], 4), [first[1], first[0]], "back in another order");
        tables.want(&[hop(2, 2)], 4);
        tables.want(&[], 4);
        let new = tables.want(&[hop(4, 4), hop(5, 5)], 4);
        assert!(!first.contains(&new[0]), "{new:?}");
        assert_eq!(new[1], first[2], "left longest ago");
    }

    proptest! {
        #[test]
        fn each_node_has_an_index_of_its_own_as_long_as_there_are_some(
            history in prop::collection::vec(prop::collection::btree_set((0..6u8, 0..6u8), 0..12), 1..6),
            most in 1..10u16,
        ) {
            let mut tables = Tables::default();
            for step in history {
                let wanted: Vec<NodeHop> = step.into_iter().filter(|n| *n != (0, 0)).map(|(v4, v6)| hop(v4, v6)).collect();
                let before = tables.nodes.clone();
                let indexes = tables.want(&wanted, most);
                let given: BTreeSet<u16> = indexes.iter().flatten().copied().collect();
                prop_assert_eq!(given.len(), indexes.iter().flatten().count());
                prop_assert!(given.iter().all(|index| *index < most));
                for (index, hop) in indexes.iter().zip(&wanted) {
                    let same = before.iter().find(|(_, old)| is_same(old, hop)).map(|(index, _)| *index);
                    prop_assert!(same.is_none() || *index == same);
                    let old = index.and_then(|index| before.get(&index));
                    prop_assert!(old.is_none_or(|old| agrees(old, hop)), "{:?} is another's", index);
                }
                let room = usize::from(most) - before.len();
                let new = indexes.iter().filter(|index| index.is_none_or(|index| !before.contains_key(&index))).count();
                prop_assert_eq!(indexes.iter().filter(|index| index.is_none()).count(), new.saturating_sub(room));
            }
        }
    }
}
