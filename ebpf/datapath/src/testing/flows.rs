//! The tables of flows, in hash maps.

use core::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::vec::Vec;

use zerocopy::IntoBytes as _;

use super::arena::Arena;
use super::replay::Entry;
use crate::Word;
use crate::flow::{self, Flow, FlowKey, FragmentKey, FragmentPorts, InsertError, PodFlows, Table};

/// Slots whose flows are counted.
const SLOTS: usize = 64;

/// The tables of flows. What was looked up stays readable when its entry has been replaced or removed.
#[derive(Debug)]
pub struct Flows {
    /// Entries that `CT_EST` takes.
    pub established_capacity: Cell<usize>,
    /// Entries that `CT_ANY` takes before the oldest is evicted.
    pub any_capacity: Cell<usize>,
    /// Whether `CT_ANY` takes nothing at all: the kernel found nothing that it could evict.
    pub any_is_full: Cell<bool>,
    entries: RefCell<HashMap<(bool, FlowKey), usize>>,
    memory: Arena<Flow>,
    fragments: RefCell<HashMap<FragmentKey, FragmentPorts>>,
    pods: Vec<PodFlows>,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            established_capacity: Cell::new(usize::MAX),
            any_capacity: Cell::new(usize::MAX),
            any_is_full: Cell::new(false),
            entries: RefCell::default(),
            memory: Arena::default(),
            fragments: RefCell::default(),
            pods: (0..SLOTS).map(|_| PodFlows::default()).collect(),
        }
    }
}

impl Flows {
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
        self.pods[usize::from(slot)].established.get()
    }

    /// The same tables, with memory of their own.
    pub(super) fn copy(&self) -> Self {
        let copy = Self {
            established_capacity: self.established_capacity.clone(),
            any_capacity: self.any_capacity.clone(),
            any_is_full: self.any_is_full.clone(),
            fragments: self.fragments.clone(),
            ..Self::default()
        };
        let entries = self.entries.borrow();
        // In the order in which they came, which is that in which they are evicted.
        let mut oldest: Vec<_> = entries.iter().collect();
        oldest.sort_unstable_by_key(|(_, index)| **index);
        for (key, index) in oldest {
            let mut flow = Flow::new();
            flow.copy_from(self.memory.get(*index).expect("an entry has memory"));
            copy.entries.borrow_mut().insert(*key, copy.memory.push(flow));
        }
        for (from, to) in self.pods.iter().zip(&copy.pods) {
            to.established.set(from.established.get());
            to.second.store(from.second.load());
            to.opened.store(from.opened.load());
        }
        copy
    }

    /// What packets have left in them.
    pub(super) fn bytes(&self) -> Vec<Entry> {
        let mut bytes = Vec::new();
        for ((established, key), index) in &*self.entries.borrow() {
            let mut flow = Flow::new();
            flow.copy_from(self.memory.get(*index).expect("an entry has memory"));
            bytes.push(Entry::new(if *established { "CT_EST" } else { "CT_ANY" }, key, flow.as_mut_bytes()));
        }
        for (key, ports) in &*self.fragments.borrow() {
            bytes.push(Entry::new("FRAGS", key, ports));
        }
        for (slot, pod) in (0_u32..).zip(&self.pods) {
            let established = Cell::new(pod.established.get());
            let (second, opened) = (Word::new(pod.second.load()), Word::new(pod.opened.load()));
            let mut pod = PodFlows { established, second, opened };
            if pod.as_mut_bytes().iter().any(|byte| *byte != 0) {
                bytes.push(Entry::new("POD_FLOWS", &slot, pod.as_mut_bytes()));
            }
        }
        bytes
    }

    /// Takes the oldest entry of `CT_ANY` away, as the kernel does when it is full.
    fn evict(&self) {
        let mut entries = self.entries.borrow_mut();
        let oldest = entries.iter().filter(|((established, _), _)| !established).min_by_key(|(_, index)| **index);
        if let Some(key) = oldest.map(|(key, _)| *key) {
            entries.remove(&key);
        }
    }
}

impl flow::Tables for Flows {
    fn flow(&self, table: Table, key: &FlowKey) -> Option<&Flow> {
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
            let count = self.keys(table).len();
            if established && count >= self.established_capacity.get() || !established && self.any_is_full.get() {
                return Err(InsertError::Full);
            }
            if !established && count >= self.any_capacity.get() {
                self.evict();
            }
        }
        let mut copy = Flow::new();
        copy.copy_from(flow);
        self.entries.borrow_mut().insert((established, *key), self.memory.push(copy));
        Ok(())
    }

    fn remove_flow(&self, table: Table, key: &FlowKey) -> bool {
        self.entries.borrow_mut().remove(&(table == Table::Established, *key)).is_some()
    }

    fn pod_flows(&self, slot: u16) -> Option<&PodFlows> {
        self.pods.get(usize::from(slot))
    }

    fn count_established(&self, slot: u16, by: i64) {
        if let Some(pod) = self.pod_flows(slot) {
            pod.established.set(pod.established.get().wrapping_add_signed(by));
        }
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.fragments.borrow().get(key).copied()
    }

    fn insert_fragment(&self, key: &FragmentKey, ports: FragmentPorts) {
        self.fragments.borrow_mut().insert(*key, ports);
    }
}
