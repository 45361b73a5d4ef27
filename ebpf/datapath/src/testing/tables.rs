//! The tables, delegated; and those of flows in hash maps.

use core::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::vec::Vec;

use super::arena::Arena;
use super::host::Host;
use crate::Addr;
use crate::flow::{self, Flow, FlowKey, FragmentKey, FragmentPorts, InsertError, PodFlows, Table};
use crate::peer::{self, CidrKey, NodeHop, Peer, Pod};
use crate::policy::{self, PeerKey, PolicySet, PortKey, RangeKey, Row};
use crate::service::{self, Affinity, AffinityKey, Backend, Frontend, FrontendKey, SourceRangeKey};

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

/// Implements a table trait by asking a field.
macro_rules! ask {
    ($field:ident: $tables:path { $(fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?;)+ }) => {
        impl $tables for Host {
            $(fn $name(&self, $($arg: $type),*) $(-> $result)? {
                self.$field.$name($($arg),*)
            })+
        }
    };
}

ask!(flows: flow::Tables {
    fn flow(table: Table, key: &FlowKey) -> Option<&Flow>;
    fn insert_flow(table: Table, key: &FlowKey, flow: &Flow, only_new: bool) -> Result<(), InsertError>;
    fn remove_flow(table: Table, key: &FlowKey) -> bool;
    fn pod_flows(slot: u16) -> Option<&PodFlows>;
    fn count_established(slot: u16, by: i64);
    fn fragment(key: &FragmentKey) -> Option<FragmentPorts>;
    fn insert_fragment(key: &FragmentKey, ports: FragmentPorts);
});

ask!(peers: peer::Tables {
    fn peer(addr: &Addr) -> Option<Peer>;
    fn cidr(key: &CidrKey) -> Option<Peer>;
    fn node(index: u16) -> Option<NodeHop>;
    fn pod(slot: u16) -> Option<&Pod>;
    fn pod_word(slot: u16) -> u64;
});

ask!(policies: policy::Tables {
    fn policy_set(index: u32) -> Option<PolicySet>;
    fn policy_peers(key: &PeerKey) -> Option<Row>;
    fn policy_ports(key: &PortKey) -> Option<Row>;
    fn policy_range(key: &RangeKey) -> Option<Row>;
});

ask!(services: service::Tables {
    fn frontend(key: &FrontendKey) -> Option<Frontend>;
    fn node_address(addr: &Addr) -> u32;
    fn affinity(key: &AffinityKey) -> Option<Affinity>;
    fn remember_affinity(key: &AffinityKey, value: &Affinity);
    fn service_ports(index: u32) -> u64;
    fn in_source_range(key: &SourceRangeKey) -> bool;
    fn slot(index: u32) -> Option<u32>;
    fn backend(id: u32) -> Option<&Backend>;
    fn backend_state(id: u32) -> u64;
    fn udp_generation() -> u32;
});
