//! The changes to the tables about the node: each element says something by itself, so it is written by itself.

use std::collections::BTreeMap;

use fairlead_datapath::Addr;
use fairlead_datapath::config::{Config, MAX_UPLINKS, Uplink};
use fairlead_datapath::service::MAX_NODE_ADDRESSES;

use super::Op;
use crate::compile::node::Wanted;

/// Numbers of elements of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Of `UPLINKS`.
    pub uplinks: usize,
    /// Of `NODE_ADDRESSES`.
    pub addresses: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { uplinks: MAX_UPLINKS as usize, addresses: MAX_NODE_ADDRESSES as usize }
    }
}

/// How to bring what is wanted into force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Plan {
    /// The operations, in order.
    pub ops: Vec<Op>,
    /// Interfaces for which there is no room: nothing leaves the cluster there.
    pub uplinks: Vec<u32>,
    /// Addresses for which there is no room: no ports are reached there.
    pub addresses: Vec<Addr>,
}

/// What the tables hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// `CONFIG`
    pub config: Config,
    /// `UPLINKS`
    pub uplinks: BTreeMap<u32, Uplink>,
    /// `NODE_ADDRESSES`
    pub addresses: BTreeMap<Addr, u32>,
}

impl State {
    /// The operations that lead from what the tables hold to what they should hold.
    pub fn plan(&self, wanted: &Wanted, capacity: Capacity) -> Plan {
        let mut plan = Plan::default();
        if self.config != wanted.config {
            plan.ops.push(Op::Config { value: wanted.config });
        }
        let (uplinks, left_out) = change(&self.uplinks, &wanted.uplinks, capacity.uplinks);
        plan.ops.extend(uplinks.into_iter().map(|(ifindex, value)| Op::Uplink { ifindex, value }));
        plan.uplinks = left_out;
        let (addresses, left_out) = change(&self.addresses, &wanted.addresses, capacity.addresses);
        plan.ops.extend(addresses.into_iter().map(|(addr, kinds)| Op::NodeAddress { addr, kinds }));
        plan.addresses = left_out;
        plan
    }

    /// Takes note of an operation that was applied.
    pub fn applied(&mut self, op: &Op) {
        match op {
            Op::Config { value } => self.config = *value,
            Op::Uplink { ifindex, value } => put(&mut self.uplinks, *ifindex, *value),
            Op::NodeAddress { addr, kinds } => put(&mut self.addresses, *addr, *kinds),
            _ => {}
        }
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

/// Elements to write, or to delete, and the keys of those for which there is no room: of what is wanted the last. What is to
/// go goes first where the rest needs its room, and last where it does not.
fn change<K: Ord + Copy, V: PartialEq + Copy>(
    old: &BTreeMap<K, V>,
    wanted: &[(K, V)],
    size: usize,
) -> (Vec<(K, Option<V>)>, Vec<K>) {
    let (wanted, left_out) = wanted.split_at(wanted.len().min(size));
    let changed = wanted.iter().filter(|(key, value)| old.get(key) != Some(value));
    let writes: Vec<_> = changed.map(|(key, value)| (*key, Some(*value))).collect();
    let gone = old.keys().filter(|key| wanted.iter().all(|(other, _)| other != *key));
    let mut deletes: Vec<_> = gone.map(|key| (*key, None)).collect();
    let new = writes.iter().filter(|(key, _)| !old.contains_key(key)).count();
    let tight = old.len() + new > size;
    deletes.extend_from_slice(&writes);
    if !tight {
        deletes.rotate_right(writes.len());
    }
    (deletes, left_out.iter().map(|(key, _)| *key).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addr(n: u8) -> Addr {
        Addr::from(std::net::IpAddr::from([10, 0, 0, n]))
    }

    fn wanted(uplinks: &[u8], addresses: &[u8]) -> Wanted {
        let row = |n: &u8| (u32::from(*n), Uplink { v4: addr(*n), ..Uplink::default() });
        Wanted {
            config: Config { mtu: 1500, v4: addr(uplinks.len() as u8), ..Config::default() },
            uplinks: uplinks.iter().map(row).collect(),
            addresses: addresses.iter().map(|n| (addr(*n), u32::from(*n) % 3)).collect(),
        }
    }

    const SMALL: Capacity = Capacity { uplinks: 3, addresses: 4 };

    #[test]
    fn what_is_in_force_needs_no_plan_and_what_has_no_room_is_named() {
        let mut state = State::default();
        let plan = state.plan(&wanted(&[2, 3, 4, 5], &[1, 2, 3, 4, 5]), SMALL);
        assert_eq!((plan.uplinks, plan.addresses), (vec![5], vec![addr(5)]));
        plan.ops.iter().for_each(|op| state.applied(op));
        assert_eq!(
            state.plan(&wanted(&[2, 3, 4], &[1, 2, 3, 4]), SMALL).ops,
            [Op::Config { value: wanted(&[2, 3, 4], &[]).config }]
        );
    }

    fn distinct(most: u8) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::btree_set(1..most, 0..7).prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle()
    }

    proptest! {
        #[test]
        fn tables_never_overflow_and_end_as_wanted(steps in prop::collection::vec((distinct(9), distinct(9)), 1..6)) {
            let mut state = State::default();
            for (uplinks, addresses) in steps {
                let wanted = wanted(&uplinks, &addresses);
                let plan = state.plan(&wanted, SMALL);
                let kept: BTreeMap<_, _> = wanted.uplinks.iter().take(SMALL.uplinks).copied().collect();
                let (before, stay) = (state.clone(), kept.clone());
                for op in &plan.ops {
                    state.applied(op);
                    prop_assert!(state.uplinks.len() <= SMALL.uplinks && state.addresses.len() <= SMALL.addresses);
                    // What is there before and after is there all the time.
                    prop_assert!(stay.keys().filter(|key| before.uplinks.contains_key(key)).all(|key| state.uplinks.contains_key(key)));
                }
                prop_assert_eq!(&state.uplinks, &kept);
                prop_assert_eq!(state.addresses.len(), wanted.addresses.len().min(SMALL.addresses));
                prop_assert_eq!(state.config, wanted.config);
                prop_assert_eq!(plan.uplinks.len() + kept.len(), wanted.uplinks.len());
            }
        }
    }
}
