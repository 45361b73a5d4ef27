//! The condition `NetworkUnavailable` of the Node: clouds set it on new nodes for a controller of routes to clear, and no pod is
//! scheduled there before. Where Fairlead is the network, the agent clears it, if a setting says so.

use std::time::Duration;

use fairlead_objects::kubernetes::{Cluster, forbidden};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use tracing::{debug, error, info};

/// The condition.
const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";

/// Why it is not so.
const REASON: &str = "FairleadIsUp";

/// How often it is looked at: a cloud may set it again.
const EVERY: Duration = Duration::from_secs(30);

/// How often while the agent is not ready.
const SOON: Duration = Duration::from_secs(1);

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keeps the condition of a node cleared while `ready` says that its pods have a network. Never returns.
pub async fn keep_network_available(cluster: Cluster, node: String, ready: impl Fn() -> bool + Send) {
    loop {
        if !ready() {
            tokio::time::sleep(SOON).await;
            continue;
        }
        match tokio::time::timeout(PATIENCE, clear(&cluster, &node)).await {
            Ok(Ok(cleared)) => {
                if cleared {
                    info!("cleared the Node's condition {NETWORK_UNAVAILABLE}");
                }
                cluster.set_trouble("nodes/status", None);
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                let text = forbidden("", "nodes/status", &["patch"], &status.message);
                let text = format!("{text} (manifests/overlays/cloud includes it), or unset clearNetworkUnavailable");
                if cluster.set_trouble("nodes/status", Some(text.clone())) {
                    error!("{text}");
                }
            }
            Ok(Err(error)) => debug!(%error, "can't clear the Node's condition {NETWORK_UNAVAILABLE}"),
            Err(_) => debug!("can't clear the Node's condition {NETWORK_UNAVAILABLE}: no answer from the API server"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Clears the condition where somebody has set it. Whether it was set.
async fn clear(cluster: &Cluster, node: &str) -> kube::Result<bool> {
    let api: Api<Node> = Api::all(cluster.client().await);
    // A list of one: the agent may list what it watches, and needs no right to get.
    let one = ListParams::default().fields(&format!("metadata.name={node}"));
    let found = api.list(&one).await?.items.into_iter().next();
    if !found.is_some_and(|node| is_set(&node)) {
        return Ok(false);
    }
    let now = Time(Timestamp::now());
    let condition = json!({
        "type": NETWORK_UNAVAILABLE,
        "status": "False",
        "reason": REASON,
        "message": "Fairlead is running on this node",
        "lastTransitionTime": now,
        "lastHeartbeatTime": now,
    });
    // Conditions are merged by type: others stay as they are.
    let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    api.patch_status(node, &PatchParams::default(), &patch).await.map(|_| true)
}

/// Whether a node has the condition and it is not known to be false.
fn is_set(node: &Node) -> bool {
    let conditions = node.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    conditions.into_iter().any(|condition| condition.type_ == NETWORK_UNAVAILABLE && condition.status != "False")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c45_a_condition_is_set_unless_it_is_absent_or_false() {
        let node = |conditions: serde_json::Value| -> Node {
            serde_json::from_value(json!({"metadata": {}, "status": {"conditions": conditions}})).unwrap()
        };
        assert!(!is_set(&Node::default()) && !is_set(&node(json!([]))));
        for (status, set) in [("True", true), ("Unknown", true), ("False", false)] {
            assert_eq!(is_set(&node(json!([{"type": "NetworkUnavailable", "status": status}]))), set, "{status}");
            assert!(!is_set(&node(json!([{"type": "MemoryPressure", "status": status}]))));
        }
    }
}
