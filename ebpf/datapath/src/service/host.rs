//! The tables of services without a kernel.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::vec::Vec;

use super::{
    Affinity, AffinityKey, Backend, Frontend, FrontendKey, MAX_BACKENDS, MAX_SLOTS, ServiceState, SourceRangeKey,
    Tables,
};
use crate::{Addr, WirePort};

/// [`Tables`] in memory. What was never written is zero, as in the kernel's arrays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostTables {
    /// `FRONTENDS`.
    pub frontends: HashMap<FrontendKey, Frontend>,
    /// `SLOTS`, as far as it was written.
    pub slots: Vec<u32>,
    /// `BACKENDS`, as far as it was written.
    pub backends: Vec<Backend>,
    /// `AFFINITY`, which packets write.
    pub affinities: RefCell<HashMap<AffinityKey, Affinity>>,
    /// `SERVICE_STATE`.
    pub state: ServiceState,
    /// `NODE_ADDRESSES`.
    pub node_addresses: HashMap<Addr, u32>,
    /// `SERVICE_PORTS`; what is absent is zero.
    pub service_ports: BTreeMap<u32, u64>,
    /// `SOURCE_RANGES`.
    pub source_ranges: BTreeSet<SourceRangeKey>,
}

impl HostTables {
    /// What an unwritten element of `BACKENDS` holds.
    pub const NOBODY: Backend =
        Backend { addr: Addr::UNSPECIFIED, port: WirePort::NONE, proto: 0, pad: 0, service: 0, state: 0 };

    /// Writes elements of `SLOTS`.
    pub fn write_slots(&mut self, offset: u32, ids: &[u32]) {
        let end = offset as usize + ids.len();
        if self.slots.len() < end {
            self.slots.resize(end, 0);
        }
        self.slots[offset as usize..end].copy_from_slice(ids);
    }

    /// Changes each frontend, which gets the tag of its new content.
    pub fn change_frontends(&mut self, mut change: impl FnMut(&FrontendKey, &mut Frontend)) {
        for (key, frontend) in &mut self.frontends {
            change(key, frontend);
            *frontend = frontend.sealed(key.tag());
        }
    }

    /// Writes an element of `BACKENDS`.
    pub fn write_backend(&mut self, id: u32, value: Backend) {
        *self.backend_mut(id) = value;
    }

    /// Writes the word of an element of `BACKENDS` that may change.
    pub fn write_backend_state(&mut self, id: u32, state: u64) {
        self.backend_mut(id).state = state;
    }

    fn backend_mut(&mut self, id: u32) -> &mut Backend {
        if self.backends.len() <= id as usize {
            self.backends.resize(id as usize + 1, Self::NOBODY);
        }
        &mut self.backends[id as usize]
    }
}

impl Tables for HostTables {
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.frontends.get(key).copied()
    }

    fn node_address(&self, addr: &Addr) -> u32 {
        self.node_addresses.get(addr).copied().unwrap_or(0)
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinities.borrow().get(key).copied()
    }

    fn remember_affinity(&self, key: &AffinityKey, value: &Affinity) {
        self.affinities.borrow_mut().insert(*key, *value);
    }

    fn service_ports(&self, index: u32) -> u64 {
        self.service_ports.get(&index).copied().unwrap_or(0)
    }

    fn in_source_range(&self, key: &SourceRangeKey) -> bool {
        self.source_ranges.iter().any(|range| {
            let bits = range.prefix_len.min(key.prefix_len) - 32;
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            let [ours, theirs] = [key.addr, range.addr].map(u128::from_be_bytes);
            range.set == key.set && ours & mask == theirs & mask
        })
    }

    fn slot(&self, index: u32) -> Option<u32> {
        (index < MAX_SLOTS).then(|| self.slots.get(index as usize).copied().unwrap_or_default())
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        (id < MAX_BACKENDS).then(|| self.backends.get(id as usize).unwrap_or(&Self::NOBODY))
    }

    fn backend_state(&self, id: u32) -> u64 {
        self.backend(id).map_or(0, |b| b.state)
    }

    fn udp_generation(&self) -> u32 {
        self.state.udp_generation as u32
    }
}
