//! From the stream of objects to changes of the zone.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_objects::{EndpointSlice, Event, Kind, Object, ObjectKey, Service};

use super::facts::{Delta, Facts};
use super::options::{Options, PodMode};
use super::outside::OutsideDelta;
use super::pods::Pods;
use super::render::{Names, Rendered, Slices, render};
use crate::{NameError, WireName};

/// Collects objects and says what they change. Work is done per service that changed, not per service that exists.
pub struct Builder {
    svc: WireName,
    pod: WireName,
    services: HashMap<ObjectKey, Entry>,
    /// The service of each slice, to find it again when the slice goes or changes sides.
    slices: HashMap<ObjectKey, ObjectKey>,
    namespaces: HashMap<String, Namespace>,
    dirty: BTreeSet<ObjectKey>,
    dirty_namespaces: BTreeSet<String>,
    synced: HashSet<Kind>,
    options: Options,
    pods: Pods,
    pod_changes: Vec<(WireName, IpAddr, bool)>,
}

#[derive(Default)]
struct Entry {
    service: Option<Service>,
    slices: Slices,
    rendered: Rendered,
}

/// A namespace exists as an object or because a service is in it.
#[derive(Default)]
struct Namespace {
    object: bool,
    services: usize,
    rendered: bool,
}

impl Builder {
    /// The kinds of objects that the zone is made of.
    pub const KINDS: [Kind; 3] = [Kind::Service, Kind::EndpointSlice, Kind::Namespace];

    /// A builder for the zone with this name.
    ///
    /// # Errors
    /// There is no room for names below it.
    pub fn new(origin: &WireName) -> Result<Self, NameError> {
        let below = |label| origin.below(&[label]).ok_or_else(|| NameError::Length(origin.to_string()));
        Ok(Self {
            svc: below("svc")?,
            pod: below("pod")?,
            services: HashMap::new(),
            slices: HashMap::new(),
            namespaces: HashMap::new(),
            dirty: BTreeSet::new(),
            dirty_namespaces: BTreeSet::new(),
            synced: HashSet::new(),
            options: Options::default(),
            pods: Pods::default(),
            pod_changes: Vec::new(),
        })
    }

    /// Puts this of the cluster into the zone, from the next [`Self::settle`] on.
    pub fn set_options(&mut self, options: Options) {
        if self.options != options {
            self.options = options;
            self.dirty.extend(self.services.keys().cloned());
            self.dirty_namespaces.extend(self.namespaces.keys().cloned());
        }
    }

    /// Takes an event in. What it changes is known after [`Self::settle`], so a burst of events about one service
    /// costs as much as one.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Applied(Object::Service(service)) => {
                let key = service.key.clone();
                self.set_service(key, Some(service));
            }
            Event::Deleted(Kind::Service, key) => self.set_service(key, None),
            Event::Applied(Object::EndpointSlice(slice)) => self.set_slice(slice),
            Event::Deleted(Kind::EndpointSlice, key) => self.remove_slice(&key),
            Event::Applied(Object::Namespace(namespace)) => self.set_namespace(namespace.name, true),
            Event::Deleted(Kind::Namespace, key) => self.set_namespace(key.name, false),
            Event::Applied(Object::Pod(pod)) if self.options.pods == PodMode::Verified => {
                let changes = self.pods.set(&pod);
                self.change_pods(changes);
            }
            Event::Deleted(Kind::Pod, key) => {
                let changes = self.pods.remove(&key);
                self.change_pods(changes);
            }
            Event::Synced(kind) => drop(self.synced.insert(kind)),
            Event::Applied(_) | Event::Deleted(..) | Event::Invalid { .. } | Event::Mended { .. } => {}
        }
    }

    /// Whether the first list of every kind is complete: before that, a name that is not here may still exist.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        let pods = (self.options.pods == PodMode::Verified).then_some(&Kind::Pod);
        Self::KINDS.iter().chain(pods).all(|kind| self.synced.contains(kind))
    }

    /// Whether a service is headless; nothing where there is no such service.
    #[must_use]
    pub fn is_headless(&self, service: &ObjectKey) -> Option<bool> {
        Some(self.services.get(service)?.service.as_ref()?.headless)
    }

    /// What the events since the last call change, one delta for each service and namespace.
    pub fn settle(&mut self) -> Vec<Delta> {
        let mut deltas = Vec::new();
        for key in std::mem::take(&mut self.dirty) {
            deltas.extend(self.settle_service(&key));
        }
        for name in std::mem::take(&mut self.dirty_namespaces) {
            deltas.extend(self.settle_namespace(&name));
        }
        let pods = std::mem::take(&mut self.pod_changes);
        if !pods.is_empty() {
            deltas.push(Delta { pods, ..Delta::default() });
        }
        deltas
    }

    fn change_pods(&mut self, changes: Vec<(String, IpAddr, bool)>) {
        let below =
            |(namespace, address, has): (String, IpAddr, bool)| Some((self.pod.below(&[&namespace])?, address, has));
        self.pod_changes.extend(changes.into_iter().filter_map(below));
    }

    fn set_service(&mut self, key: ObjectKey, service: Option<Service>) {
        let now = service.is_some();
        let entry = self.services.entry(key.clone()).or_default();
        let before = std::mem::replace(&mut entry.service, service).is_some();
        if now != before {
            let namespace = self.namespaces.entry(key.namespace.clone()).or_default();
            namespace.services = if now { namespace.services + 1 } else { namespace.services.saturating_sub(1) };
            self.dirty_namespaces.insert(key.namespace.clone());
        }
        self.dirty.insert(key);
    }

    fn set_namespace(&mut self, name: String, exists: bool) {
        self.namespaces.entry(name.clone()).or_default().object = exists;
        self.dirty_namespaces.insert(name);
    }

    fn set_slice(&mut self, slice: EndpointSlice) {
        let Some(service) = slice.service_name.as_deref().filter(|name| !name.is_empty()) else {
            // Nobody's slice: it may have been somebody's before.
            return self.remove_slice(&slice.key);
        };
        let service = ObjectKey::new(&slice.key.namespace, service);
        if self.slices.get(&slice.key).is_some_and(|before| *before != service) {
            self.remove_slice(&slice.key);
        }
        self.slices.insert(slice.key.clone(), service.clone());
        self.services.entry(service.clone()).or_default().slices.insert(slice.key.clone(), slice);
        self.dirty.insert(service);
    }

    fn remove_slice(&mut self, key: &ObjectKey) {
        let Some(service) = self.slices.remove(key) else { return };
        if let Some(entry) = self.services.get_mut(&service) {
            entry.slices.remove(key);
        }
        self.dirty.insert(service);
    }

    fn settle_service(&mut self, key: &ObjectKey) -> Option<Delta> {
        let options = &self.options;
        let entry = self.services.get_mut(key)?;
        let service = entry.service.as_ref().filter(|service| options.has(&service.key.namespace));
        let wanted = service.map(|service| render(&self.svc, service, &entry.slices, options)).unwrap_or_default();
        let delta = difference(&entry.rendered, &wanted);
        entry.rendered = wanted;
        if entry.service.is_none() && entry.slices.is_empty() {
            self.services.remove(key);
        }
        Some(delta).filter(|delta| !delta.is_empty())
    }

    fn settle_namespace(&mut self, name: &str) -> Option<Delta> {
        let namespace = self.namespaces.get_mut(name)?;
        let is_known = namespace.object || namespace.services > 0;
        let exists = is_known && self.options.has(name);
        let changed = exists != namespace.rendered;
        namespace.rendered = exists;
        if !is_known {
            self.namespaces.remove(name);
        }
        let names = [&self.svc, &self.pod].into_iter().filter_map(|parent| parent.below(&[name]));
        let mut delta = Delta::default();
        if exists {
            delta.set = names.map(|name| (name, Arc::new(Facts::default()))).collect();
        } else {
            delta.removed = names.collect();
        }
        changed.then_some(delta).filter(|delta| !delta.is_empty())
    }
}

fn difference(before: &Rendered, wanted: &Rendered) -> Delta {
    Delta {
        set: changed(&before.names, &wanted.names),
        removed: gone(&before.names, &wanted.names),
        pointers_set: wanted.pointers.difference(&before.pointers).cloned().collect(),
        pointers_removed: before.pointers.difference(&wanted.pointers).cloned().collect(),
        pods: Vec::new(),
        outside: OutsideDelta {
            set: changed(&before.outside, &wanted.outside),
            removed: gone(&before.outside, &wanted.outside),
            pointers_set: wanted.outside_pointers.difference(&before.outside_pointers).cloned().collect(),
            pointers_removed: before.outside_pointers.difference(&wanted.outside_pointers).cloned().collect(),
        },
    }
}

/// Names that are new or have something else now.
fn changed<T: PartialEq>(before: &Names<T>, wanted: &Names<T>) -> Vec<(WireName, Arc<T>)> {
    let set = wanted.iter().filter(|(name, what)| before.get(*name) != Some(what));
    set.map(|(name, what)| (name.clone(), Arc::clone(what))).collect()
}

/// Names that are gone.
fn gone<T>(before: &Names<T>, wanted: &Names<T>) -> Vec<WireName> {
    before.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect()
}
