//! What judges pods, by the policies that select them.

use std::collections::BTreeMap;
use std::sync::Arc;

use fairlead_objects::{Labels, Pod};

use super::port_names::Numbered;
use super::rules::{Body, Policies, Selecting};
use super::{Direction, Judge};

/// Policy sets, each once. Pods that the same policies select are compiled once: a policy may have thousands of peers.
#[derive(Debug, Clone, Default)]
pub(super) struct Judges {
    known: BTreeMap<Selecting, Judge>,
    bodies: BTreeMap<Arc<Body>, usize>,
    has_names: bool,
}

impl Judges {
    /// What judges a pod in a direction. `namespace`: the labels of its namespace, if that is known.
    pub(super) fn judge(
        &mut self,
        policies: &Policies<'_>,
        pod: Option<(&Pod, Option<&Labels>)>,
        direction: Direction,
        names: &impl Numbered,
    ) -> Judge {
        let Some((pod, namespace)) = pod else { return Judge::Pending };
        if namespace.is_none() && policies.are_of_cluster() {
            // A policy of the cluster may deny what the others allow.
            return Judge::Pending;
        }
        self.has_names |= policies.have_names_for(pod, namespace);
        let selecting = policies.selecting(pod, namespace, direction);
        if let Some(judge) = self.known.get(&selecting) {
            return *judge;
        }
        let body = policies.body(&selecting, pod, names);
        let judge = body.map_or(Judge::Nobody, |body| {
            let next = self.bodies.len();
            Judge::Set(*self.bodies.entry(Arc::new(body)).or_insert(next))
        });
        self.known.insert(selecting, judge);
        judge
    }

    /// Whether a policy that selects one of the pods has rules with names.
    pub(super) fn have_names(&self) -> bool {
        self.has_names
    }

    /// The policies of a namespace have changed, and judge no pod.
    pub(super) fn forget(&mut self, namespace: &str) {
        self.known.retain(|selecting, _| selecting.namespace.as_deref() != Some(namespace));
    }

    /// A set.
    pub(super) fn body(&self, set: usize) -> Option<Arc<Body>> {
        self.bodies.iter().find(|(_, index)| **index == set).map(|(body, _)| Arc::clone(body))
    }

    /// The sets, in the order of their indices.
    pub(super) fn bodies(&self) -> Vec<Arc<Body>> {
        let mut bodies: Vec<_> = self.bodies.iter().collect();
        bodies.sort_by_key(|(_, index)| **index);
        bodies.into_iter().map(|(body, _)| Arc::clone(body)).collect()
    }
}
