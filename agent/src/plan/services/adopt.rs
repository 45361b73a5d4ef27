//! The state, from what the pinned tables hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use fairlead_datapath::service::{BackendState, Frontend, FrontendFlags, HostTables, Scope, Verdict};

use super::Capacity;
use super::blocks::Blocks;
use super::ids::Ids;
use super::share::Holdings;
use super::state::{Block, Claim, Port, State};
use crate::compile::services::BackendAddr;

impl State {
    /// What the tables of an earlier agent hold. Ids, generations and blocks stay what they are, so a world that has not
    /// changed meanwhile gives an empty plan.
    ///
    /// `capacity` is what the tables were made with; where the kernel has no room for that, [`State::set_capacity`] says so.
    ///
    /// Plan every service next, all in one call, then [`State::release_unclaimed`].
    #[must_use]
    pub fn adopt(capacity: Capacity, tables: &HostTables) -> Self {
        let mut slots = Blocks::new(capacity.slots);
        let mut ports: BTreeMap<u32, Port> = BTreeMap::new();
        let is_service = |id: u32| (1..Self::services_end(capacity)).contains(&id);
        let (mut used, mut generations) = (BTreeSet::new(), HashMap::new());
        for (id, backend) in (0..capacity.backends).zip(&tables.backends).skip(1) {
            let state = BackendState(backend.state);
            if state.generation() != 0 {
                generations.insert(id, state.generation());
            }
            if !state.serving() || !is_service(backend.service) {
                continue;
            }
            used.insert(id);
            let port = ports.entry(backend.service).or_default();
            if state.ending() {
                port.ending.insert(id);
            }
            let addr = BackendAddr { ip: IpAddr::from(backend.addr), port: backend.port.number() };
            if let Some(second) = port.backends.insert(addr, id) {
                port.surplus.insert(second);
            }
        }
        for frontend in tables.frontends.values().filter(|frontend| is_service(frontend.service)) {
            let port = ports.entry(frontend.service).or_default();
            let Frontend { internal, external, .. } = frontend;
            for scope in [internal, external] {
                adopt_block(*scope, port, tables, &mut slots);
            }
        }
        // A service port has one set. Another one is left of an interrupted plan: it stays until the port's frontends have
        // been planned.
        let mut stray_ranges = tables.source_ranges.clone();
        for frontend in tables.frontends.values().filter(|frontend| is_service(frontend.service)) {
            let set = FrontendFlags::source_set_of(frontend.flags);
            let port = ports.entry(frontend.service).or_default();
            if set != 0 && port.ranges.is_empty() {
                port.ranges = stray_ranges.extract_if(.., |range| range.set == set).collect();
            }
        }
        let range_sets = tables.source_ranges.iter().map(|range| range.set).collect();
        let claim = |frontend: &Frontend| Claim { written: Some(*frontend), by: BTreeSet::new() };
        Self {
            capacity,
            names: BTreeMap::new(),
            services: Ids::with(Self::services_end(capacity), &ports.keys().copied().collect()),
            ports,
            holdings: Holdings::default(),
            frontends: tables.frontends.iter().map(|(key, frontend)| (*key, claim(frontend))).collect(),
            slots,
            backends: Ids::with(capacity.backends, &used),
            ranges: tables.source_ranges.len() as u32,
            range_sets: Ids::with(capacity.ranges, &range_sets),
            stray_ranges,
            generations,
            service_ports: tables.service_ports.clone(),
            udp_generation: tables.state.udp_generation,
            contested: BTreeMap::new(),
            barrier_first: true,
            has_adopted: true,
        }
    }
}

/// Takes over the block of a scope, unless the port has it already. One that can't be is written anew elsewhere.
fn adopt_block(scope: Scope, port: &mut Port, tables: &HostTables, slots: &mut Blocks) {
    let (offset, count) = (scope.offset(), scope.count());
    if scope.verdict() != Verdict::Forward || count == 0 {
        return;
    }
    if port.blocks.iter().any(|block| block.offset == offset && block.count() == count) {
        return;
    }
    let (first, last) = (offset as usize, offset as usize + count as usize);
    if let Some(ids) = tables.slots.get(first..last)
        && slots.take_at(offset, count)
    {
        port.blocks.push(Block { offset, ids: ids.to_vec() });
    }
}
