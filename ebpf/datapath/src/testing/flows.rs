//! The tables of flows, in hash maps.

use core::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::vec::Vec;

use zerocopy::IntoBytes as _;

use super::arena::Arena;
use super::replay;
use crate::catalog::TableId;
use crate::flow::{
    self, Destination, Entry, Flow, FlowFlags, FlowKey, FlowState, FragmentKey, FragmentPorts, InsertError, PodFlows,
    PortSet, Table,
};
use crate::peer::NO_SLOT;
use crate::{Long, Word};

/// Slots whose flows are counted.
const SLOTS: usize = 64;

/// Where all flows are counted, behind those that nobody accounts for.
const EVERYBODY: usize = SLOTS + 1;

/// What a number is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// Flows of a pod; behind those of pods come those of nobody, and of all.
    Flows(usize, What),
    /// Source ports, in a counter of `SHARES`.
    Share(u32),
}

/// Of which table and direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// `CT_EST`, opened by it.
    Established,
    /// `CT_EST`, opened to it.
    Accepted,
    /// `CT_ANY`, opened by it.
    Outgoing,
    /// `CT_ANY`, opened to it.
    Incoming,
}

/// The tables of flows. What was looked up stays readable when its entry has been replaced or removed.
#[derive(Debug)]
pub struct Flows {
    /// Entries that `CT_EST` takes.
    pub established_capacity: Cell<usize>,
    /// Entries that `CT_ANY` takes.
    pub any_capacity: Cell<usize>,
    /// Counters of ports in use, of those that were asked for.
    shares: RefCell<HashMap<u32, usize>>,
    share_memory: Arena<Long>,
    /// Sets of ports in use.
    sets: RefCell<HashMap<Destination, usize>>,
    set_memory: Arena<PortSet>,
    entries: RefCell<HashMap<(bool, FlowKey), usize>>,
    memory: Arena<Entry>,
    fragments: RefCell<HashMap<FragmentKey, FragmentPorts>>,
    pods: Vec<PodFlows>,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            established_capacity: Cell::new(usize::MAX),
            any_capacity: Cell::new(usize::MAX),
            shares: RefCell::default(),
            share_memory: Arena::default(),
            sets: RefCell::default(),
            set_memory: Arena::default(),
            entries: RefCell::default(),
            memory: Arena::default(),
            fragments: RefCell::default(),
            pods: (0..SLOTS + 2).map(|_| PodFlows::default()).collect(),
        }
    }
}

impl Flows {
    /// Where flows of nobody are counted.
    pub const NOBODY: usize = SLOTS;

    /// The keys in a table, in no order.
    #[must_use]
    pub fn keys(&self, table: Table) -> Vec<FlowKey> {
        let wanted = table == Table::Established;
        self.entries.borrow().keys().filter(|(established, _)| *established == wanted).map(|(_, key)| *key).collect()
    }

    /// Number of entries in both tables.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Whether there is no entry at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Established flows that count against a pod.
    #[must_use]
    pub fn established(&self, slot: u16) -> u64 {
        let pod = &self.pods[usize::from(slot)];
        pod.established.load() + pod.accepted.load()
    }

    /// Every count that is not zero, by what it is of.
    #[must_use]
    pub fn counts(&self) -> Vec<(Counted, u64)> {
        let pods = (0_usize..).zip(&self.pods).flat_map(|(slot, pod)| {
            let PodFlows { established, accepted, outgoing, incoming, second: _, opened: _ } = pod;
            let counts = [
                (What::Established, established),
                (What::Accepted, accepted),
                (What::Outgoing, outgoing),
                (What::Incoming, incoming),
            ];
            counts.map(|(what, count)| (Counted::Flows(slot, what), count.load()))
        });
        let mut shares = self.shares();
        shares.sort_unstable();
        let shares = shares.into_iter().map(|(index, count)| (Counted::Share(index), count));
        pods.chain(shares).filter(|(_, count)| *count != 0).collect()
    }

    /// What [`Self::counts`] has to be, by the entries.
    #[must_use]
    pub fn recounted(&self, seed: u32) -> Vec<(Counted, u64)> {
        let mut counts = std::collections::BTreeMap::<_, u64>::new();
        for ((established, key), index) in &*self.entries.borrow() {
            let flow = self.plain(*index);
            let gone = flow.state.value & FlowState::GONE != 0;
            let of = |slot| if gone { NO_SLOT } else { slot };
            let (opener, responder) = (of(flow.opener.slot), of(flow.responder.slot));
            if !flow.is(FlowFlags::FAR) {
                let what = match (established, opener == NO_SLOT) {
                    (true, false) => What::Established,
                    (true, true) => What::Accepted,
                    (false, false) => What::Outgoing,
                    (false, true) => What::Incoming,
                };
                let slot = if opener == NO_SLOT { responder } else { opener };
                let slot = if slot == NO_SLOT { SLOTS } else { usize::from(slot) };
                *counts.entry(Counted::Flows(slot, what)).or_default() += 1;
                *counts.entry(Counted::Flows(EVERYBODY, what)).or_default() += 1;
            }
            if flow.is(FlowFlags::PORT) {
                let mut place = Destination::default();
                place.set(key, flow.is(FlowFlags::OPENER_IS_A));
                *counts.entry(Counted::Share(place.total(seed))).or_default() += 1;
                if flow.is(FlowFlags::HELD) {
                    let who = flow::holder(opener, flow.other.src);
                    *counts.entry(Counted::Share(place.share(seed, who))).or_default() += 1;
                }
            }
        }
        counts.into_iter().collect()
    }

    /// The counters of ports in use that are not zero.
    fn shares(&self) -> Vec<(u32, u64)> {
        let shares = self.shares.borrow();
        let counts = shares.iter().map(|(index, place)| (*index, self.share_memory.get(*place).map_or(0, Long::load)));
        counts.filter(|(_, count)| *count != 0).collect()
    }

    /// An entry as it is.
    fn plain(&self, index: usize) -> Flow {
        self.memory.get(index).expect("an entry has memory").plain()
    }

    /// The same tables, with memory of their own.
    pub(super) fn copy(&self) -> Self {
        let copy = Self {
            established_capacity: self.established_capacity.clone(),
            any_capacity: self.any_capacity.clone(),
            fragments: self.fragments.clone(),
            ..Self::default()
        };
        let entries = self.entries.borrow();
        // In the order in which they came, which is that in which they are evicted.
        let mut oldest: Vec<_> = entries.iter().collect();
        oldest.sort_unstable_by_key(|(_, index)| **index);
        for (key, index) in oldest {
            copy.entries.borrow_mut().insert(*key, copy.memory.push(zerocopy::transmute!(self.plain(*index))));
        }
        for (index, count) in self.shares() {
            copy.shares.borrow_mut().insert(index, copy.share_memory.push(Long::new(count)));
        }
        for (key, index) in &*self.sets.borrow() {
            let set = PortSet::default();
            let from = self.set_memory.get(*index).expect("a set has memory");
            from.words.iter().zip(&set.words).for_each(|(from, to)| to.store(from.load()));
            copy.sets.borrow_mut().insert(*key, copy.set_memory.push(set));
        }
        for (from, to) in self.pods.iter().zip(&copy.pods) {
            to.established.store(from.established.load());
            to.accepted.store(from.accepted.load());
            to.outgoing.store(from.outgoing.load());
            to.incoming.store(from.incoming.load());
            to.second.store(from.second.load());
            to.opened.store(from.opened.load());
        }
        copy
    }

    /// Elements of `FRAGS`.
    #[must_use]
    pub fn fragments(&self) -> usize {
        self.fragments.borrow().len()
    }

    /// What packets have left in them, in the order of tables and keys.
    #[must_use]
    pub fn left(&self) -> Vec<replay::Entry> {
        let mut entries = self.bytes();
        entries.sort();
        entries
    }

    /// Has every flow be as if it had been seen when it was in other tables.
    pub fn see_as(&self, others: &Self) {
        let theirs = others.entries.borrow();
        for (key, index) in &*self.entries.borrow() {
            let entry = |flows: &Self, index| flows.memory.get(index).expect("an entry has memory").seen.load();
            if let Some(seen) = theirs.get(key).map(|index| entry(others, *index)) {
                self.memory.get(*index).expect("an entry has memory").seen.store(seen);
            }
        }
    }

    /// The same, in no order.
    pub(super) fn bytes(&self) -> Vec<replay::Entry> {
        let mut bytes = Vec::new();
        for ((established, key), index) in &*self.entries.borrow() {
            bytes.push(replay::Entry::new(
                if *established { TableId::EstablishedFlows } else { TableId::OtherFlows },
                key,
                &self.plain(*index),
            ));
        }
        for (key, ports) in &*self.fragments.borrow() {
            bytes.push(replay::Entry::new(TableId::Fragments, key, ports));
        }
        for (index, count) in self.shares() {
            bytes.push(replay::Entry::new(TableId::PortShares, &index, &count));
        }
        for (key, index) in &*self.sets.borrow() {
            let set = self.set_memory.get(*index).expect("a set has memory");
            bytes.push(replay::Entry::new(TableId::PortSets, key, &set.words.each_ref().map(Long::load)));
        }
        for (slot, pod) in (0_u32..).zip(&self.pods) {
            let [established, accepted, outgoing, incoming] =
                [&pod.established, &pod.accepted, &pod.outgoing, &pod.incoming].map(|count| Long::new(count.load()));
            let (second, opened) = (Word::new(pod.second.load()), Word::new(pod.opened.load()));
            let mut pod = PodFlows { established, accepted, outgoing, incoming, second, opened };
            if pod.as_mut_bytes().iter().any(|byte| *byte != 0) {
                let index = match slot as usize {
                    SLOTS => PodFlows::NOBODY.into(),
                    EVERYBODY => PodFlows::EVERYBODY.into(),
                    _ => slot,
                };
                bytes.push(replay::Entry::new(TableId::FlowCounts, &index, pod.as_mut_bytes()));
            }
        }
        bytes
    }
}

impl flow::Tables for Flows {
    fn flow(&self, table: Table, key: &FlowKey) -> Option<&Entry> {
        let index = *self.entries.borrow().get(&(table == Table::Established, *key))?;
        self.memory.get(index)
    }

    fn insert_flow(&self, table: Table, key: &FlowKey, flow: &Flow, only_new: bool) -> Result<(), InsertError> {
        let established = table == Table::Established;
        let exists = self.entries.borrow().contains_key(&(established, *key));
        if exists && only_new {
            return Err(InsertError::Exists);
        }
        if !exists {
            let capacity = if established { &self.established_capacity } else { &self.any_capacity };
            if capacity.get() != usize::MAX && self.keys(table).len() >= capacity.get() {
                return Err(InsertError::Full);
            }
        }
        let entry = self.memory.push(zerocopy::transmute!(*flow));
        self.entries.borrow_mut().insert((established, *key), entry);
        Ok(())
    }

    fn remove_flow(&self, table: Table, key: &FlowKey) -> bool {
        self.entries.borrow_mut().remove(&(table == Table::Established, *key)).is_some()
    }

    fn pod_flows(&self, index: u16) -> Option<&PodFlows> {
        let index = match index {
            PodFlows::NOBODY => SLOTS,
            PodFlows::EVERYBODY => EVERYBODY,
            slot => usize::from(slot),
        };
        self.pods.get(index)
    }

    fn share(&self, index: u32) -> Option<&Long> {
        let mut shares = self.shares.borrow_mut();
        let place = *shares.entry(index).or_insert_with(|| self.share_memory.push(Long::default()));
        self.share_memory.get(place)
    }

    fn ports(&self, key: &Destination) -> Option<&PortSet> {
        let index = *self.sets.borrow().get(key)?;
        self.set_memory.get(index)
    }

    fn keep_ports(&self, key: &Destination) -> bool {
        self.sets.borrow_mut().insert(*key, self.set_memory.push(PortSet::default()));
        true
    }

    fn drop_ports(&self, key: &Destination) {
        self.sets.borrow_mut().remove(key);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.fragments.borrow().get(key).copied()
    }

    fn insert_fragment(&self, key: &FragmentKey, ports: FragmentPorts) {
        self.fragments.borrow_mut().insert(*key, ports);
    }
}
