//! From what changed to plans, and from plans to what the tables hold: compilers and planners side by side.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_datapath::catalog::TableId;
use fairlead_objects::{Kind, ObjectKey};
use tracing::warn;

use super::adopt;
use crate::apply::ApplyError;
use crate::bpf::{BpfError, Tables};
use crate::compile::policy::{World, compile as compile_policy};
use crate::compile::services::{Place, ServiceContent, compile_host_ports, compile_service, host_ports_key};
use crate::events::Recorder;
use crate::model::{Dirty, Model};
use crate::network::Network;
use crate::plan::{Op, policy, services};

/// What the planners know of the tables.
#[derive(Debug)]
pub(super) struct Content {
    /// How other nodes are reached.
    network: Network,
    services: services::State,
    policy: policy::State,
    /// Everything has to be planned again: at start, and after a plan that stopped halfway.
    whole: bool,
    /// Services that did not fit: they are tried again with the next change.
    refused: BTreeSet<ObjectKey>,
}

/// Executes a plan.
pub(super) type Apply<'a> = &'a mut dyn FnMut(&[Op]) -> Result<(), ApplyError>;

impl Content {
    /// Takes over what the tables hold.
    ///
    /// # Errors
    /// They can't be read.
    pub(super) fn adopt(network: &Network, tables: &Tables) -> Result<Self, BpfError> {
        let services = services::State::adopt(services::Capacity::default(), &adopt::services(tables)?);
        Ok(Self::whole(network, services, policy::State::adopt(adopt::policy(tables)?)))
    }

    /// Of tables that have just been made: there is nothing in their hundreds of thousands of elements to read.
    pub(super) fn empty(network: &Network) -> Self {
        let policy = policy::State::adopt(policy::Content::default());
        Self::whole(network, services::State::new(services::Capacity::default()), policy)
    }

    fn whole(network: &Network, services: services::State, policy: policy::State) -> Self {
        Self { network: network.clone(), services, policy, whole: true, refused: BTreeSet::new() }
    }

    /// Elements in use, by table.
    pub(super) fn usage(&self) -> impl Iterator<Item = (TableId, u64)> {
        let services::Usage { frontends, slots, backends, ranges } = self.services.usage();
        let policy::Content { policy, peer } = self.policy.content();
        let services = [
            (TableId::Frontends, frontends),
            (TableId::Slots, slots),
            (TableId::Backends, backends),
            (TableId::SourceRanges, ranges),
        ];
        let policies = [
            (TableId::PolicySets, policy.sets.len()),
            (TableId::PolicyPeers, policy.peers.len()),
            (TableId::PolicyPorts, policy.ports.len()),
            (TableId::PolicyRanges, policy.ranges.len()),
            (TableId::Peers, peer.peers.len()),
            (TableId::Cidrs, peer.cidrs.len()),
            (TableId::Nodes, peer.nodes.len()),
            (TableId::Pods, peer.pods.len()),
        ];
        let services = services.map(|(table, count)| (table, u64::from(count)));
        services.into_iter().chain(policies.map(|(table, count)| (table, count as u64)))
    }

    /// Whether everything has to be planned again.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Other nodes are reached otherwise.
    pub(super) fn set_network(&mut self, network: &Network) {
        self.network.clone_from(network);
    }

    /// Brings into force what changed. After an error the tables hold a part of it: [`Content::adopt`] them.
    ///
    /// # Errors
    /// A plan could not be made or not be executed.
    pub(super) fn update(
        &mut self,
        model: &Model,
        dirty: &Dirty,
        events: &Recorder,
        apply: Apply<'_>,
    ) -> Result<(), String> {
        if self.whole || dirty.policy {
            self.update_policy(model, apply)?;
        }
        let everything = self.whole || dirty.place;
        if everything || !dirty.services.is_empty() || !dirty.host_ports.is_empty() {
            let mut changed = if everything { all_services(model) } else { dirty.services.clone() };
            changed.append(&mut self.refused);
            // What is gone and was not adopted by name is released below.
            changed.extend(dirty.services.iter().cloned());
            changed.extend(dirty.host_ports.iter().map(host_ports_key));
            self.update_services(model, &changed, events, apply)?;
        }
        if std::mem::take(&mut self.whole) {
            apply(&self.services.release_unclaimed()).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn update_policy(&mut self, model: &Model, apply: Apply<'_>) -> Result<(), String> {
        let wanted = compile_policy(&World::of(model, &self.network));
        let ops = self.policy.plan(&wanted).map_err(|e| e.to_string())?;
        apply(&ops).map_err(|e| e.to_string())?;
        ops.iter().for_each(|op| self.policy.applied(op));
        Ok(())
    }

    fn update_services(
        &mut self,
        model: &Model,
        keys: &BTreeSet<ObjectKey>,
        events: &Recorder,
        apply: Apply<'_>,
    ) -> Result<(), String> {
        let place = Place::new(model.node_name(), model.own_node());
        let host_ports: BTreeMap<ObjectKey, ServiceContent> = model
            .host_port_pods()
            .map(|(pod, local)| (host_ports_key(&pod.key), compile_host_ports(pod, &local.ips)))
            .collect();
        let compile = |key: &ObjectKey| match model.service(key) {
            Some(service) => compile_service(service, model.slices_of(key), &place),
            None => host_ports.get(key).cloned().unwrap_or_default(),
        };
        let changes: BTreeMap<ObjectKey, ServiceContent> = keys.iter().map(|key| (key.clone(), compile(key))).collect();
        let services::Plan { ops, refused, contested } = self.services.plan(&changes);
        for claim in contested {
            let others: Vec<_> = claim.others.iter().map(ToString::to_string).collect();
            warn!(owner = %claim.owner, others = others.join(", "), "several services have one address and port: the first by name has it");
        }
        for (service, error) in refused {
            warn!(%error, "a service can't be brought into force");
            events.warn(Kind::Service, &service, "", "NotInForce", error.to_string());
            self.refused.insert(service);
        }
        apply(&ops).map_err(|e| e.to_string())
    }
}

/// What is planned one by one: services, and pods that have hostPorts.
fn all_services(model: &Model) -> BTreeSet<ObjectKey> {
    let services = model.services().map(|service| service.key.clone());
    services.chain(model.host_port_pods().map(|(pod, _)| host_ports_key(&pod.key))).collect()
}
