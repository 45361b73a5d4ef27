//! The change of one service.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::service::{Frontend, FrontendFlags, FrontendKey, Scope, SourceRangeKey};
use fairlead_objects::{ObjectKey, TrafficPolicy};
use ipnetwork::IpNetwork;

use super::share::Growth;
use super::state::{Block, Port, State};
use super::{Op, PlanError, Usage};
use crate::compile::services::{Answer, BackendAddr, FrontendKind, PortContent, PortKey, ServiceContent};

/// The operations of a plan by their place in it.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// New backends.
    pub(super) records: Vec<Op>,
    /// New blocks.
    pub(super) slots: Vec<Op>,
    /// New source ranges.
    pub(super) ranges: Vec<SourceRangeKey>,
    /// Frontends that may have to change.
    pub(super) touched: BTreeSet<FrontendKey>,
    /// Backends that are about to end, or are not after all.
    pub(super) ending: BTreeMap<u32, bool>,
    /// Backends that left their service.
    pub(super) retired: Vec<u32>,
    /// Blocks that nothing will refer to, by offset and count.
    pub(super) blocks: Vec<(u32, u32)>,
    /// Service ports that are gone.
    pub(super) services: Vec<u32>,
    /// Source ranges that hold no more.
    pub(super) old_ranges: Vec<SourceRangeKey>,
}

/// What was taken for a service while it was not sure that all of it fits.
#[derive(Debug, Default)]
struct Taken {
    services: Vec<u32>,
    backends: Vec<u32>,
    blocks: Vec<(u32, u32)>,
    range_sets: Vec<u32>,
    records: Vec<Op>,
    slots: Vec<Op>,
}

impl State {
    /// Changes a service, or nothing.
    pub(super) fn change(
        &mut self,
        service: &ObjectKey,
        content: &ServiceContent,
        draft: &mut Draft,
    ) -> Result<(), PlanError> {
        let mut taken = Taken::default();
        let all = self.usage();
        let prepared = self.prepare(service, content, &mut taken);
        let ports = match prepared.and_then(|ports| self.check_share(service, &ports, all).map(|()| ports)) {
            Ok(ports) => ports,
            Err(error) => {
                self.put_back(taken);
                return Err(error);
            }
        };
        draft.records.append(&mut taken.records);
        draft.slots.append(&mut taken.slots);
        for id in self.ids_of(service) {
            if !ports.contains_key(&id) {
                self.remove_port(id, draft);
            }
        }
        for (id, port) in ports {
            self.replace_port(id, port, draft);
        }
        Ok(())
    }

    /// Closes the load balancer's addresses of a service that is refused, if they are open to clients that are to be kept out. That
    /// takes no room.
    pub(super) fn close(&mut self, content: &ServiceContent, draft: &mut Draft) {
        for (name, content) in content.ports.iter().filter(|(_, content)| !content.source_ranges.is_empty()) {
            let Some(port) = self.names.get(name).and_then(|id| self.ports.get_mut(id)) else { continue };
            let wanted: BTreeSet<SourceRangeKey> = set_of(0, &content.source_ranges);
            let is_kept = |range: &SourceRangeKey| wanted.iter().any(|wanted| holds(wanted, range));
            if !port.ranges.is_empty() && port.ranges.iter().all(is_kept) {
                continue;
            }
            let kinds = &port.kinds;
            let balancers =
                port.frontends.iter_mut().filter(|(key, _)| kinds.get(key) == Some(&FrontendKind::LoadBalancer));
            for (key, frontend) in balancers {
                let closed = Frontend { tag: 0, internal: Scope::DROP, external: Scope::DROP, ..*frontend };
                *frontend = closed.sealed(key.tag());
                draft.touched.insert(*key);
            }
        }
    }

    /// Takes what was adopted of a service for its own, as it is: nobody else has asked for it, and it would be released.
    pub(super) fn keep(&mut self, content: &ServiceContent, draft: &mut Draft) {
        for (name, content) in &content.ports {
            let adopted = self.id_of(name, content, &BTreeMap::new()).filter(|_| !self.names.contains_key(name));
            let Some((id, old)) = adopted.and_then(|id| Some((id, self.ports.get(&id)?))) else { continue };
            let mut port = Port { name: Some(name.clone()), created: content.created, ..old.clone() };
            // They leave it, as they would in a plan.
            port.surplus.clear();
            for (key, policy) in &content.frontends {
                let written = self.frontends.get(key).and_then(|claim| claim.written);
                if let Some(written) = written.filter(|written| written.service == id) {
                    port.frontends.insert(*key, written);
                    port.kinds.insert(*key, policy.kind);
                }
            }
            self.replace_port(id, port, draft);
        }
    }

    /// Whether a service may have these ports, when all together had so much before it was given anything.
    fn check_share(&self, service: &ObjectKey, ports: &BTreeMap<u32, Port>, all: Usage) -> Result<(), PlanError> {
        let (mut before, mut after) = (Usage::default(), Usage::default());
        let mut namespace = self.holdings.of(&service.namespace);
        let own = self.ids_of(service);
        for port in own.iter().filter_map(|id| self.ports.get(id)) {
            before += port.usage();
        }
        // Those that it takes over from an earlier agent.
        for port in ports.keys().filter(|id| !own.contains(id)).filter_map(|id| self.ports.get(id)) {
            before += port.usage();
            namespace += port.usage();
        }
        let mut new = BTreeSet::<FrontendKey>::new();
        for port in ports.values() {
            after += port.usage();
            new.extend(port.frontends.keys().filter(|key| !self.frontends.contains_key(key)));
        }
        // An element that is there, whoever asked for it before, is not asked for again.
        before.frontends = before.frontends.max(after.frontends.saturating_sub(new.len() as u32));
        Growth { service, before, after, namespace, all }.check(self.capacity)
    }

    /// The ports as they are to be, by id, with everything taken that they need.
    fn prepare(
        &mut self,
        service: &ObjectKey,
        content: &ServiceContent,
        taken: &mut Taken,
    ) -> Result<BTreeMap<u32, Port>, PlanError> {
        let keys = || content.ports.values().flat_map(|port| port.frontends.keys());
        let new = keys().filter(|key| !self.frontends.contains_key(key)).collect::<BTreeSet<_>>().len() as u32;
        let used = self.frontends.len() as u32;
        if used + new > self.capacity.frontends {
            return Err(full(service, TableId::Frontends, self.capacity.frontends, used, new));
        }
        let (used, new) = (self.ranges, content.ports.values().map(|port| port.source_ranges.len() as u32).sum());
        if new > 0 && used + new > self.capacity.ranges {
            return Err(full(service, TableId::SourceRanges, self.capacity.ranges, used, new));
        }
        let mut ports = BTreeMap::new();
        for (name, content) in &content.ports {
            let id = match self.id_of(name, content, &ports) {
                Some(id) => id,
                None => {
                    let (size, used) = (State::services_end(self.capacity), self.services.used());
                    let id = self.services.take().ok_or_else(|| full(service, TableId::Frontends, size, used, 1))?;
                    taken.services.push(id);
                    id
                }
            };
            let port = self.prepare_port(id, name, content, taken)?;
            ports.insert(id, port);
        }
        Ok(ports)
    }

    /// The id of a service port: its own, or that of an adopted one that has one of its frontends, of those that nobody else
    /// can claim and win: its cluster addresses where it has some.
    fn id_of(&self, name: &PortKey, content: &PortContent, spoken_for: &BTreeMap<u32, Port>) -> Option<u32> {
        self.names.get(name).copied().or_else(|| {
            let best = content.frontends.values().map(|policy| policy.kind).min();
            let own = content.frontends.iter().filter(|(_, policy)| Some(policy.kind) == best);
            let written = own.filter_map(|(key, policy)| {
                let written = self.frontends.get(key)?.written?;
                let of_kind = |flags: u32| flags & FrontendFlags::WILDCARDS;
                (of_kind(written.flags) == of_kind(policy.flags(0))).then_some(written)
            });
            written
                .map(|frontend| frontend.service)
                .find(|id| !spoken_for.contains_key(id) && self.ports.get(id).is_some_and(|port| port.name.is_none()))
        })
    }

    fn prepare_port(
        &mut self,
        id: u32,
        name: &PortKey,
        content: &PortContent,
        taken: &mut Taken,
    ) -> Result<Port, PlanError> {
        let old = self.ports.get(&id).cloned().unwrap_or_default();
        let mut port = Port { name: Some(name.clone()), created: content.created, ..Port::default() };
        let kept = old.backends.iter().filter(|(addr, _)| content.in_service.contains(addr));
        port.backends = kept.map(|(addr, id)| (*addr, *id)).collect();
        port.ranges = self.range_set(name, &content.source_ranges, &old, taken)?;
        let source_set = port.ranges.first().map_or(0, |range| range.set);
        for (key, policy) in &content.frontends {
            let mut scope = |policy: TrafficPolicy| match content.answer(policy) {
                Answer::Reject => Ok(Scope::REJECT),
                Answer::Drop => Ok(Scope::DROP),
                Answer::Forward(addresses) => {
                    let block = self.block(id, name, addresses, &old, &mut port, taken)?;
                    Ok(Scope::forward(block.offset, block.count()))
                }
            };
            let (internal, external) = (scope(policy.inside)?, scope(policy.outside)?);
            let affinity_seconds = content.affinity_seconds;
            let flags = policy.flags(source_set);
            let frontend = Frontend { tag: 0, service: id, internal, external, affinity_seconds, flags };
            let frontend = frontend.sealed(key.tag());
            port.frontends.insert(*key, frontend);
            port.kinds.insert(*key, policy.kind);
        }
        port.ending = content.ending.iter().filter_map(|addr| port.backends.get(addr).copied()).collect();
        Ok(port)
    }

    /// The set of these source ranges: the one that the port has already, or a new one.
    fn range_set(
        &mut self,
        name: &PortKey,
        ranges: &BTreeSet<IpNetwork>,
        old: &Port,
        taken: &mut Taken,
    ) -> Result<BTreeSet<SourceRangeKey>, PlanError> {
        if ranges.is_empty() {
            return Ok(BTreeSet::new());
        }
        if let Some(first) = old.ranges.first()
            && old.ranges == set_of(first.set, ranges)
        {
            return Ok(old.ranges.clone());
        }
        let (size, used) = (self.capacity.ranges, self.range_sets.used());
        let set = self.range_sets.take().ok_or_else(|| full(&name.service, TableId::SourceRanges, size, used, 1))?;
        taken.range_sets.push(set);
        Ok(set_of(set, ranges))
    }

    /// Has source ranges deleted once nobody reads them.
    pub(super) fn drop_ranges(&mut self, ranges: BTreeSet<SourceRangeKey>, draft: &mut Draft) {
        self.ranges -= ranges.len() as u32;
        draft.old_ranges.extend(ranges);
    }

    /// The block of these backends: one that the port has already, or a new one.
    fn block(
        &mut self,
        service: u32,
        name: &PortKey,
        addresses: &BTreeSet<BackendAddr>,
        old: &Port,
        port: &mut Port,
        taken: &mut Taken,
    ) -> Result<Block, PlanError> {
        let mut ids = Vec::with_capacity(addresses.len());
        for addr in addresses {
            let known = port.backends.get(addr).or_else(|| old.backends.get(addr)).copied();
            let id = match known {
                Some(id) => id,
                None => self.new_backend(service, name, *addr, addresses.len(), taken)?,
            };
            port.backends.insert(*addr, id);
            ids.push(id);
        }
        // In order, so that affinity can look for one.
        ids.sort_unstable();
        if let Some(block) = port.blocks.iter().find(|block| block.ids == ids) {
            return Ok(block.clone());
        }
        let block = match old.blocks.iter().find(|block| block.ids == ids) {
            Some(block) => block.clone(),
            None => {
                let count = ids.len() as u32;
                let (size, used) = (self.capacity.slots, self.slots.used());
                let offset =
                    self.slots.take(count).ok_or_else(|| full(&name.service, TableId::Slots, size, used, count))?;
                taken.blocks.push((offset, count));
                taken.slots.push(Op::Slots { offset, ids: ids.clone() });
                Block { offset, ids }
            }
        };
        port.blocks.push(block.clone());
        Ok(block)
    }

    fn new_backend(
        &mut self,
        service: u32,
        name: &PortKey,
        addr: BackendAddr,
        needed: usize,
        taken: &mut Taken,
    ) -> Result<u32, PlanError> {
        let (size, used) = (self.capacity.backends, self.backends.used());
        let id =
            self.backends.take().ok_or_else(|| full(&name.service, TableId::Backends, size, used, needed as u32))?;
        taken.backends.push(id);
        let generation = self.generations.entry(id).or_default();
        *generation = generation.wrapping_add(1);
        taken.records.push(self.record(id, service, name.protocol, addr));
        Ok(id)
    }

    /// Gives back what was taken for nothing. Generations stay: they need only differ.
    fn put_back(&mut self, taken: Taken) {
        taken.services.into_iter().for_each(|id| self.services.give(id));
        taken.backends.into_iter().for_each(|id| self.backends.give(id));
        taken.range_sets.into_iter().for_each(|set| self.range_sets.give(set));
        taken.blocks.into_iter().for_each(|(offset, count)| self.slots.give(offset, count));
    }

    fn replace_port(&mut self, id: u32, port: Port, draft: &mut Draft) {
        let old = self.ports.remove(&id).unwrap_or_default();
        self.holdings.remove(&old);
        self.holdings.add(&port);
        if port.ranges != old.ranges {
            draft.ranges.extend(&port.ranges);
            self.ranges += port.ranges.len() as u32;
            self.drop_ranges(old.ranges, draft);
        }
        let ids: BTreeSet<u32> = port.backends.values().copied().collect();
        let changed = port.ending.symmetric_difference(&old.ending).filter(|id| ids.contains(id));
        draft.ending.extend(changed.map(|id| (*id, port.ending.contains(id))));
        draft.retired.extend(old.backends.values().chain(&old.surplus).filter(|id| !ids.contains(id)));
        draft.blocks.extend(
            old.blocks.iter().filter(|block| !port.blocks.contains(block)).map(|block| (block.offset, block.count())),
        );
        self.unclaim(id, old.frontends.keys().filter(|key| !port.frontends.contains_key(key)), draft);
        for key in port.frontends.keys() {
            self.frontends.entry(*key).or_default().by.insert(id);
            draft.touched.insert(*key);
        }
        if let Some(name) = &port.name {
            self.names.insert(name.clone(), id);
        }
        self.ports.insert(id, port);
    }

    pub(super) fn remove_port(&mut self, id: u32, draft: &mut Draft) {
        let Some(old) = self.ports.remove(&id) else { return };
        self.holdings.remove(&old);
        draft.retired.extend(old.backends.values().chain(&old.surplus));
        draft.blocks.extend(old.blocks.iter().map(|block| (block.offset, block.count())));
        draft.services.push(id);
        self.drop_ranges(old.ranges, draft);
        self.unclaim(id, old.frontends.keys(), draft);
        if let Some(name) = &old.name {
            self.names.remove(name);
        }
    }

    fn unclaim<'a, I: Iterator<Item = &'a FrontendKey>>(&mut self, id: u32, keys: I, draft: &mut Draft) {
        for key in keys {
            if let Some(claim) = self.frontends.get_mut(key) {
                claim.by.remove(&id);
            }
            draft.touched.insert(*key);
        }
    }

    /// The ids of a service's ports.
    fn ids_of(&self, service: &ObjectKey) -> Vec<u32> {
        let first = PortKey::first_of(service.clone());
        self.names.range(first..).take_while(|(name, _)| name.service == *service).map(|(_, id)| *id).collect()
    }
}

/// The elements of a set of source ranges.
fn set_of(set: u32, ranges: &BTreeSet<IpNetwork>) -> BTreeSet<SourceRangeKey> {
    ranges.iter().map(|net| SourceRangeKey::prefix(set, net.network().into(), net.prefix())).collect()
}

/// Whether one range holds all of another, whatever sets they are of.
fn holds(outer: &SourceRangeKey, inner: &SourceRangeKey) -> bool {
    let bits = |key: &SourceRangeKey| u128::from_be_bytes(key.addr);
    // The first 32 are of the set.
    let rest = 160_u32.saturating_sub(outer.prefix_len);
    let differ = (bits(outer) ^ bits(inner)).checked_shr(rest).unwrap_or(0);
    outer.prefix_len <= inner.prefix_len && differ == 0
}

fn full(service: &ObjectKey, table: TableId, size: u32, used: u32, needed: u32) -> PlanError {
    PlanError::Full { service: service.clone(), table, size, used, needed }
}
