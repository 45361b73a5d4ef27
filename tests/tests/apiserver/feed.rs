//! The stream of objects, as a test looks at it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use fairlead_objects::kubernetes::{Cluster, Interest};
use fairlead_objects::{Event, Kind, Object, ObjectKey, Source};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc::Receiver;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the stream has told so far.
pub(crate) struct Feed {
    events: Receiver<Event>,
    pub(crate) objects: BTreeMap<(Kind, ObjectKey), Object>,
    pub(crate) synced: BTreeSet<Kind>,
}

impl Feed {
    pub(crate) fn start(cluster: Cluster, interest: Interest) -> Self {
        let events = Source::Kubernetes(cluster, interest).spawn();
        Self { events, objects: BTreeMap::new(), synced: BTreeSet::new() }
    }

    /// Reads on until something is so.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let reading = async {
            while !is_so(self) {
                match self.events.recv().await.expect("the source goes on") {
                    Event::Applied(object) => {
                        self.objects.insert((object.kind(), object.key()), object);
                    }
                    Event::Deleted(kind, key) => drop(self.objects.remove(&(kind, key))),
                    Event::Synced(kind) => assert!(self.synced.insert(kind), "{kind:?} syncs once"),
                    Event::Invalid { .. } | Event::Mended { .. } => {}
                }
            }
        };
        let result = tokio::time::timeout(PATIENCE, reading).await;
        assert!(result.is_ok(), "{what}: not so; known are {:?}, synced {:?}", self.names(), self.synced);
    }

    pub(crate) fn has(&self, kind: Kind, name: &str) -> bool {
        self.objects.keys().any(|(k, key)| *k == kind && key.to_string() == name)
    }

    fn names(&self) -> Vec<String> {
        self.objects.keys().map(|(kind, key)| format!("{} {key}", kind.as_str())).collect()
    }
}

/// Waits until something is so.
pub(crate) async fn wait(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "{what}: not so");
}

/// What goes to an API server and comes back.
pub(crate) trait Sent: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned {}
impl<K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned> Sent for K {}

/// The same, of a kind that has namespaces.
pub(crate) trait Namespaced: Sent + Resource<Scope = NamespaceResourceScope> {}
impl<K: Sent + Resource<Scope = NamespaceResourceScope>> Namespaced for K {}

/// An object of a kind that has namespaces, made.
pub(crate) async fn create<K: Namespaced>(client: &Client, namespace: &str, object: Value) -> K {
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

/// An object of the cluster, made.
pub(crate) async fn create_of_cluster<K: Sent>(client: &Client, object: Value) -> K {
    Api::all(client.clone()).create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

/// An object, changed.
pub(crate) async fn patch<K: Namespaced>(client: &Client, namespace: &str, name: &str, change: Value) {
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
}

/// An object, gone.
pub(crate) async fn delete<K: Namespaced>(client: &Client, namespace: &str, name: &str) {
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.delete(name, &DeleteParams::default()).await.unwrap();
}
