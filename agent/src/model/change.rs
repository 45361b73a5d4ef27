//! Objects come, change and go.

use std::collections::BTreeMap;

use fairlead_objects::{EndpointSlice, Kind, Object, ObjectKey};

use super::{Model, has_host_ports};

impl Model {
    pub(super) fn put(&mut self, object: Object) {
        let key = object.key();
        match object {
            Object::Service(new) => {
                if let Some(old) = replace(&mut self.services, &key, new) {
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
            Object::Node(new) => {
                if let Some(old) = replace(&mut self.nodes, &key, new) {
                    self.reserved.change_node(&key, old.as_ref(), self.nodes.get(&key), &mut self.dirty);
                    self.dirty.nodes.insert(key);
                }
            }
            Object::Pod(new) => {
                let mut has_ports = has_host_ports(&new);
                if let Some(old) = replace(&mut self.pods, &key, new) {
                    self.dirty.pods.insert(key.clone());
                    has_ports |= old.as_ref().is_some_and(has_host_ports);
                    if has_ports {
                        self.dirty.host_ports.insert(key);
                    }
                }
            }
            Object::Namespace(new) => {
                if replace(&mut self.namespaces, &key, new).is_some() {
                    self.dirty.namespaces.insert(key);
                }
            }
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
                    self.reserved.change_node(key, Some(&old), None, &mut self.dirty);
                    self.dirty.nodes.insert(key.clone());
                }
            }
            Kind::Pod => {
                if let Some(old) = self.pods.remove(key) {
                    self.dirty.pods.insert(key.clone());
                    if has_host_ports(&old) {
                        self.dirty.host_ports.insert(key.clone());
                    }
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
