//! What objects claim in vain, kept until it changes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use fairlead_objects::{ObjectKey, Pod};

use crate::compile::claims::{
    Dispute, Party, PodRanges, Refusal, of_annotations, of_frontends, of_nodes, of_pods, of_refusals,
};
use crate::compile::policy::World;
use crate::compile::services::pod_of_host_ports;
use crate::model::{Model, Pods};
use crate::plan::services::Contested;

/// What is claimed in vain, by what it is found from.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// By the key under which the object is planned.
    refused: BTreeMap<ObjectKey, Vec<Dispute>>,
    contested: Vec<Dispute>,
    pods: Vec<Dispute>,
    ranges: Vec<Dispute>,
    waiting: BTreeMap<String, usize>,
    changed: bool,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::daemon) struct Told {
    /// Each claim once.
    pub(in crate::daemon) disputes: BTreeSet<Dispute>,
    /// How many pods wait for their Node to be known, by its name.
    pub(in crate::daemon) waiting: BTreeMap<String, usize>,
}

impl Claims {
    /// What is refused to an object now.
    pub(super) fn refused(&mut self, key: &ObjectKey, refusals: &[Refusal]) {
        let old = self.refused.remove(key).unwrap_or_default();
        let loser = pod_of_host_ports(key).map_or_else(|| Party::service(key), |pod| Party::pod(&pod));
        let new = of_refusals(&loser, refusals);
        self.changed |= old != new;
        if !new.is_empty() {
            self.refused.insert(key.clone(), new);
        }
    }

    /// What several objects claim now.
    pub(super) fn contested<'a, I: Iterator<Item = &'a Contested>>(&mut self, contested: I) {
        replace(&mut self.contested, of_frontends(contested), &mut self.changed);
    }

    /// What pods and nodes claim in their status now.
    pub(super) fn of_status(&mut self, world: &World<'_>) {
        let ranges = world.ranges();
        let (mut disputes, waiting) = of_pods(world.pods.iter().copied(), &ranges);
        disputes.extend(of_nodes(world.nodes.iter().copied(), &ranges));
        replace(&mut self.pods, disputes, &mut self.changed);
        replace(&mut self.waiting, waiting, &mut self.changed);
    }

    /// The same, where pods alone have changed.
    pub(super) fn of_changed(&mut self, model: &Model, pods: &Pods) {
        for (key, old) in pods {
            let told = |pod: Option<&Pod>| {
                let node = pod.and_then(|pod| pod.node_name.as_deref()).and_then(|name| model.node(name));
                of_pods(pod, &PodRanges::new(node, &model.rules().pod_ranges))
            };
            let ((old, waited), (new, waits)) = (told(old.as_deref()), told(model.pod(key)));
            if old != new {
                let loser = Party::pod(key);
                self.pods.retain(|dispute| dispute.loser != loser);
                self.pods.extend(new);
                self.changed = true;
            }
            self.changed |= waited != waits;
            for (node, count) in waits {
                *self.waiting.entry(node).or_default() += count;
            }
            for (node, count) in waited {
                if let Entry::Occupied(mut entry) = self.waiting.entry(node) {
                    *entry.get_mut() = entry.get().saturating_sub(count);
                    if *entry.get() == 0 {
                        entry.remove();
                    }
                }
            }
        }
    }

    /// What nodes claim in their annotations now.
    pub(super) fn of_ranges(&mut self, model: &Model) {
        replace(&mut self.ranges, of_annotations(model.not_given()), &mut self.changed);
    }

    /// All of it, if it changed since this was last asked.
    pub(super) fn tell(&mut self) -> Option<Told> {
        std::mem::take(&mut self.changed)
            .then(|| Told { disputes: self.all().cloned().collect(), waiting: self.waiting.clone() })
    }

    fn all(&self) -> impl Iterator<Item = &Dispute> {
        self.refused.values().flatten().chain(&self.contested).chain(&self.pods).chain(&self.ranges)
    }
}

fn replace<T: PartialEq>(old: &mut T, new: T, changed: &mut bool) {
    if *old != new {
        *old = new;
        *changed = true;
    }
}
