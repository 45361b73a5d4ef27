//! What the component `monitoring` asks for is what is served.

use std::collections::BTreeSet;
use std::path::Path;

use fairlead_tests::promql::{self, Selector};
use serde_json::Value;

use super::kustomize::{documents, key};
use super::{pod, read};

const FOLDER: &str = "components/monitoring";

fn objects(name: &str) -> Vec<Value> {
    documents(&read(&format!("{FOLDER}/{name}")))
}

/// Every name that a table of ARCHITECTURE.md lists, which a test compares with the code; and what others serve.
fn served() -> BTreeSet<String> {
    let page = std::fs::read_to_string(fairlead_tree::path("agent/ARCHITECTURE.md").unwrap()).unwrap();
    let rows = page.lines().skip_while(|line| *line != "| metric | meaning |").take_while(|line| line.starts_with('|'));
    let mut names: BTreeSet<String> = rows
        .filter_map(|row| row.split('`').nth(1))
        .filter(|name| name.starts_with("fairlead_"))
        .map(str::to_owned)
        .collect();
    for histogram in ["fairlead_programming_duration_seconds", "fairlead_cni_request_duration_seconds"] {
        assert!(names.contains(histogram), "{names:?}");
        names.insert(format!("{histogram}_bucket"));
    }
    // fairlead-observe's own, kube-state-metrics', and Prometheus'.
    names.extend(["process_resident_memory_bytes", "kube_node_info", "up"].map(str::to_owned));
    names
}

fn assert_served(expression: &str) {
    let served = served();
    let query = promql::read(expression).unwrap_or_else(|error| panic!("{error}: {expression}"));
    assert!(!query.selectors.is_empty(), "{expression}");
    for Selector { name, .. } in &query.selectors {
        assert!(served.contains(name), "nobody serves {name}: {expression}");
    }
}

#[test]
fn alerts_ask_for_metrics_that_are_served() {
    let rules = objects("rules.yaml");
    let rules = rules[0]["spec"]["groups"][0]["rules"].as_array().unwrap();
    let page = read("book/src/operate/monitoring.md");
    assert!(rules.len() > 8);
    for rule in rules {
        assert_served(rule["expr"].as_str().unwrap());
        let alert = rule["alert"].as_str().unwrap();
        assert!(page.contains(&format!("| `{alert}` |")), "the book says nothing of {alert}");
        assert!(!rule["annotations"]["description"].as_str().unwrap().is_empty(), "{alert}");
    }
    let documented = page.matches("| `Fairlead").count();
    assert_eq!(documented, rules.len(), "the book has an alert that is not there");
}

#[test]
fn the_dashboard_asks_for_metrics_that_are_served() {
    let map = objects("dashboard.yaml").remove(0);
    let dashboard: Value = serde_json::from_str(map["data"]["fairlead.json"].as_str().unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        assert_served(target["expr"].as_str().unwrap());
    }
}

/// Selectors meet the pods and the Service, and ports have the names that they have there.
#[test]
fn what_is_scraped_is_there() {
    let scrape = objects("scrape.yaml");
    let [agents, servers] = scrape.as_slice() else { panic!("{scrape:?}") };
    assert_eq!(key(agents), ("PodMonitor".into(), "fairlead".into()));
    assert_eq!(agents["spec"]["podMetricsEndpoints"][0]["relabelings"][0]["replacement"], "kube-proxy");
    let sets = super::daemon_sets();
    let labels = serde_json::to_value(super::labels(&sets["fairlead"])).unwrap();
    for (label, value) in agents["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&labels[label], value);
    }
    // The component names the port of the agent.
    let component: Value = serde_saphyr::from_str(&read(&format!("{FOLDER}/kustomization.yaml"))).unwrap();
    let patch: Vec<Value> = serde_saphyr::from_str(component["patches"][0]["patch"].as_str().unwrap()).unwrap();
    assert_eq!((&patch[0]["value"]["name"], &patch[0]["value"]["containerPort"]), (&"metrics".into(), &10249.into()));
    assert_eq!(agents["spec"]["podMetricsEndpoints"][0]["port"], "metrics");
    assert_eq!(pod(&sets["fairlead"]).containers[0].ports.as_ref().unwrap()[0].name.as_deref(), Some("healthz"));
    let services = super::all::<k8s_openapi::api::core::v1::Service>();
    let ports = services[0].spec.as_ref().unwrap().ports.as_ref().unwrap();
    assert!(ports.iter().any(|port| servers["spec"]["endpoints"][0]["port"] == *port.name.as_ref().unwrap()));
    let labels = services[0].metadata.labels.as_ref().unwrap();
    assert_eq!(servers["spec"]["selector"]["matchLabels"]["k8s-app"], *labels["k8s-app"]);
}

#[test]
fn the_component_can_be_rendered_with_the_base() {
    let path = fairlead_tree::path("manifests").unwrap();
    let mut all = super::kustomize::render(&path.join("base"));
    let before = all.len();
    super::kustomize::apply(Path::new(&path.join(FOLDER)), &mut all);
    assert_eq!(all.len(), before + 4);
    let set = all.iter().find(|object| key(object) == ("DaemonSet".into(), "fairlead".into())).unwrap();
    let ports = set["spec"]["template"]["spec"]["containers"][0]["ports"].as_array().unwrap();
    assert_eq!(ports.iter().map(|port| port["name"].as_str().unwrap()).collect::<Vec<_>>(), ["metrics", "healthz"]);
}
