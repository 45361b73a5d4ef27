//! Writing events: requests to the API server.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use fairlead_objects::kubernetes::Cluster;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use serde_json::json;
use tracing::debug;

use super::{Scope, Warning};

/// Who writes them.
const CONTROLLER: &str = "fairlead.io/agent";
/// What was being done: bringing objects into force.
const ACTION: &str = "Apply";
/// Longest note and longest name of an object, in bytes (`NoteLengthLimit` of pkg/apis/events/validation, RFC 1123).
const LONGEST_NOTE: usize = 1024;
const LONGEST_NAME: usize = 253;
/// Where events about objects of the cluster are, as upstream has them.
const NAMESPACE: &str = "default";
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Writes warnings as one node.
pub(super) struct Writer {
    cluster: Cluster,
    node: String,
}

impl Writer {
    pub(super) fn new(cluster: Cluster, node: String) -> Self {
        Self { cluster, node }
    }

    /// Writes an event. Whether one is there now.
    pub(super) async fn create(&self, warning: &Warning) -> bool {
        let request = async {
            let uid = if warning.uid.is_empty() { self.uid(warning).await? } else { warning.uid.clone() };
            let event = event(warning, &self.node, uid, Timestamp::now());
            match self.api(warning).await.create(&PostParams::default(), &event).await {
                // Another node, or this one before its restart, has said so.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                other => other.map(drop),
            }
        };
        self.finish("create", tokio::time::timeout(PATIENCE, request).await)
    }

    /// Writes how often it was so. Whether the event is still there.
    pub(super) async fn count(&self, warning: &Warning, count: i32) -> bool {
        let series = json!({"series": {"count": count, "lastObservedTime": MicroTime(Timestamp::now())}});
        let name = name(warning, &self.node);
        let request = async {
            let api = self.api(warning).await;
            api.patch(&name, &PatchParams::default(), &Patch::Merge(&series)).await.map(drop)
        };
        self.finish("patch", tokio::time::timeout(PATIENCE, request).await)
    }

    async fn api(&self, warning: &Warning) -> Api<Event> {
        Api::namespaced(self.cluster.client().await, namespace(warning))
    }

    /// The uid, without which `kubectl describe` does not show an event. Empty when the object is gone.
    async fn uid(&self, warning: &Warning) -> kube::Result<String> {
        let mut found = Ok(String::new());
        for version in warning.kind.api_versions() {
            found = self.uid_in(warning, version).await;
            // A server need not have the best version.
            if !matches!(&found, Err(kube::Error::Api(status)) if status.code == 404) {
                break;
            }
        }
        found
    }

    async fn uid_in(&self, warning: &Warning, api_version: &str) -> kube::Result<String> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, warning.kind.as_str()));
        let client = self.cluster.client().await;
        let api: Api<DynamicObject> = match warning.key.namespace.as_str() {
            "" => Api::all_with(client, &resource),
            namespace => Api::namespaced_with(client, namespace, &resource),
        };
        // A list of one: the agent may list what it watches, and needs no right to get.
        let one = ListParams::default().fields(&format!("metadata.name={}", warning.key.name));
        let found: Option<PartialObjectMeta<DynamicObject>> = api.list_metadata(&one).await?.items.into_iter().next();
        Ok(found.and_then(|object| object.metadata.uid).unwrap_or_default())
    }

    fn finish(&self, verb: &str, result: Result<kube::Result<()>, tokio::time::error::Elapsed>) -> bool {
        match result {
            Ok(Ok(())) => {
                self.cluster.set_trouble("events", None);
                true
            }
            // Namespaces that end, quotas and webhooks refuse with 403, too.
            Ok(Err(kube::Error::Api(status))) if status.code == 403 && is_missing_a_rule(&status.message) => {
                let text = fairlead_objects::kubernetes::forbidden(
                    "events.k8s.io",
                    "events",
                    &["create", "patch"],
                    &status.message,
                );
                if self.cluster.set_trouble("events", Some(text.clone())) {
                    tracing::error!("{text}");
                }
                false
            }
            Ok(Err(error)) => {
                debug!(%error, verb, "can't write an event");
                false
            }
            Err(_) => {
                debug!(verb, "can't write an event: no answer from the API server");
                false
            }
        }
    }
}

fn namespace(warning: &Warning) -> &str {
    if warning.key.namespace.is_empty() { NAMESPACE } else { &warning.key.namespace }
}

/// The same warning has the same name, so that it is one event however often and from wherever it is said.
fn name(warning: &Warning, node: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (warning.kind.as_str(), warning.reason, &warning.note).hash(&mut hasher);
    if warning.scope == Scope::Node {
        node.hash(&mut hasher);
    }
    let end = format!(".{:016x}", hasher.finish());
    // Names of objects are ASCII.
    let head: String = warning.key.name.chars().take(LONGEST_NAME - end.len()).collect();
    head + &end
}

fn event(warning: &Warning, node: &str, uid: String, now: Timestamp) -> Event {
    let of_cluster = warning.key.namespace.is_empty();
    Event {
        metadata: ObjectMeta {
            name: Some(name(warning, node)),
            namespace: Some(namespace(warning).to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(node.to_owned()),
        action: Some(ACTION.to_owned()),
        reason: Some(warning.reason.to_owned()),
        type_: Some("Warning".to_owned()),
        note: Some(cut(&warning.note).to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(warning.kind.api_version().to_owned()),
            kind: Some(warning.kind.as_str().to_owned()),
            name: Some(warning.key.name.clone()),
            namespace: (!of_cluster).then(|| warning.key.namespace.clone()),
            uid: Some(uid).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

/// At most as much as the API takes.
fn cut(note: &str) -> &str {
    &note[..note.floor_char_boundary(LONGEST_NOTE)]
}

/// Whether a refusal is RBAC's (`forbidden` in apiserver's handlers/responsewriters).
fn is_missing_a_rule(message: &str) -> bool {
    ["create", "patch"].iter().any(|verb| message.contains(&format!(" cannot {verb} resource ")))
}

#[cfg(test)]
mod tests {
    use fairlead_objects::{Kind, ObjectKey};

    use super::*;

    fn warning(scope: Scope) -> Warning {
        let key = ObjectKey::new("shop", "cart");
        Warning {
            kind: Kind::Service,
            key,
            uid: String::new(),
            reason: "InvalidObject",
            note: "no".into(),
            scope,
            charged: "default".into(),
        }
    }

    #[test]
    fn what_every_node_sees_is_one_event() {
        assert_eq!(name(&warning(Scope::Cluster), "a"), name(&warning(Scope::Cluster), "b"));
        assert_ne!(name(&warning(Scope::Node), "a"), name(&warning(Scope::Node), "b"));
        let long = Warning { key: ObjectKey::new("n", "x".repeat(253)), ..warning(Scope::Node) };
        assert_eq!(name(&long, "a").len(), 253);
    }

    #[test]
    fn an_event_is_about_its_object() {
        let made = event(&warning(Scope::Node), "node-1", "u".into(), Timestamp::UNIX_EPOCH);
        let regarding = made.regarding.unwrap();
        assert_eq!(regarding.api_version.as_deref(), Some("v1"));
        assert_eq!((regarding.namespace.as_deref(), regarding.uid.as_deref()), (Some("shop"), Some("u")));
        assert_eq!(made.metadata.namespace.as_deref(), Some("shop"));
        let node = Warning { kind: Kind::Node, key: ObjectKey::cluster("n"), ..warning(Scope::Node) };
        let made = event(&node, "node-1", String::new(), Timestamp::UNIX_EPOCH);
        assert_eq!(made.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(made.regarding.unwrap().namespace, None);
    }

    #[test]
    fn long_notes_are_cut_between_letters() {
        assert_eq!(cut(&"ü".repeat(600)).len(), 1024);
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&format!("x{}", "ü".repeat(600))).len(), 1023);
    }
}
