//! What the loop counts and shows of its work: metrics, freshness, health checks of services.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fairlead_datapath::catalog::TableId;
use fairlead_objects::{Event, Kind, Object, ObjectKey, ServiceType, TrafficPolicy};
use jiff::Timestamp;

use super::content::Content;
use super::sweep::Swept;
use crate::compile::services::Family;
use crate::model::{Dirty, Model};
use crate::observe::checks;
use crate::state::Shared;

/// The families, in the order of counts.
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Watches the loop.
#[derive(Debug)]
pub(super) struct Gauge {
    started: Timestamp,
    /// Causes of changes of endpoints that are not in force yet, by slice. What happened before the start is not this
    /// agent's delay.
    causes: BTreeMap<ObjectKey, (Family, Timestamp)>,
    /// Services with a policy Local (internal, external) and endpoints, but none on this node, by family.
    without_local: [[BTreeSet<ObjectKey>; 2]; 2],
}

impl Default for Gauge {
    fn default() -> Self {
        Self { started: Timestamp::now(), causes: BTreeMap::new(), without_local: Default::default() }
    }
}

impl Gauge {
    /// Before the model takes an event.
    pub(super) fn see(&mut self, event: &Event, shared: &Shared) {
        let metrics = &shared.metrics.kubeproxy;
        match event {
            Event::Applied(Object::Service(_)) | Event::Deleted(Kind::Service, _) => metrics.service_changed(),
            Event::Applied(Object::EndpointSlice(slice)) => {
                metrics.endpoints_changed();
                let model = shared.model();
                let old = model.slice(&slice.key).and_then(|old| old.triggered);
                if let (Some(family), Some(cause)) = (Family::of_slice(slice.address_type), slice.triggered)
                    && old != Some(cause)
                    && cause > self.started
                {
                    // The first of several counts: it has waited longest.
                    self.causes.entry(slice.key.clone()).or_insert((family, cause));
                }
            }
            Event::Deleted(Kind::EndpointSlice, key) => {
                metrics.endpoints_changed();
                self.causes.remove(key);
            }
            _ => {}
        }
    }

    /// What was told needed no change.
    pub(super) fn nothing_to_do(&mut self, shared: &Shared) {
        self.settled(shared);
    }

    /// Something was planned.
    pub(super) fn planned(&mut self, dirty: &Dirty, whole: bool, content: &Content, shared: &Shared) {
        shared.metrics.set_entries(content.usage());
        let place = dirty.place(shared.model().node_name());
        self.look_at_services(dirty, whole || place, shared);
    }

    /// All of it is in force.
    pub(super) fn in_force(&mut self, whole: bool, took: Duration, shared: &Shared) {
        shared.metrics.kubeproxy.synced(took, whole);
        self.settled(shared);
    }

    fn settled(&mut self, shared: &Shared) {
        for (family, cause) in std::mem::take(&mut self.causes).into_values() {
            shared.metrics.kubeproxy.programmed(family, cause);
        }
        if let Some(waited) = shared.freshness.in_force() {
            shared.metrics.programmed(waited);
        }
    }

    /// It could not be brought into force.
    pub(super) fn failed(&self, shared: &Shared) {
        shared.metrics.kubeproxy.failed();
        shared.metrics.failed();
    }

    /// The tables of flows were swept.
    pub(super) fn swept(&self, swept: Swept, shared: &Shared) {
        let Swept { removed, established, others, short: _, left: _ } = swept;
        shared.metrics.add_swept(removed as u64);
        shared
            .metrics
            .set_entries([(TableId::EstablishedFlows, established as u64), (TableId::OtherFlows, others as u64)]);
    }

    fn look_at_services(&mut self, dirty: &Dirty, all: bool, shared: &Shared) {
        let model = shared.model();
        let mut wanted = shared.checks.borrow().clone();
        let keys: Vec<ObjectKey> = if all {
            wanted.clear();
            self.without_local = Default::default();
            model.services().map(|service| service.key.clone()).collect()
        } else {
            dirty.services.iter().cloned().collect()
        };
        for key in keys {
            for family in FAMILIES {
                wanted.remove(&(key.clone(), family));
            }
            self.look_at(&key, &model);
            let Some(service) = model.service(&key) else { continue };
            let found = checks(service, &model.slices_of(&key), model.node_name());
            wanted.extend(found.into_iter().map(|(family, check)| ((key.clone(), family), check)));
        }
        drop(model);
        shared.metrics.kubeproxy.set_without_local(
            [0, 1].map(|policy: usize| [0, 1].map(|family: usize| self.without_local[policy][family].len())),
        );
        shared.checks.send_if_modified(|checks| {
            let changed = *checks != wanted;
            *checks = wanted;
            changed
        });
    }

    fn look_at(&mut self, key: &ObjectKey, model: &Model) {
        let service = model.service(key).filter(|service| service.is_proxied());
        let external = |kind| matches!(kind, ServiceType::NodePort | ServiceType::LoadBalancer);
        let policies = service.map_or([false; 2], |service| {
            [
                service.internal_traffic_policy == TrafficPolicy::Local,
                service.external_traffic_policy == TrafficPolicy::Local
                    && (external(service.service_type) || !service.external_ips.is_empty()),
            ]
        });
        let slices = if policies.contains(&true) { model.slices_of(key) } else { Vec::new() };
        for (at, family) in FAMILIES.into_iter().enumerate() {
            let of_family = slices.iter().filter(|slice| Family::of_slice(slice.address_type) == Some(family));
            let usable = of_family
                .flat_map(|slice| &slice.endpoints)
                .filter(|endpoint| endpoint.ready || endpoint.serving && endpoint.terminating);
            let local: Vec<bool> =
                usable.map(|endpoint| endpoint.node_name.as_deref() == Some(model.node_name())).collect();
            let none_here = !local.is_empty() && !local.contains(&true);
            for (policy, applies) in policies.into_iter().enumerate() {
                let set = &mut self.without_local[policy][at];
                if applies && none_here {
                    set.insert(key.clone())
                } else {
                    set.remove(key)
                };
            }
        }
    }
}
