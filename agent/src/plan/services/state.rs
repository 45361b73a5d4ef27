//! What the tables of services hold, and what is free in them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fairlead_datapath::service::{Backend, BackendState, Frontend, FrontendKey, SourceRangeKey, service_port};
use fairlead_datapath::{Addr, WirePort};
use fairlead_objects::{ObjectKey, Protocol};
use jiff::Timestamp;

use super::blocks::Blocks;
use super::change::Draft;
use super::ids::Ids;
use super::share::Holdings;
use super::{Capacity, Claimant, Contested, Op, Plan, Usage};
use crate::compile::services::{BackendAddr, FrontendKind, PortKey, Rank, ServiceContent};

/// What the tables of services hold, and what is free in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub(super) capacity: Capacity,
    /// Ids of the service ports.
    pub(super) names: BTreeMap<PortKey, u32>,
    /// The service ports by id. Those that were adopted and that nobody has asked for yet have no name.
    pub(super) ports: BTreeMap<u32, Port>,
    /// What each namespace has, as far as it is known whose the ports are.
    pub(super) holdings: Holdings,
    /// Every frontend that is in the table or should be.
    pub(super) frontends: HashMap<FrontendKey, Claim>,
    pub(super) services: Ids,
    pub(super) slots: Blocks,
    pub(super) backends: Ids,
    /// Elements of `SOURCE_RANGES` in use.
    pub(super) ranges: u32,
    /// Ids of sets of them.
    pub(super) range_sets: Ids,
    /// Source ranges that were adopted and that no service port has.
    pub(super) stray_ranges: BTreeSet<SourceRangeKey>,
    /// How often each backend id has been given out, where it ever was.
    pub(super) generations: HashMap<u32, u32>,
    pub(super) udp_generation: u64,
    /// What `SERVICE_PORTS` holds.
    pub(super) service_ports: BTreeMap<u32, u64>,
    /// The frontends that several service ports claim.
    pub(super) contested: BTreeMap<FrontendKey, Contested>,
    /// What was free when it was adopted may have readers still.
    pub(super) barrier_first: bool,
    /// Whether there may be something that was adopted and that nobody has asked for yet.
    pub(super) has_adopted: bool,
}

/// One service port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Port {
    pub(super) name: Option<PortKey>,
    /// Ids of its backends: all that new flows may choose, and those that old ones may stay with.
    pub(super) backends: BTreeMap<BackendAddr, u32>,
    /// Those of them that are about to end.
    pub(super) ending: BTreeSet<u32>,
    /// Ids of second entries for one endpoint, left by an interrupted plan.
    pub(super) surplus: BTreeSet<u32>,
    pub(super) blocks: Vec<Block>,
    /// The set of source ranges of its load balancer's addresses, empty if everybody may use them.
    pub(super) ranges: BTreeSet<SourceRangeKey>,
    /// What it wants its frontends to be.
    pub(super) frontends: BTreeMap<FrontendKey, Frontend>,
    /// As what it wants them.
    pub(super) kinds: BTreeMap<FrontendKey, FrontendKind>,
    /// When its Service or Pod was created.
    pub(super) created: Option<Timestamp>,
}

impl Port {
    /// How good its claim to a frontend is, smallest first. One that was adopted and that nobody has asked for yet keeps
    /// what it has until everybody has been asked.
    fn rank(&self, key: &FrontendKey) -> Option<Rank<'_>> {
        Some(Rank::new(*self.kinds.get(key)?, self.created, self.name.as_ref()?))
    }

    fn claimant(&self, key: &FrontendKey) -> Option<Claimant> {
        Some(Claimant { port: self.name.clone()?, kind: *self.kinds.get(key)? })
    }
}

/// A block of slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) offset: u32,
    pub(super) ids: Vec<u32>,
}

impl Block {
    pub(super) fn count(&self) -> u32 {
        self.ids.len() as u32
    }
}

/// One frontend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Claim {
    /// What the table holds.
    pub(super) written: Option<Frontend>,
    /// Ids of the service ports that want it.
    pub(super) by: BTreeSet<u32>,
}

impl State {
    /// Empty tables.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            names: BTreeMap::new(),
            ports: BTreeMap::new(),
            holdings: Holdings::default(),
            frontends: HashMap::new(),
            services: Ids::new(Self::services_end(capacity)),
            slots: Blocks::new(capacity.slots),
            backends: Ids::new(capacity.backends),
            ranges: 0,
            range_sets: Ids::new(capacity.ranges),
            stray_ranges: BTreeSet::new(),
            generations: HashMap::new(),
            udp_generation: 0,
            service_ports: BTreeMap::new(),
            contested: BTreeMap::new(),
            barrier_first: false,
            has_adopted: false,
        }
    }

    /// Every service port has a frontend; twice as many ids leave room for those that wait for a barrier.
    pub(super) fn services_end(capacity: Capacity) -> u32 {
        capacity.frontends.saturating_mul(2)
    }

    /// The tables have room for so much from now on. Ids stay those of the tables as they were made: what has no room today has
    /// some tomorrow.
    pub fn set_capacity(&mut self, capacity: Capacity) {
        self.capacity = capacity;
    }

    /// Plans the change of these services from what they are to this content; one that is gone has the default content.
    /// Services that are not named stay as they are.
    ///
    /// Nothing happens to a service that does not fit: it is among [`Plan::refused`], and the others go ahead. So it keeps what
    /// an earlier agent wrote of it, too. But where it is to keep out clients that it lets in, its load balancer's addresses are
    /// closed.
    pub fn plan<'a>(&mut self, changes: impl IntoIterator<Item = (&'a ObjectKey, &'a ServiceContent)>) -> Plan {
        let mut plan = Plan::default();
        let mut changes: Vec<_> = changes.into_iter().collect();
        let mut draft = Draft::default();
        if self.has_adopted {
            // Whose it is has to be known of all that was adopted before anybody gets more: it counts for its namespace. Who does not fit
            // keeps it.
            changes.iter().for_each(|(_, content)| self.keep(content, &mut draft));
        }
        loop {
            let mut refused = Vec::new();
            let count = changes.len();
            changes.retain(|(service, content)| {
                let Err(error) = self.change(service, content, &mut draft) else { return false };
                refused.push(((*service).clone(), error));
                true
            });
            let left = if refused.is_empty() { Vec::new() } else { self.left_of_adopted() };
            let is_freed = !left.is_empty();
            draft.touched.extend(left);
            let (ops, contested) = self.finish(std::mem::take(&mut draft));
            plan.ops.extend(ops);
            plan.contested.extend(contested);
            // What the others had before is free now, and it is known what is whose.
            if refused.is_empty() || (refused.len() == count && !is_freed) {
                let mut draft = Draft::default();
                changes.iter().for_each(|(_, content)| self.close(content, &mut draft));
                let (ops, contested) = self.finish(draft);
                plan.ops.extend(ops);
                plan.contested.extend(contested);
                return Plan { refused, ..plan };
            }
        }
    }

    /// The adopted frontends of service ports that have been planned since, and that want them no longer.
    fn left_of_adopted(&self) -> Vec<FrontendKey> {
        let is_planned = |id: u32| self.ports.get(&id).is_some_and(|port| port.name.is_some());
        let is_left = |claim: &Claim| claim.by.is_empty() && claim.written.is_some_and(|now| is_planned(now.service));
        let found = self.frontends.iter().filter(|(_, claim)| self.has_adopted && is_left(claim));
        found.map(|(key, _)| *key).collect()
    }

    /// Removes what was adopted and what no service has asked for since: for when every service has been planned once.
    #[must_use]
    pub fn release_unclaimed(&mut self) -> Vec<Op> {
        self.has_adopted = false;
        let mut draft = Draft::default();
        let unclaimed: Vec<u32> =
            self.ports.iter().filter(|(_, port)| port.name.is_none()).map(|(id, _)| *id).collect();
        for id in unclaimed {
            self.remove_port(id, &mut draft);
        }
        let stray = std::mem::take(&mut self.stray_ranges);
        self.drop_ranges(stray, &mut draft);
        draft.touched.extend(self.frontends.iter().filter(|(_, claim)| claim.by.is_empty()).map(|(key, _)| *key));
        self.finish(draft).0
    }

    /// The service port behind an id, as a flow or a frontend carries it.
    #[must_use]
    pub fn port_name(&self, id: u32) -> Option<&PortKey> {
        self.ports.get(&id)?.name.as_ref()
    }

    /// The frontends that several service ports claim, as they stand.
    pub fn contested(&self) -> impl Iterator<Item = &Contested> {
        self.contested.values()
    }

    /// Whether flows may stay with a backend that came to it by this address and port, whether or not new ones may choose it.
    #[must_use]
    pub fn serves(&self, key: &FrontendKey, backend: &BackendAddr) -> bool {
        let claims = self.frontends.get(key).into_iter().flat_map(|claim| &claim.by);
        claims.filter_map(|id| self.ports.get(id)).any(|port| port.backends.contains_key(backend))
    }

    /// Whether any service port has this frontend.
    #[must_use]
    pub fn has(&self, key: &FrontendKey) -> bool {
        self.frontends.get(key).is_some_and(|claim| !claim.by.is_empty())
    }

    /// How full the tables are.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            frontends: self.frontends.len() as u32,
            slots: self.slots.used(),
            backends: self.backends.used(),
            ranges: self.ranges,
        }
    }

    /// Turns what was collected into operations, and frees what is free after them.
    fn finish(&mut self, draft: Draft) -> (Vec<Op>, Vec<Contested>) {
        let Draft { records, slots, ranges, touched, ending, retired, blocks, services, old_ranges } = draft;
        let ranges = ranges.into_iter().map(|key| Op::SourceRange { key, present: true });
        let mut ops: Vec<Op> = records.into_iter().chain(slots).chain(ranges).collect();
        let contested = self.commit(touched, &mut ops);
        // Before what says that they have left, if they have too.
        ops.extend(ending.into_iter().map(|(id, ending)| Op::BackendState {
            id,
            state: BackendState(self.state_word(id, true)).with_ending(ending).0,
        }));
        ops.extend(retired.iter().map(|id| Op::BackendState { id: *id, state: self.state_word(*id, false) }));
        if !(retired.is_empty() && blocks.is_empty() && services.is_empty() && old_ranges.is_empty()) {
            ops.push(Op::Barrier);
        }
        for set in old_ranges.iter().map(|key| key.set).collect::<BTreeSet<_>>() {
            self.range_sets.give(set);
        }
        ops.extend(old_ranges.into_iter().map(|key| Op::SourceRange { key, present: false }));
        for id in retired {
            self.backends.give(id);
        }
        for (offset, count) in blocks {
            self.slots.give(offset, count);
        }
        for id in services {
            self.services.give(id);
        }
        if !ops.is_empty() && std::mem::take(&mut self.barrier_first) {
            ops.insert(0, Op::Barrier);
        }
        (ops, contested)
    }

    /// Writes the frontends that are not as they should be. Deletions first: they make room.
    fn commit(&mut self, touched: BTreeSet<FrontendKey>, ops: &mut Vec<Op>) -> Vec<Contested> {
        let (mut upserts, mut contested) = (Vec::new(), Vec::new());
        let mut new_udp = false;
        let mut new_ports = BTreeMap::new();
        for key in touched {
            self.contested.remove(&key);
            let Some(claim) = self.frontends.get_mut(&key) else { continue };
            let mut owners: Vec<_> = claim.by.iter().filter_map(|id| self.ports.get(id)).collect();
            owners.sort_by_key(|port| port.rank(&key));
            let wanted = owners.first().and_then(|port| port.frontends.get(&key)).copied();
            if let [owner, others @ ..] = &owners[..]
                && !others.is_empty()
                && let Some(owner) = owner.claimant(&key)
            {
                let others = others.iter().filter_map(|port| port.claimant(&key)).collect();
                let found = Contested { key, owner, others };
                contested.push(found.clone());
                self.contested.insert(key, found);
            }
            if claim.written != wanted {
                new_udp |= claim.written.is_none() && key.proto == Protocol::Udp.number();
                let list = if wanted.is_some() { &mut upserts } else { &mut *ops };
                list.push(Op::Frontend { key, value: wanted });
                claim.written = wanted;
                if let Some((index, bit)) = service_port(key.port, key.proto).filter(|_| wanted.is_some()) {
                    let known = self.service_ports.entry(index).or_default();
                    if *known & bit == 0 {
                        *known |= bit;
                        new_ports.insert(index, *known);
                    }
                }
            }
            if claim.written.is_none() {
                self.frontends.remove(&key);
            }
        }
        ops.extend(new_ports.into_iter().map(|(index, bits)| Op::ServicePorts { index, bits }));
        ops.extend(upserts);
        if new_udp {
            self.udp_generation += 1;
            ops.push(Op::UdpFrontends { generation: self.udp_generation });
        }
        contested
    }

    /// The record of a backend id that was just taken.
    pub(super) fn record(&self, id: u32, service: u32, protocol: Protocol, addr: BackendAddr) -> Op {
        let value = Backend {
            addr: Addr::from(addr.ip),
            port: WirePort::new(addr.port),
            proto: protocol.number(),
            pad: 0,
            service,
            state: self.state_word(id, true),
        };
        Op::Backend { id, value }
    }

    fn state_word(&self, id: u32, serving: bool) -> u64 {
        BackendState::new(self.generations.get(&id).copied().unwrap_or(0), serving).0
    }
}
