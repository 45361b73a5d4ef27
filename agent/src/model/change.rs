//! Objects come, change and go.

use std::collections::BTreeMap;

use fairlead_objects::{EndpointSlice, Kind, Node, Object, ObjectKey, Service};

use super::{Model, annotated, has_host_ports};

impl Model {
    pub(super) fn put(&mut self, object: Object) {
        let key = object.key();
        match object {
            Object::Service(new) => {
                if let Some(old) = replace(&mut self.services, &key, new) {
                    let changed = [old.as_ref(), self.services.get(&key)];
                    self.undecided |= touches_ranges(&self.nodes, changed);
                    self.reserved.change_service(&key, old.as_ref(), self.services.get(&key), &mut self.dirty);
                    self.dirty.services.insert(key);
                }
            }
            Object::EndpointSlice(new) => {
                let service = owner(&new);
                if let Some(old) = replace(&mut self.slices, &key, new) {
                    self.reserved.change_slice(&key, old.as_ref(), self.slices.get(&key), &mut self.dirty);
                    self.unlink(old.as_ref().and_then(owner), &key);
                    if let Some(service) = service {
                        self.slices_of.entry(service.clone()).or_default().insert(key);
                        self.dirty.services.insert(service);
                    }
                }
            }
            Object::Node(mut new) => {
                if let Some(old) =
                    self.nodes.get(&key).filter(|old| old.annotated.is_some() && old.annotated == new.annotated)
                {
                    // What was decided holds until it is decided again.
                    new.pod_cidrs.clone_from(&old.pod_cidrs);
                }
                if let Some(old) = replace(&mut self.nodes, &key, new) {
                    self.undecided |= old.as_ref().map(asks) != self.nodes.get(&key).map(asks);
                    self.reserved.change_node(&key, old.as_ref(), self.nodes.get(&key), &mut self.dirty);
                    self.dirty.nodes.insert(key);
                }
            }
            Object::Pod(new) => {
                let mut has_ports = has_host_ports(&new);
                if let Some(old) = replace(&mut self.pods, &key, new) {
                    has_ports |= old.as_ref().is_some_and(has_host_ports);
                    if has_ports {
                        self.dirty.host_ports.insert(key.clone());
                    }
                    self.dirty.pods.entry(key).or_insert(old.map(Box::new));
                }
            }
            Object::Namespace(new) => {
                if replace(&mut self.namespaces, &key, new).is_some() {
                    self.dirty.namespaces.insert(key);
                }
            }
            // Nothing here enforces them: what is shown, counted and compiled says so alike.
            Object::NetworkPolicy(_) | Object::ClusterNetworkPolicy(_) if !self.rules.parts.enforces() => {}
            Object::NetworkPolicy(new) => {
                if replace(&mut self.policies, &key, new).is_some() {
                    self.dirty.policies.insert(key);
                }
            }
            Object::ClusterNetworkPolicy(new) => {
                if replace(&mut self.cluster_policies, &key, new).is_some() {
                    self.dirty.policies.insert(key);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        match kind {
            Kind::Service => {
                if let Some(old) = self.services.remove(key) {
                    self.undecided |= touches_ranges(&self.nodes, [Some(&old), None]);
                    self.reserved.change_service(key, Some(&old), None, &mut self.dirty);
                    self.dirty.services.insert(key.clone());
                }
            }
            Kind::EndpointSlice => {
                let old = self.slices.remove(key);
                self.reserved.change_slice(key, old.as_ref(), None, &mut self.dirty);
                self.unlink(old.as_ref().and_then(owner), key);
            }
            Kind::Node => {
                if let Some(old) = self.nodes.remove(key) {
                    self.undecided = true;
                    self.reserved.change_node(key, Some(&old), None, &mut self.dirty);
                    self.dirty.nodes.insert(key.clone());
                }
            }
            Kind::Pod => {
                if let Some(old) = self.pods.remove(key) {
                    if has_host_ports(&old) {
                        self.dirty.host_ports.insert(key.clone());
                    }
                    self.dirty.pods.entry(key.clone()).or_insert(Some(Box::new(old)));
                }
            }
            Kind::Namespace => {
                if self.namespaces.remove(key).is_some() {
                    self.dirty.namespaces.insert(key.clone());
                }
            }
            Kind::NetworkPolicy => {
                if self.policies.remove(key).is_some() {
                    self.dirty.policies.insert(key.clone());
                }
            }
            Kind::ClusterNetworkPolicy => {
                if self.cluster_policies.remove(key).is_some() {
                    self.dirty.policies.insert(key.clone());
                }
            }
        }
    }

    /// Decides which annotations of Nodes count, where what that depends on has changed. Not before all Nodes and Services are
    /// known: a range could belong to one that is not.
    pub(super) fn decide_ranges(&mut self) {
        let unknown = [Kind::Node, Kind::Service].iter().any(|kind| self.waiting_for.contains(kind));
        if unknown || !std::mem::take(&mut self.undecided) {
            return;
        }
        if self.not_given.is_empty() && self.nodes.values().all(|node| node.annotated.is_none()) {
            return;
        }
        let nodes: Vec<&Node> = self.nodes.values().collect();
        let given = annotated::given(&nodes, &self.reserved.all_cluster_ips(), &self.rules.annotated_ranges);
        let mut not_given = BTreeMap::new();
        for (name, answer) in given {
            let key = ObjectKey::cluster(name);
            let ranges = answer.unwrap_or_else(|why| {
                not_given.insert(key.clone(), why);
                Vec::new()
            });
            if let Some(node) = self.nodes.get_mut(&key).filter(|node| node.pod_cidrs != ranges) {
                let old = node.clone();
                node.pod_cidrs = ranges;
                self.reserved.change_node(&key, Some(&old), Some(node), &mut self.dirty);
                self.dirty.nodes.insert(key);
            }
        }
        // What is told of them is told with what nodes are.
        let others = self.not_given.iter().filter(|(key, why)| not_given.get(*key) != Some(why)).map(|(key, _)| key);
        let new = not_given.iter().filter(|(key, why)| self.not_given.get(*key) != Some(why)).map(|(key, _)| key);
        self.dirty.nodes.extend(others.chain(new).cloned());
        self.not_given = not_given;
    }

    fn unlink(&mut self, service: Option<ObjectKey>, slice: &ObjectKey) {
        let Some(service) = service else { return };
        if let Some(slices) = self.slices_of.get_mut(&service) {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        self.dirty.services.insert(service);
    }
}

/// Puts an object in. `None`: it was there in this form already; else what it replaced.
fn replace<T: PartialEq>(map: &mut BTreeMap<ObjectKey, T>, key: &ObjectKey, new: T) -> Option<Option<T>> {
    if map.get(key) == Some(&new) { None } else { Some(map.insert(key.clone(), new)) }
}

/// The service that a slice is of.
fn owner(slice: &EndpointSlice) -> Option<ObjectKey> {
    slice.service_name.as_ref().map(|name| ObjectKey::new(&slice.key.namespace, name))
}

/// What it depends on which ranges a node has.
fn asks(node: &Node) -> (&Option<fairlead_objects::Annotated>, &[ipnetwork::IpNetwork], &[std::net::IpAddr]) {
    (&node.annotated, &node.pod_cidrs, &node.internal_ips)
}

/// Whether a ClusterIP of what a Service was or is lies in a range that a node asks for.
fn touches_ranges(nodes: &BTreeMap<ObjectKey, Node>, service: [Option<&Service>; 2]) -> bool {
    let [old, new] = service.map(|service| service.map(|service| service.cluster_ips.as_slice()).unwrap_or_default());
    let mut ranges = nodes.values().filter_map(|node| node.annotated.as_ref()).flat_map(|annotated| &annotated.ranges);
    old != new && ranges.any(|range| old.iter().chain(new).any(|ip| range.contains(*ip)))
}
