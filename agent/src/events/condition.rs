//! The condition `NetworkUnavailable` of the Node: clouds set it on new nodes for a controller of routes to clear, and no pod is
//! scheduled there before. Where Fairlead is the network, the agent clears it, if a setting says so.

use std::time::Duration;

use fairlead_objects::kubernetes::{Cluster, forbidden};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use tracing::{debug, error, info, warn};

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
            // Admission webhooks refuse with 403, too.
            Ok(Err(kube::Error::Api(status)))
                if status.code == 403 && status.message.contains(" cannot patch resource ") =>
            {
                let text = forbidden("", "nodes/status", &["patch"], &status.message);
                let text = format!("{text} (manifests/overlays/cloud includes it), or unset clearNetworkUnavailable");
                if cluster.set_trouble("nodes/status", Some(text.clone())) {
                    error!("{text}");
                }
            }
            // It answers, and says no for a reason of its own, such as an admission webhook: pods wait for the node meanwhile.
            Ok(Err(kube::Error::Api(status))) if !passes(status.code) => {
                let text = format!(
                    "the API server does not let the Node's condition {NETWORK_UNAVAILABLE} be cleared ({}): {}",
                    status.code, status.message
                );
                if cluster.set_trouble("nodes/status", Some(text.clone())) {
                    warn!("{text}");
                }
            }
            Ok(Err(error)) => debug!(%error, "can't clear the Node's condition {NETWORK_UNAVAILABLE}"),
            Err(_) => debug!("can't clear the Node's condition {NETWORK_UNAVAILABLE}: no answer from the API server"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Whether an API server refuses because it is busy or about to stop.
const fn passes(code: u16) -> bool {
    matches!(code, 429 | 502..=504)
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
    use fairlead_objects::kubernetes::Access;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Whether a request is all there.
    fn is_whole(asked: &[u8]) -> bool {
        let text = String::from_utf8_lossy(asked);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        body.len() >= length.unwrap_or(0)
    }

    /// An API server that has a Node with the condition, and refuses every change as a webhook may.
    async fn refuse_changes(listener: TcpListener) {
        let node = json!({"metadata": {"name": "n"}, "status": {"conditions": [{"type": "NetworkUnavailable", "status": "True"}]}});
        let list = json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": [node]}).to_string();
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "BadRequest", "code": 400,
            "message": "denied by the webhook nodes.example"})
            .to_string();
        while let Ok((mut stream, _)) = listener.accept().await {
            // Whole, or what is left would reset the connection before the answer is read.
            let mut asked = Vec::new();
            while !is_whole(&asked) {
                stream.read_buf(&mut asked).await.unwrap();
            }
            let (code, body) = if asked.starts_with(b"GET") { ("200 OK", &list) } else { ("400 No", &status) };
            let head =
                format!("HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
            stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn c45_a_refusal_of_whatever_kind_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        tokio::spawn(refuse_changes(listener));
        let kubeconfig = std::env::temp_dir().join(format!("fairlead-condition-{}", std::process::id()));
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{server}")}}],
            "users": [{"name": "c", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        });
        std::fs::write(&kubeconfig, text.to_string()).unwrap();
        let cluster = Cluster::new(Access { kubeconfig: Some(kubeconfig.clone()), ..Access::default() });
        let keep = tokio::spawn(keep_network_available(cluster.clone(), "n".to_owned(), || true));
        let is_said = || cluster.troubles().iter().any(|text| text.contains("denied by the webhook"));
        let said = async {
            while !is_said() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let said = tokio::time::timeout(Duration::from_secs(30), said).await;
        std::fs::remove_file(kubeconfig).unwrap();
        keep.abort();
        assert!(said.is_ok(), "{:?}", cluster.troubles());
    }

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
