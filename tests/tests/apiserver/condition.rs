//! The condition NetworkUnavailable of a Node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fairlead_agent::events::keep_network_available;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Client;
use kube::api::Api;
use serde_json::{Value, json};

use crate::control::{ADMIN, AGENT, Control, FIRST, NODE};
use crate::feed::{create_of_cluster, wait};

async fn conditions(client: &Client) -> Vec<NodeCondition> {
    let node = Api::<Node>::all(client.clone()).get(NODE).await.unwrap();
    node.status.and_then(|status| status.conditions).unwrap_or_default()
}

async fn is_cleared(client: &Client) -> bool {
    conditions(client).await.iter().any(|one| one.type_ == "NetworkUnavailable" && one.status == "False")
}

/// Gives the agent's user these rules.
pub(crate) async fn allow(admin: &Client, name: &str, rules: &Value) {
    create_of_cluster::<ClusterRole>(admin, json!({"metadata": {"name": name}, "rules": rules})).await;
    let binding = json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": AGENT}],
    });
    create_of_cluster::<ClusterRoleBinding>(admin, binding).await;
}

/// The rules of the first document of a manifest that has any.
pub(crate) fn rules(manifest: &str) -> Value {
    let path = fairlead_tree::path("manifests").unwrap().join(manifest);
    let all: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap();
    all.into_iter().find_map(|one| one.get("rules").cloned()).unwrap()
}

#[test]
fn c45_the_condition_is_cleared_once_the_agent_is_ready_and_permitted_and_no_other_is_touched() {
    let mut control = Control::new("condition");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        control.serve(FIRST, &[FIRST], &[]).await;
        let admin = control.cluster(ADMIN, FIRST).client().await;
        let set = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "Test"});
        let set = [set("NetworkUnavailable", "True"), set("MemoryPressure", "False")];
        create_of_cluster::<Node>(&admin, json!({"metadata": {"name": NODE}, "status": {"conditions": set}})).await;
        allow(&admin, "base", &rules("base/agent-rbac.yaml")).await;
        let keep = |ready: bool, asked: &Arc<AtomicU32>| {
            let (cluster, asked) = (control.cluster(AGENT, FIRST), Arc::clone(asked));
            let ready = move || {
                asked.fetch_add(1, Ordering::Relaxed);
                ready
            };
            (cluster.clone(), tokio::spawn(keep_network_available(cluster, NODE.to_owned(), ready)))
        };

        // The base permits nothing of that, and the agent says what is missing.
        let asked = Arc::new(AtomicU32::new(0));
        let (cluster, task) = keep(true, &asked);
        wait("that it is forbidden is said", || !cluster.troubles().is_empty()).await;
        let troubles = cluster.troubles();
        assert!(troubles[0].contains(r#"resources: ["nodes/status"], verbs: ["patch"]"#), "{troubles:?}");
        assert!(troubles[0].contains("overlays/cloud"), "{troubles:?}");
        task.abort();

        allow(&admin, "cloud", &rules("overlays/cloud/node-status-rbac.yaml")).await;
        let asked = Arc::new(AtomicU32::new(0));
        let (_, task) = keep(false, &asked);
        wait("it asks whether the agent is ready", || asked.load(Ordering::Relaxed) > 1).await;
        assert!(!is_cleared(&admin).await, "not before the agent is ready");
        task.abort();

        // The API server may take a moment to know the new role; the agent would ask again in half a minute.
        let cleared = async {
            while !is_cleared(&admin).await {
                let (_, task) = keep(true, &asked);
                for _ in 0..20 {
                    if is_cleared(&admin).await {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                task.abort();
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(60), cleared).await.is_ok(), "it is not cleared");
        let mut found: Vec<_> =
            conditions(&admin).await.into_iter().map(|one| (one.type_, one.status, one.reason.unwrap())).collect();
        found.sort();
        let wanted = [("MemoryPressure", "False", "Test"), ("NetworkUnavailable", "False", "FairleadIsUp")];
        assert_eq!(found, wanted.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    });
}
