//! Overlays, rendered.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::kustomize::{self, key};
use super::read;

fn overlay(name: &str) -> Vec<Value> {
    kustomize::render(&fairlead_tree::path("manifests/overlays").unwrap().join(name))
}

fn names() -> BTreeSet<String> {
    let folder = fairlead_tree::path("manifests/overlays").unwrap();
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Each patch meets something, and every object is there once.
#[test]
fn every_overlay_can_be_rendered() {
    for name in names() {
        let objects = overlay(&name);
        let keys: BTreeSet<_> = objects.iter().map(key).collect();
        assert_eq!(keys.len(), objects.len(), "{name}");
        let set = if ["proxy-only", "policy-only"].contains(&name.as_str()) { "fairlead" } else { "fairlead-dns" };
        assert!(keys.contains(&("DaemonSet".to_owned(), set.to_owned())), "{name}: {keys:?}");
    }
}

#[test]
fn every_overlay_and_component_is_documented() {
    let page = read("README.md");
    for name in names() {
        assert!(page.contains(&format!("`overlays/{name}`")), "manifests/README.md does not name overlays/{name}");
    }
    for entry in fs::read_dir(fairlead_tree::path("manifests/components").unwrap()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(page.contains(&format!("`{name}`")), "manifests/README.md does not name the component {name}");
    }
}

#[test]
fn dns_alone_brings_nothing_to_nodes() {
    let objects = overlay("dns-only");
    let keys: BTreeSet<_> = objects.iter().map(key).collect();
    let expected = [
        ("ClusterRole", "fairlead-dns"),
        ("ClusterRoleBinding", "fairlead-dns"),
        ("ConfigMap", "fairlead-dns"),
        ("DaemonSet", "fairlead-dns"),
        ("Service", "kube-dns"),
        ("ServiceAccount", "fairlead-dns"),
    ];
    assert_eq!(keys, expected.map(|(kind, name)| (kind.to_owned(), name.to_owned())).into());
    let set = objects.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["hostNetwork"], Value::Null);
    let volumes = pod["volumes"].as_array().unwrap();
    assert!(volumes.iter().all(|volume| volume["hostPath"].is_null()), "{volumes:?}");
    let settings = objects.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
    assert_eq!(settings["data"].as_object().unwrap().keys().collect::<Vec<_>>(), ["dns.yaml"]);
}

/// They leave DNS alone, and kube-proxy its ports where that stays.
#[test]
fn services_and_policy_alone_bring_the_agent_alone() {
    for (name, parts, port) in [("proxy-only", "proxy", 10256), ("policy-only", "policy", 10246)] {
        let objects = overlay(name);
        let keys: BTreeSet<_> = objects.iter().map(key).collect();
        let kinds = ["ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet", "ServiceAccount"];
        assert_eq!(keys, kinds.map(|kind| (kind.to_owned(), "fairlead".to_owned())).into(), "{name}");
        let of = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
        let settings: Value =
            serde_saphyr::from_str(of("ConfigMap")["data"]["fairlead.yaml"].as_str().unwrap()).unwrap();
        assert_eq!(settings["parts"], parts);
        let agent = &of("DaemonSet")["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(agent["ports"][0]["containerPort"], port, "{name}");
    }
}

/// A cluster may have DNS alone and one of the others: neither brings an object of the other's, so that applying or deleting one
/// leaves the other alone.
#[test]
fn parts_share_no_object() {
    let keys = |name: &str| overlay(name).iter().map(key).collect::<BTreeSet<_>>();
    for part in ["proxy-only", "policy-only"] {
        let shared: Vec<_> = keys("dns-only").intersection(&keys(part)).cloned().collect();
        assert!(shared.is_empty(), "dns-only and {part} share {shared:?}");
    }
}

/// The path is the node's, the file is in it, and the agent's container has no sight of either.
#[test]
fn distributions_have_kubelets_kubeconfig_elsewhere() {
    for (name, directory, file) in [
        ("k3s", "/var/lib/rancher/k3s/agent", "kubelet.kubeconfig"),
        ("rke2", "/var/lib/rancher/rke2/agent", "kubelet.kubeconfig"),
        ("k0s", "/var/lib/k0s", "kubelet.conf"),
    ] {
        let objects = overlay(name);
        let set = objects.iter().find(|object| key(object) == ("DaemonSet".into(), "fairlead".into())).unwrap();
        let pod = &set["spec"]["template"]["spec"];
        let volume = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "kubernetes").unwrap();
        assert_eq!(volume["hostPath"]["path"], directory, "{name}");
        for container in [&pod["initContainers"][0], &pod["containers"][1]] {
            let command = container["command"].to_string();
            assert!(
                command.contains(&format!("--kubelet-kubeconfig=/host/etc/kubernetes/{file}")),
                "{name}: {command}"
            );
        }
        assert!(!pod["containers"][0].to_string().contains("kubernetes\""), "{name}");
    }
}
