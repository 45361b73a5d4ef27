//! What policies that nobody has applied yet would open and close.

mod coverage;

use std::collections::BTreeMap;

use fairlead_objects::{
    ClusterNetworkPolicy, Event, Invalid, Kind, Mode, Namespace, NetworkPolicy, Node, Object, ObjectKey, Pod,
    read_str_in,
};
use ipnetwork::IpNetwork;

use super::views::{DifferenceView, PolicyChangeView, PolicyWhatIf};
use crate::compile::policy::World;
use crate::compile::policy::what_if::{Difference, Places, Selected, compare};
use crate::model::{LocalPod, Model};
use crate::names::Names;

/// Pairs that an agent compares at most: who asks waits some seconds for its answer.
const BY_AGENT: usize = 400_000;
/// Pairs that are compared at most without an agent: it may take minutes.
const OFFLINE: usize = 20_000_000;

/// What policies are judged by, as it is at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Pairs that are compared at most.
    most: usize,
    namespaces: Vec<Namespace>,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    local: Vec<LocalPod>,
    pod_ranges: Vec<IpNetwork>,
    /// What pods were told by DNS.
    names: Names,
    policies: Policies,
    notes: Vec<String>,
    incomplete: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Policies {
    network: Vec<NetworkPolicy>,
    cluster: Vec<ClusterNetworkPolicy>,
}

impl Snapshot {
    fn of(model: &Model, most: usize) -> Self {
        let policies = Policies {
            network: model.policies().filter(|policy| policy.mode == Mode::Enforce).cloned().collect(),
            cluster: model.cluster_policies().filter(|policy| policy.mode == Mode::Enforce).cloned().collect(),
        };
        Self {
            most,
            namespaces: model.namespaces().cloned().collect(),
            nodes: model.nodes().cloned().collect(),
            pods: model.pods().cloned().collect(),
            local: model.local().values().cloned().collect(),
            pod_ranges: model.rules().pod_ranges.clone(),
            names: model.names().clone(),
            policies,
            notes: Vec::new(),
            incomplete: Vec::new(),
        }
    }

    /// Of an agent's model, which has pods of other nodes only once there have been policies.
    ///
    /// # Errors
    /// The model is not whole yet.
    pub fn of_agent(model: &Model) -> Result<Self, String> {
        if !model.synced() {
            let kinds: Vec<_> = model.waiting_for().map(Kind::as_str).collect();
            return Err(format!(
                "the agent has not listed all objects yet (missing: {}): try again when `fairlead status` says that \
                 it has, or use --objects",
                kinds.join(", ")
            ));
        }
        let mut snapshot = Self::of(model, BY_AGENT);
        // On each node runs a pod of this agent at least.
        let own = model.node_name();
        let others = snapshot.nodes.iter().any(|node| node.name != own);
        if others && snapshot.pods.iter().all(|pod| pod.node_name.as_deref() == Some(own)) {
            snapshot.incomplete.push(format!(
                "the agent only knows the pods of node {own}, as long as the cluster has no policy: use --objects to \
                 include all"
            ));
        }
        Ok(snapshot)
    }

    /// Of objects in files.
    #[must_use]
    pub fn of_files(files: BTreeMap<String, Vec<Result<Object, Invalid>>>) -> Self {
        let (mut model, mut notes, mut unreadable) = (Model::new(""), Vec::new(), 0_usize);
        for (file, found) in files {
            for read in found {
                match read {
                    Ok(object) => model.take(Event::Applied(object)),
                    Err(invalid) => {
                        let is_asked = !matches!(invalid.kind, Some(Kind::Service | Kind::EndpointSlice));
                        unreadable += usize::from(is_asked && !invalid.piece);
                        notes.push(format!("{file}: {invalid}"));
                    }
                }
            }
        }
        let said = || format!("{unreadable} of the objects can't be read: see the notes, and correct or remove them");
        let incomplete = (unreadable > 0).then(said).into_iter().collect();
        Self { notes, incomplete, ..Self::of(&model, OFFLINE) }
    }

    fn world<'a>(&'a self, policies: &'a Policies) -> World<'a> {
        World {
            names: Some(&self.names),
            namespaces: self.namespaces.iter().collect(),
            nodes: self.nodes.iter().collect(),
            pods: self.pods.iter().collect(),
            local: self.local.iter().collect(),
            pod_ranges: &self.pod_ranges,
            policies: policies.network.iter().collect(),
            cluster_policies: policies.cluster.iter().collect(),
            ..World::default()
        }
    }

    /// What becomes of it with the policies of these texts, or, if they are to be deleted, without them. Those that name no
    /// namespace are of this one.
    ///
    /// # Errors
    /// One can't be read, or there is none, or the comparison would take too long.
    pub fn what_if(&self, texts: &[String], namespace: Option<&str>, delete: bool) -> Result<PolicyWhatIf, String> {
        let mut after = self.policies.clone();
        let mut out =
            PolicyWhatIf { notes: self.notes.clone(), incomplete: self.incomplete.clone(), ..PolicyWhatIf::default() };
        let before = self.world(&self.policies);
        let places = Places::of(&before);
        let mut selected: Vec<(String, Selected)> = Vec::new();
        for read in texts.iter().flat_map(|text| read_str_in(text, namespace)) {
            let (name, selects, change) = match read {
                Ok(Object::NetworkPolicy(policy)) => (
                    format!("NetworkPolicy {}", policy.key),
                    places.selected(&policy),
                    put(&mut after.network, policy, |each| &each.key, delete),
                ),
                Ok(Object::ClusterNetworkPolicy(policy)) => (
                    format!("ClusterNetworkPolicy {}", policy.key),
                    places.selected_by_cluster(&policy),
                    put(&mut after.cluster, policy, |each| &each.key, delete),
                ),
                Ok(other) => {
                    out.notes.push(format!("{} {} is not a policy: ignored", other.kind().as_str(), other.key()));
                    continue;
                }
                // What the agent would do with the rest of it is in what is compared.
                Err(invalid) if invalid.piece => {
                    out.incomplete.push(format!("part of the input can't be read: {invalid}"));
                    continue;
                }
                Err(invalid) => return Err(invalid.to_string()),
            };
            let change = change.ok_or_else(|| format!("there is no {name} to delete"))?;
            out.policies.push(PolicyChangeView { policy: name.clone(), change: change.to_owned() });
            selected.push((name, selects));
        }
        if out.policies.is_empty() {
            return Err("no NetworkPolicy and no ClusterNetworkPolicy is given".to_owned());
        }
        coverage::say(&places, &selected, &mut out);
        let differences = compare(&before, &self.world(&after), self.most).map_err(|error| error.to_string())?;
        for difference in differences {
            let Difference { opens, from, to, traffic: _ } = &difference;
            let view = DifferenceView {
                from: from.iter().cloned().collect(),
                to: to.iter().cloned().collect(),
                traffic: difference.words(),
            };
            if *opens { out.opens.push(view) } else { out.closes.push(view) }
        }
        Ok(out)
    }
}

/// Puts a policy in the place of the one of its name, or takes that out. In a word what changed; nothing where there is none
/// to delete.
fn put<T: PartialEq>(all: &mut Vec<T>, policy: T, key: fn(&T) -> &ObjectKey, delete: bool) -> Option<&'static str> {
    let place = all.iter().position(|each| key(each) == key(&policy));
    match (place, delete) {
        (None, true) => None,
        (Some(place), true) => {
            all.remove(place);
            Some("deleted")
        }
        (None, false) => {
            all.push(policy);
            Some("new")
        }
        (Some(place), false) if all[place] == policy => Some("unchanged"),
        (Some(place), false) => {
            all[place] = policy;
            Some("changed")
        }
    }
}

#[cfg(test)]
mod tests;
