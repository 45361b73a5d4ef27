//! What objects claim in vain, as an agent that runs tells the API server that it has them from.

use std::net::IpAddr;
use std::time::Duration;

use fairlead_tests::{Lab, Probe, ProbeError, Probes, Vantage};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::condition::{allow, rules};
use crate::control::{ADMIN, AGENT, Control, FIRST};
use crate::feed::{create, create_of_cluster};

const NAMESPACE: &str = "claims";

/// How long nothing comes where nothing may.
const SILENCE: Duration = Duration::from_millis(300);

/// A Pod object of a node, with a label.
async fn pod(admin: &Client, name: &str, node: &str, app: &str) -> Pod {
    let spec = json!({"nodeName": node, "containers": [{"name": "server", "image": "none"}]});
    create(admin, NAMESPACE, json!({"metadata": {"name": name, "labels": {"app": app}}, "spec": spec})).await
}

/// What a kubelet says of a pod: it runs, with these addresses.
async fn runs(admin: &Client, name: &str, ips: &[IpAddr]) {
    let listed: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let status = json!({"status": {"phase": "Running", "podIP": ips[0], "podIPs": listed}});
    let api: Api<Pod> = Api::namespaced(admin.clone(), NAMESPACE);
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

/// The events on a pod, once there are any.
async fn events_on(admin: &Client, pod: &Pod) -> Vec<Event> {
    let api: Api<Event> = Api::namespaced(admin.clone(), NAMESPACE);
    let found = async {
        loop {
            let all = api.list(&ListParams::default()).await.unwrap().items;
            let of = |event: &Event| event.regarding.as_ref().is_some_and(|object| object.uid == pod.metadata.uid);
            let found: Vec<_> = all.into_iter().filter(of).collect();
            if !found.is_empty() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.expect("an event arrives, at the uid of the pod")
}

/// A pod is told of each of these addresses once, and of nothing else.
#[track_caller]
fn assert_told(events: &[Event], node: &str, ips: &[IpAddr]) {
    assert_eq!(events.len(), ips.len(), "one of each address: {events:#?}");
    for ip in ips {
        let begin = format!("status.podIPs has {ip}, which is not in the ranges of its node {node} (");
        let about = |event: &&Event| event.note.as_ref().is_some_and(|note| note.starts_with(&begin));
        let event = events.iter().find(about).unwrap_or_else(|| panic!("nothing of {ip}: {events:#?}"));
        assert_eq!(event.reason.as_deref(), Some("ClaimRefused"));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert!(event.note.as_ref().unwrap().contains("`podRanges`"), "it says what to do: {event:?}");
        assert!(event.series.is_none(), "it is said once: {event:?}");
    }
}

#[track_caller]
fn is_kept_out(from: &Vantage, to: [IpAddr; 2]) {
    for to in to {
        assert_eq!(from.probe(&Probe::tcp(to, 80).timeout(SILENCE)), Err(ProbeError::TimedOut), "{to}");
    }
}

#[test]
fn p48_an_address_that_is_not_of_its_pods_node_has_no_labels_and_its_pod_is_told_once() {
    let lab = Lab::builder().nodes(1).without_agents().start();
    let node = lab.node("node-1");
    for (pods, by) in ["10.244.1.0/24", "fd00:10:244:1::/64"].iter().zip(node.ips()) {
        lab.client().must_run(&["ip", "route", "add", pods, "via", &by.to_string()]);
    }
    let outside: [IpAddr; 2] = ["172.18.0.100", "fd00:172:18::100"].map(|ip| ip.parse().unwrap());
    let mut control = Control::on(node, "claims");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let admin = runtime.block_on(async {
        control.serve(FIRST, &[FIRST], &[]).await;
        let admin = control.cluster(ADMIN, FIRST).client().await;
        allow(&admin, "fairlead", &rules("base/agent-rbac.yaml")).await;
        create_of_cluster::<Node>(&admin, serde_saphyr::from_str(&node.manifest()).unwrap()).await;
        create_of_cluster::<Namespace>(&admin, json!({"metadata": {"name": NAMESPACE}})).await;
        let allow = json!({"from": [{"podSelector": {"matchLabels": {"app": "trusted"}}}]});
        let spec = json!({
            "podSelector": {"matchLabels": {"app": "victim"}}, "policyTypes": ["Ingress"], "ingress": [allow],
        });
        create::<NetworkPolicy>(&admin, NAMESPACE, json!({"metadata": {"name": "trusted"}, "spec": spec})).await;
        for (name, app) in [("victim", "victim"), ("trusted", "trusted"), ("stranger", "none")] {
            pod(&admin, name, node.name(), app).await;
        }
        admin
    });
    let kubeconfig = control.kubeconfig(AGENT, FIRST, "");
    node.start_agent_of_cluster(&kubeconfig);
    let start = |name: &str| node.pod(&format!("{NAMESPACE}/{name}")).tcp(80).without_object().start();
    let [victim, trusted, stranger] = ["victim", "trusted", "stranger"].map(|name| {
        let pod = start(name);
        runtime.block_on(runs(&admin, name, &pod.ips()));
        pod
    });
    let enters = |from: &Vantage| {
        for to in victim.ips() {
            lab.wait_until(&format!("{to} lets in who is trusted"), || from.tcp(to, 80));
        }
    };
    let strangers_are_kept_out = || {
        is_kept_out(stranger.vantage(), victim.ips());
        is_kept_out(lab.client(), victim.ips());
    };
    enters(trusted.vantage());
    strangers_are_kept_out();

    // Pods of this node, as its kubelet may write them, with the label that opens the door: at a host outside, and in other ranges.
    let thieves = runtime.block_on(async {
        let outside_thief = pod(&admin, "thief", node.name(), "trusted").await;
        runs(&admin, "thief", &outside).await;
        let elsewhere: [IpAddr; 2] = ["10.244.9.9", "fd00:10:244:9::9"].map(|ip| ip.parse().unwrap());
        let other_thief = pod(&admin, "other", node.name(), "trusted").await;
        runs(&admin, "other", &elsewhere).await;
        [(outside_thief, outside), (other_thief, elsewhere)]
    });
    let all_told = || {
        runtime.block_on(async {
            for (thief, ips) in &thieves {
                // Both addresses are told of in one go: with the first event of the last thief all are on their way.
                let mut events = events_on(&admin, thief).await;
                for _ in 0..100 {
                    if events.len() >= ips.len() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    events = events_on(&admin, thief).await;
                }
                assert_told(&events, node.name(), ips);
            }
        });
    };
    all_told();
    strangers_are_kept_out();
    enters(trusted.vantage());

    // The next agent says nothing twice, and opens nothing while it begins.
    node.agent().kill9();
    node.start_agent_of_cluster(&kubeconfig);
    let status = || node.fairlead(&["status"]).stdout;
    lab.wait_until("the next agent has found them too", || {
        let found = status();
        if found.contains(&format!("Pod {NAMESPACE}/other")) { Ok(()) } else { Err(found) }
    });
    strangers_are_kept_out();
    enters(trusted.vantage());
    // What it writes arrives in order.
    let last = runtime.block_on(async {
        let last = pod(&admin, "last", node.name(), "trusted").await;
        let ip: IpAddr = "10.244.9.10".parse().unwrap();
        runs(&admin, "last", &[ip]).await;
        let events = events_on(&admin, &last).await;
        (events, ip)
    });
    assert_told(&last.0, node.name(), &[last.1]);
    all_told();
}
