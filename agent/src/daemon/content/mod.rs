//! From what changed to plans, and from plans to what the tables hold: compilers and planners side by side.
//!
//! There are four planners: of the node, of policies and peers, of bandwidth, and of services. Each has its own tables and its own
//! failures: whatever becomes of one, the others go on.

mod adopt;
mod attempts;
mod hits;
mod part;
mod senders;
mod vain;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::peer::NodeHop;
use fairlead_datapath::service::FrontendKey;
use fairlead_objects::ObjectKey;
use fairlead_objects::names::NameRules;

use super::desk::Desk;
use super::sweep;
use crate::apply::ApplyError;
use crate::bpf::{BpfError, Tables};
use crate::compile::node::Wanted as WantedNode;
use crate::compile::policy::coverage;
use crate::compile::policy::{Draft, World};
use crate::compile::services::{BackendAddr, Place, ServiceContent, host_ports_key};
use crate::compile::{bandwidth as limits, claims};
use crate::model::{Dirty, Model, Whole};
use crate::network::Network;
use crate::plan::{Op, bandwidth, node, policy, services};
use attempts::Attempts;
use part::{Failure, Part, Writer};
use senders::Senders;
use vain::Claims;

pub(super) use hits::Counters;
pub(super) use part::Outcome;
pub(super) use vain::Told;

/// How long after a change services that did not fit are tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// How long policy sets that judge no pod any more are left in the tables: a pod that is replaced may need them again.
const UNTIDY: Duration = Duration::from_secs(10);

/// What the planners know of the tables.
#[derive(Debug)]
pub(super) struct Content {
    /// How other nodes are reached.
    network: Network,
    node: Part<node::State>,
    /// What the tables about the node should hold, once that is known.
    wanted_node: Option<WantedNode>,
    policy: Part<policy::State>,
    /// Since when there are policy sets that judge no pod.
    untidy: Option<Instant>,
    bandwidth: Part<bandwidth::State>,
    /// Whether what leaves the node waits at the uplinks for its turn.
    paced: bool,
    /// Nodes that were reached through the tunnel a short time ago.
    senders: Senders,
    /// Whether the model has been complete once: before that nothing is done about them.
    awake: bool,
    services: Part<services::State>,
    /// Services that did not fit.
    refused: BTreeMap<ObjectKey, services::PlanError>,
    /// When they are tried again: there may be room since something changed.
    refused_due: Option<Instant>,
    /// What objects claim in vain.
    claims: Claims,
    /// The counters of rules.
    counters: Counters,
    /// Where pods are told addresses between two plans.
    desk: Arc<Desk>,
}

impl Content {
    /// Takes over what the tables hold.
    ///
    /// # Errors
    /// They can't be read.
    pub(super) fn adopt(tables: &Tables, counters: Counters, desk: Arc<Desk>) -> Result<Self, BpfError> {
        let services = services::State::adopt(services::Capacity::default(), &adopt::services(tables)?);
        let policy = policy::State::adopt(policy::Capacity::default(), adopt::policy(tables)?);
        Ok(Self::new(adopt::node(tables)?, services, policy, adopt::bandwidth(tables)?, counters, desk))
    }

    /// Of tables that have just been made: there is nothing in their hundreds of thousands of elements to read.
    pub(super) fn empty(counters: Counters, desk: Arc<Desk>) -> Self {
        let services = services::State::new(services::Capacity::default());
        let (policy, bandwidth) = (policy::State::default(), bandwidth::State::default());
        Self::new(node::State::default(), services, policy, bandwidth, counters, desk)
    }

    fn new(
        node: node::State,
        services: services::State,
        policy: policy::State,
        bandwidth: bandwidth::State,
        counters: Counters,
        desk: Arc<Desk>,
    ) -> Self {
        let senders = Senders::adopt(hops(&policy), second());
        Self {
            network: Network::default(),
            senders,
            awake: false,
            node: Part::new(node),
            wanted_node: None,
            policy: Part::new(policy.remembering()),
            untidy: None,
            bandwidth: Part::new(bandwidth),
            paced: false,
            services: Part::new(services),
            refused: BTreeMap::new(),
            refused_due: None,
            claims: Claims::default(),
            counters,
            desk,
        }
    }

    /// Elements in use, by table.
    pub(super) fn usage(&self) -> impl Iterator<Item = (TableId, u64)> {
        let services::Usage { frontends, slots, backends, ranges } = self.services.state.usage();
        let services = [
            (TableId::Frontends, frontends),
            (TableId::Slots, slots),
            (TableId::Backends, backends),
            (TableId::SourceRanges, ranges),
        ];
        let services = services.map(|(table, count)| (table, u64::from(count)));
        let policies = self.policy.state.content().sizes();
        let counters = (TableId::PolicyHits, self.counters.count() as u64);
        services.into_iter().chain(policies.map(|(table, count)| (table, count as u64))).chain([counters])
    }

    /// Whether flows may stay with a backend that came to it by this address and port. A NodePort is at every address.
    pub(super) fn serves(&self, key: &FrontendKey, backend: SocketAddr) -> bool {
        let backend = BackendAddr { ip: backend.ip(), port: backend.port() };
        let everywhere = FrontendKey { addr: key.addr.wildcard(), ..*key };
        let keys = [*key, everywhere];
        // It may be one of a service that did not fit, of which nothing is known.
        let unknown = !keys.iter().any(|key| self.services.state.has(key));
        (unknown && !self.refused.is_empty()) || keys.iter().any(|key| self.services.state.serves(key, &backend))
    }

    /// Whether pods are judged and limited as the model says, and those that are gone are in no table.
    pub(super) fn has_settled_pods(&self) -> bool {
        self.policy.attempts.is_settled() && self.bandwidth.attempts.is_settled()
    }

    /// Whether policy is in force as the model says.
    pub(super) fn has_settled_policy(&self) -> bool {
        self.policy.attempts.is_settled()
    }

    /// Policy is planned anew at once, as it would be after a change.
    pub(super) fn plan_policy_again(&mut self) {
        self.policy.attempts.again_at_once(Instant::now());
    }

    /// Takes note of what was done to the tables of policy between two plans.
    pub(super) fn told(&mut self, ops: &[Op]) {
        ops.iter().for_each(|op| self.policy.state.applied(op));
    }

    /// Between two plans the tables could not be written.
    pub(super) fn tell_failed(&mut self, error: ApplyError, tables: &mut Tables) {
        let mut outcome = Outcome::default();
        let mut writer = Writer { tables, outcome: &mut outcome };
        self.policy_done(Err(Failure::Apply(error)), &mut writer, Instant::now());
    }

    /// Whether everything is as the model says.
    pub(super) fn is_settled(&self) -> bool {
        let of_node = self.wanted_node.is_none() || self.node.attempts.is_settled();
        of_node && self.has_settled_pods() && self.services.attempts.is_settled()
    }

    /// Whether it is known what the tables about the node should hold.
    pub(super) fn knows_node(&self) -> bool {
        self.wanted_node.is_some()
    }

    /// Failures in a row of the planner that has most of them.
    pub(super) fn failures(&self) -> u32 {
        self.attempts().into_iter().map(Attempts::failures).max().unwrap_or_default()
    }

    /// What fails at present.
    pub(super) fn trouble(&self) -> Option<String> {
        let troubles: Vec<_> = self.attempts().into_iter().filter_map(Attempts::trouble).collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }

    /// When something is to be tried again.
    pub(super) fn retry(&self) -> Option<Instant> {
        let sender = self.senders.next(second()).filter(|_| self.awake).map(|left| Instant::now() + left);
        let untidy = self.untidy.map(|since| since + UNTIDY);
        let full = [untidy, self.policy.until, self.services.until, self.refused_due, self.counters.retry(), sender];
        self.attempts().into_iter().map(Attempts::retry).chain(full).flatten().min()
    }

    fn attempts(&self) -> [&Attempts; 4] {
        [&self.node.attempts, &self.policy.attempts, &self.bandwidth.attempts, &self.services.attempts]
    }

    /// Whether every primary uplink has a queue that keeps packets until their turn.
    pub(super) fn set_paced(&mut self, paced: bool) {
        if self.paced != paced {
            self.paced = paced;
            self.bandwidth.attempts.again();
        }
    }

    /// Keeps what rules have counted.
    pub(super) fn keep_counts(&mut self, model: &Model) {
        if self.awake {
            self.counters.keep(|| World::of(model, &self.network));
        }
    }

    /// Other nodes are reached otherwise.
    pub(super) fn set_network(&mut self, network: &Network) {
        self.network.clone_from(network);
    }

    /// The tables about the node should hold this.
    pub(super) fn set_node(&mut self, wanted: WantedNode) {
        if self.wanted_node.as_ref() != Some(&wanted) {
            self.wanted_node = Some(wanted);
            self.node.attempts.again();
        }
    }

    /// Brings into force what changed, as far as that is possible: each planner that fails tries again later. Before the model
    /// is complete that is the node alone. `judged` is called when every pod is judged and limited as the model says, with whose
    /// answers concern policy if everything was compiled: what is left then is of no concern to them, and may wait for packets that
    /// are on their way.
    pub(super) fn update(
        &mut self,
        model: &Model,
        dirty: &Dirty,
        tables: &mut Tables,
        mut judged: impl FnMut(Option<&NameRules>),
    ) -> Outcome {
        let now = Instant::now();
        let mut outcome = Outcome::default();
        let mut writer = Writer { tables, outcome: &mut outcome };
        if self.wanted_node.is_some() && self.node.attempts.is_due(false, now) {
            let result = self.read_node(&writer).and_then(|()| self.update_node(&mut writer));
            self.node_done(result, &mut writer, now);
        }
        if !model.synced() {
            return outcome;
        }
        self.awake = true;
        if self.policy.forget_full(now) {
            self.policy.state.set_capacity(policy::Capacity::default());
        }
        if self.untidy.take_if(|since| *since + UNTIDY <= now).is_some() {
            self.policy.attempts.again();
        }
        if self.senders.expire(second()) || self.counters.is_due(now) {
            self.policy.attempts.again();
        }
        // Before policy, so that a pod is limited when its first packet passes.
        let here = || dirty.attached || model.local().values().any(|local| dirty.pods.contains_key(&local.key));
        if self.bandwidth.attempts.is_due(!dirty.pods.is_empty() && here(), now) {
            let result = self.read_bandwidth(&writer).and_then(|()| self.update_bandwidth(model, &mut writer));
            self.bandwidth_done(result, &mut writer, now);
        }
        if !dirty.policies.is_empty() {
            self.counters.policies_changed();
        }
        let names = dirty.whole.contains(&Whole::Names) && self.policy.state.has_names();
        if self.policy.attempts.is_due(dirty.policy() || names, now) {
            let limited = self.bandwidth.attempts.is_settled();
            let read = self.read_policy(&writer, now);
            let whole = self.policy.attempts.is_whole();
            let plan = if whole || read.is_err() { None } else { self.policy.state.follow(model, dirty) };
            let mut judged = |names: Option<&NameRules>| {
                if limited {
                    judged(names);
                }
            };
            let result = read.and_then(|()| match plan {
                Some(plan) => self.follow_policy(model, dirty, &plan, &mut writer, || judged(None)),
                None => self.update_policy(model, &mut writer, |names| judged(Some(names))),
            });
            self.policy_done(result, &mut writer, now);
        }
        if self.services.forget_full(now) {
            self.services.state.set_capacity(services::Capacity::default());
        }
        let place = dirty.place(model.node_name());
        let claims = dirty.whole.contains(&Whole::HostPorts);
        let changed = place || claims || !dirty.services.is_empty() || !dirty.host_ports.is_empty();
        let again = self.refused_due.take_if(|due| *due <= now).is_some();
        if self.services.attempts.is_due(changed || again, now) {
            let read = self.read_services(&writer, now);
            let result = read.and_then(|()| self.update_services(model, dirty, place, again, &mut writer));
            // It takes long to find that a large one does not fit: nobody else waits for that with each change.
            if changed && !self.refused.is_empty() {
                self.refused_due.get_or_insert(now + AGAIN);
            }
            self.services_done(result, &mut writer, now);
        }
        outcome.claims = self.claims.tell();
        outcome
    }

    fn update_node(&mut self, writer: &mut Writer<'_>) -> Result<(), Failure> {
        let Some(wanted) = &self.wanted_node else { return Ok(()) };
        let node::Plan { ops, uplinks, addresses } = self.node.state.plan(wanted, node::Capacity::default());
        writer.apply(&ops)?;
        ops.iter().for_each(|op| self.node.state.applied(op));
        let uplinks = (!uplinks.is_empty()).then(|| {
            format!(
                "table {} is full: nothing leaves the cluster through interfaces {uplinks:?}; list the uplinks to use \
                 with --uplinks",
                TableId::Uplinks
            )
        });
        let addresses = (!addresses.is_empty()).then(|| {
            format!(
                "table {} is full: NodePorts and hostPorts are missing at {} addresses",
                TableId::NodeAddresses,
                addresses.len()
            )
        });
        writer.outcome.node = Some(uplinks.into_iter().chain(addresses).collect());
        Ok(())
    }

    fn update_policy(
        &mut self,
        model: &Model,
        writer: &mut Writer<'_>,
        judged: impl FnOnce(&NameRules),
    ) -> Result<(), Failure> {
        let senders = self.senders.begin(hops(&self.policy.state), second());
        let world = World { senders, ..World::of(model, &self.network) };
        self.untidy = None;
        let plan = self.policy.state.plan(&Draft::new(&world))?;
        self.desk.begin(self.policy.state.take_view())?;
        let counters_changed = self.counters.follow(&self.policy.state, &plan.ops, &world, writer.tables);
        let names = coverage(&world);
        let desk = Arc::clone(&self.desk);
        self.carry_out(&plan, writer, || {
            desk.judged();
            judged(&names);
        })?;
        self.desk.finish();
        let policy::Plan { ops, cut_off, left_out } = plan;
        // Nobody can be judged by a set that is gone: the plan has waited for that.
        if counters_changed || ops.iter().any(|op| matches!(op, Op::PolicySet { .. })) {
            self.counters.follow(&self.policy.state, &[], &world, writer.tables);
        }
        self.senders.done(hops(&self.policy.state));
        writer.outcome.policy = Some((cut_off, left_out));
        writer.outcome.names = Some(names);
        self.claims.of_status(&world);
        self.claims.of_ranges(model);
        Ok(())
    }

    /// Nothing has changed that this node's pods are judged by but pods elsewhere.
    fn follow_policy(
        &mut self,
        model: &Model,
        dirty: &Dirty,
        plan: &policy::Plan,
        writer: &mut Writer<'_>,
        judged: impl FnOnce(),
    ) -> Result<(), Failure> {
        let brings_sets = plan.ops.iter().any(|op| matches!(op, Op::PolicySet { .. }));
        let world = brings_sets.then(|| World::of_policies(model));
        if let Some(world) = &world {
            self.counters.follow(&self.policy.state, &plan.ops, world, writer.tables);
        }
        self.carry_out(plan, writer, judged)?;
        if let Some(world) = &world {
            self.counters.follow(&self.policy.state, &[], world, writer.tables);
        }
        let pods_changed = plan.ops.iter().any(|op| matches!(op, Op::Pod { .. }));
        if pods_changed && self.policy.state.has_unused_sets() {
            self.untidy.get_or_insert_with(Instant::now);
        }
        self.claims.of_changed(model, &dirty.pods);
        self.claims.of_ranges(model);
        Ok(())
    }

    /// Applies a plan of policy. `judged` is called when every pod is judged as it says.
    fn carry_out(
        &mut self,
        plan: &policy::Plan,
        writer: &mut Writer<'_>,
        judged: impl FnOnce(),
    ) -> Result<(), Failure> {
        let (words, rest) = plan.ops.split_at(plan.judged());
        self.write_policy(words, writer)?;
        judged();
        self.write_policy(rest, writer)
    }

    fn write_policy(&mut self, ops: &[Op], writer: &mut Writer<'_>) -> Result<(), Failure> {
        let state = &mut self.policy.state;
        self.desk.carry_out(ops, |ops| writer.apply(ops), |op| state.applied(op))
    }

    fn update_bandwidth(&mut self, model: &Model, writer: &mut Writer<'_>) -> Result<(), Failure> {
        let ops = self.bandwidth.state.plan(&limits::compile(model, self.paced));
        writer.apply(&ops)?;
        ops.iter().for_each(|op| self.bandwidth.state.applied(op));
        Ok(())
    }

    fn update_services(
        &mut self,
        model: &Model,
        dirty: &Dirty,
        place: bool,
        again: bool,
        writer: &mut Writer<'_>,
    ) -> Result<(), Failure> {
        let whole = self.services.attempts.is_whole();
        let mut keys = if whole || place { all_services(model) } else { dirty.services.clone() };
        if again {
            keys.extend(self.refused.keys().cloned());
        }
        // What is gone and was not adopted by name is released below.
        keys.extend(dirty.services.iter().cloned());
        keys.extend(dirty.host_ports.iter().map(host_ports_key));
        let place = Place::new(model.node_name(), model.own_node());
        let pods: BTreeMap<ObjectKey, _> =
            model.host_port_pods().map(|(pod, local)| (host_ports_key(&pod.key), (pod, local))).collect();
        if dirty.whole.contains(&Whole::HostPorts) {
            keys.extend(pods.keys().cloned());
        }
        let mut changes: BTreeMap<ObjectKey, ServiceContent> = BTreeMap::new();
        for key in keys {
            let (content, refusals) = match (model.service(&key), pods.get(&key)) {
                (Some(service), _) => claims::service(model, service, &place),
                (None, Some((pod, local))) => claims::host_ports(model, pod, local),
                (None, None) => Default::default(),
            };
            self.claims.refused(&key, &refusals);
            changes.insert(key, content);
        }
        let services::Plan { ops, refused, contested: _ } = self.services.state.plan(&changes);
        self.claims.contested(self.services.state.contested());
        let before = self.refused.clone();
        self.refused.retain(|service, _| !changes.contains_key(service));
        self.refused.extend(refused);
        if self.refused != before {
            writer.outcome.refused = Some(self.refused.clone());
        }
        writer.apply(&ops)?;
        writer.outcome.whole = whole;
        if whole {
            writer.apply(&self.services.state.release_unclaimed())?;
        }
        writer.outcome.services |= whole || !changes.is_empty();
        Ok(())
    }

    fn node_done(&mut self, result: Result<(), Failure>, writer: &mut Writer<'_>, now: Instant) {
        if !self.node.done(result, writer.outcome, now) {
            said(self.read_node(writer));
        }
    }

    fn policy_done(&mut self, result: Result<(), Failure>, writer: &mut Writer<'_>, now: Instant) {
        if !self.policy.done(result, writer.outcome, now) {
            self.desk.close();
            said(self.read_policy(writer, now));
        }
    }

    fn bandwidth_done(&mut self, result: Result<(), Failure>, writer: &mut Writer<'_>, now: Instant) {
        if !self.bandwidth.done(result, writer.outcome, now) {
            said(self.read_bandwidth(writer));
        }
    }

    fn services_done(&mut self, result: Result<(), Failure>, writer: &mut Writer<'_>, now: Instant) {
        if !self.services.done(result, writer.outcome, now) {
            said(self.read_services(writer, now));
        }
    }

    fn read_node(&mut self, writer: &Writer<'_>) -> Result<(), Failure> {
        self.node.read_back(|_, _| Ok(adopt::node(writer.tables)?))
    }

    fn read_policy(&mut self, writer: &Writer<'_>, now: Instant) -> Result<(), Failure> {
        self.policy.read_back(|part, failure| {
            let content = adopt::policy(writer.tables)?;
            part.note_full(failure, &content.sizes(), now);
            let mut capacity = policy::Capacity::default();
            part.full.iter().for_each(|(table, most)| capacity.limit(*table, *most));
            Ok(policy::State::adopt(capacity, content).remembering())
        })
    }

    fn read_bandwidth(&mut self, writer: &Writer<'_>) -> Result<(), Failure> {
        self.bandwidth.read_back(|_, _| Ok(adopt::bandwidth(writer.tables)?))
    }

    fn read_services(&mut self, writer: &Writer<'_>, now: Instant) -> Result<(), Failure> {
        self.services.read_back(|part, failure| {
            let tables = adopt::services(writer.tables)?;
            let sizes =
                [(TableId::Frontends, tables.frontends.len()), (TableId::SourceRanges, tables.source_ranges.len())];
            part.note_full(failure, &sizes, now);
            let mut capacity = services::Capacity::default();
            // Ids are of the whole table, which has all of them again later.
            let mut state = services::State::adopt(capacity, &tables);
            part.full.iter().for_each(|(table, most)| capacity.limit(*table, *most as u32));
            state.set_capacity(capacity);
            Ok(state)
        })
    }
}

/// It is tried again before the next plan.
fn said(read: Result<(), Failure>) {
    if let Err(error) = read {
        tracing::error!(%error, "what is in force is not known");
    }
}

/// The second since boot. A clock that can't be read stands still: then what ends does not.
fn second() -> u32 {
    sweep::seconds().unwrap_or_default()
}

/// The ways to other nodes that are in force.
fn hops(policy: &policy::State) -> impl Iterator<Item = &NodeHop> {
    policy.content().peer.nodes.values()
}

/// What is planned one by one: services, and pods that have hostPorts.
fn all_services(model: &Model) -> BTreeSet<ObjectKey> {
    let services = model.services().map(|service| service.key.clone());
    services.chain(model.host_port_pods().map(|(pod, _)| host_ports_key(&pod.key))).collect()
}
