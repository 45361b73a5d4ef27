use std::collections::BTreeSet;

use fairlead_objects::{Event, Kind, read_str};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::LocalPod;

const TCP: u8 = 6;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A model with these objects, synced; pods of n1 with an address are attached.
fn model(objects: &[Value]) -> Model {
    let mut model = Model::new("n1");
    for n in 1..=2 {
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("n{n}")},
            "spec": {"podCIDRs": [format!("10.244.{n}.0/24")]},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("172.18.0.{n}")}]},
        });
        take(&mut model, &node);
    }
    objects.iter().for_each(|object| take(&mut model, object));
    Kind::ALL.into_iter().for_each(|kind| model.take(Event::Synced(kind)));
    let own: Vec<LocalPod> = (0..)
        .zip(model.pods().filter(|pod| pod.node_name.as_deref() == Some("n1") && !pod.owned_ips().is_empty()))
        .map(|(slot, pod)| LocalPod {
            foreign: None,
            slot,
            key: pod.key.clone(),
            uid: String::new(),
            ips: pod.owned_ips().to_vec(),
            pod_mac: [0; 6],
            host_mac: [0; 6],
        })
        .collect();
    own.into_iter().for_each(|local| model.attach(local));
    model
}

fn take(model: &mut Model, object: &Value) {
    for read in read_str(&object.to_string()) {
        model.take(Event::Applied(read.unwrap()));
    }
}

fn pod(key: &str, node: u8, address: &str) -> Value {
    let (namespace, name) = key.split_once('/').unwrap();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
        "spec": {"nodeName": format!("n{node}"), "containers": [
            {"name": "c", "ports": [{"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
        ]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

fn service(name: &str, spec: &Value) -> Value {
    let mut all = json!({"clusterIP": "10.96.0.7", "ports": [{"name": "web", "port": 80, "targetPort": 8080}]});
    for (field, value) in spec.as_object().unwrap() {
        all[field] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name}, "spec": all})
}

fn slice(of: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<_> =
        addresses.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "shop", "name": format!("{of}-1"), "labels": {"kubernetes.io/service-name": of}},
        "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    })
}

fn policy(name: &str, selected: &str, spec: &Value) -> Value {
    let mut all = json!({"podSelector": {"matchLabels": {"app": selected}}});
    for (field, value) in spec.as_object().unwrap() {
        all[field] = value.clone();
    }
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": "shop", "name": name},
        "spec": all,
    })
}

/// Asks with tables that say what the objects say, unless `stale`.
fn ask_of(
    model: &Model,
    (from, to, port): (&str, &str, PortRef),
    stale: bool,
    cut_off: &[CutOff],
) -> Result<PolicyExplanation, String> {
    let node_ports = |address: SocketAddr| {
        let own = Addr::from(address.ip());
        let kinds = if address.ip() == ip("172.18.0.1") { FrontendFlags::WILDCARDS } else { 0 };
        vec![(own, None), (own.wildcard(), Some(kinds))]
    };
    let asked = Asked {
        model,
        world: World::of(model, &Network::default()),
        audited: audited(model),
        contents: contents(model, &place(model)),
        keys: &node_ports,
        tables: &|judged| Some(judged.allow != stale),
        cut_off,
        proto: TCP,
        port: 0,
    };
    asked.explain(from, to, &port)
}

fn ask(model: &Model, from: &str, to: &str, port: u16) -> PolicyExplanation {
    ask_of(model, (from, to, PortRef::Number(port)), false, &[]).unwrap()
}

fn shop(more: &[Value]) -> Model {
    let mut objects = vec![
        pod("shop/client", 1, "10.244.1.2"),
        pod("shop/near", 1, "10.244.1.3"),
        pod("shop/far", 2, "10.244.2.3"),
        service("cart", &json!({})),
        slice("cart", &["10.244.1.3", "10.244.2.3"]),
    ];
    objects.extend_from_slice(more);
    model(&objects)
}

#[test]
fn p49_a_services_address_is_explained_by_its_endpoints_after_translation() {
    // The cluster address itself is allowed, and what is behind it is not: policy is judged on that.
    let block = json!({"policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "10.96.0.0/16"}}]}]});
    let denied = ask(&shop(&[policy("out", "client", &block)]), "shop/client", "10.96.0.7", 80);
    assert_eq!((denied.verdict, denied.allow), (PolicyVerdict::Dropped, false));
    assert_eq!(denied.reasons, ["egress_policy"]);
    assert!(
        denied.lines[0].contains("Service shop/cart port web: policy is evaluated for its 2 endpoints"),
        "{denied:?}"
    );
    // The endpoint's own port counts.
    let port = json!({"policyTypes": ["Egress"], "egress": [{"ports": [{"port": 8080}]}]});
    let model = shop(&[policy("out", "client", &port)]);
    assert_eq!(ask(&model, "shop/client", "10.96.0.7", 80).verdict, PolicyVerdict::Allowed);
    assert_eq!(ask(&model, "shop/client", "shop/cart", 80), ask(&model, "shop/client", "10.96.0.7", 80));
    let by_name = ask_of(&model, ("shop/client", "shop/cart", PortRef::Name("web".into())), false, &[]).unwrap();
    assert_eq!(by_name.verdict, PolicyVerdict::Allowed);
    // One endpoint lets it in, the other does not.
    let partly = ask(&shop(&[policy("in", "near", &json!({"ingress": []}))]), "shop/client", "10.96.0.7", 80);
    assert_eq!((partly.verdict, partly.allow), (PolicyVerdict::Partly, false));
    assert!(
        partly.lines.iter().any(|line| line.starts_with("10.244.1.3:8080: ingress of shop/near: silently dropped")),
        "{partly:?}"
    );
}

#[test]
fn p49_services_without_endpoints_and_ports_without_a_service_are_told_apart() {
    let model = shop(&[service("empty", &json!({"clusterIP": "10.96.0.8"}))]);
    let refused = ask(&model, "shop/client", "10.96.0.8", 80);
    assert_eq!((refused.verdict, refused.reasons), (PolicyVerdict::Refused, vec!["rejected".to_owned()]));
    let other = ask(&model, "shop/client", "10.96.0.7", 81);
    assert_eq!(other.verdict, PolicyVerdict::Allowed, "it follows the node's routes");
    assert!(other.lines.iter().any(|line| line.contains("does not have this port, only 80/TCP")), "{other:?}");
    let local = service("local", &json!({"clusterIP": "10.96.0.9", "internalTrafficPolicy": "Local"}));
    let away = ask(&shop(&[local, slice("local", &["10.244.2.3"])]), "shop/client", "10.96.0.9", 80);
    assert_eq!((away.verdict, away.reasons), (PolicyVerdict::Dropped, vec!["no_endpoint".to_owned()]));
}

#[test]
fn p49_node_ports_source_ranges_and_nodes_are_resolved() {
    let spec = json!({"type": "LoadBalancer", "ports": [{"name": "web", "port": 80, "targetPort": 8080, "nodePort": 30080}],
                      "loadBalancerSourceRanges": ["192.0.2.0/24"]});
    let mut outside = service("outside", &spec);
    outside["spec"]["clusterIP"] = json!("10.96.0.9");
    outside["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}});
    let model = shop(&[outside, slice("outside", &["10.244.1.3"])]);
    assert_eq!(ask(&model, "192.0.2.1", "203.0.113.1", 80).verdict, PolicyVerdict::Allowed);
    let foreign = ask(&model, "198.51.100.1", "203.0.113.1", 80);
    assert_eq!((foreign.verdict, foreign.reasons), (PolicyVerdict::Dropped, vec!["source_range".to_owned()]));
    let own = ask(&model, "shop/client", "node/n1", 30080);
    assert!(own.lines[0].contains("Service shop/outside"), "{own:?}");
    let other = ask(&model, "shop/client", "node/n2", 30080);
    assert!(other.lines.iter().any(|line| line.contains("node n2 translates")), "{other:?}");
    // A node reaches its own pods, whatever their policies say; another node does not.
    let closed = shop(&[policy("in", "near", &json!({"ingress": []}))]);
    assert_eq!(ask(&closed, "node/n1", "shop/near", 8080).verdict, PolicyVerdict::Allowed);
    assert_eq!(ask(&closed, "node/n2", "shop/near", 8080).verdict, PolicyVerdict::Dropped);
}

#[test]
fn p49_addresses_that_are_dropped_anyway_are_said_to_be() {
    let model = shop(&[]);
    let multicast = ask(&model, "shop/client", "224.0.0.251", 5353);
    assert_eq!((multicast.verdict, multicast.reasons), (PolicyVerdict::Dropped, vec!["multicast".to_owned()]));
    let nobody = ask(&model, "shop/client", "10.244.1.99", 80);
    assert_eq!(nobody.reasons, ["no_such_pod"]);
}

#[test]
fn p49_ports_and_ends_have_names() {
    let mut host = pod("shop/host", 2, "172.18.0.2");
    host["spec"]["hostNetwork"] = json!(true);
    let model = shop(&[host]);
    let named = |to: &str, name: &str| ask_of(&model, ("shop/client", to, PortRef::Name(name.into())), false, &[]);
    assert!(named("shop/near", "http").is_ok() && named("10.244.1.3", "http").is_ok());
    let error = named("shop/near", "dns").unwrap_err();
    assert!(error.contains("http 8080/TCP, dns 53/UDP"), "{error}");
    assert!(named("node/n1", "http").unwrap_err().contains("give a number"));
    let host = ask(&model, "shop/client", "shop/host", 80);
    assert!(host.lines[0].contains("in the host network of node n2"), "{host:?}");
    for (end, says) in [
        ("cart", "NAMESPACE/POD"),
        ("/cart", "NAMESPACE/POD"),
        ("shop/", "NAMESPACE/POD"),
        ("a/b/c", "NAMESPACE/POD"),
        ("10.0.0", "NAMESPACE/POD"),
        ("", "NAMESPACE/POD"),
        ("pod/shop/cart", "no pod shop/cart"),
        ("service/shop/near", "no Service shop/near"),
        ("node/n9", "no node n9"),
        ("shop/nobody", "no pod or Service shop/nobody"),
        ("fd00::1", "no address family in common"),
    ] {
        let error = ask_of(&model, ("shop/client", end, PortRef::Number(80)), false, &[]).unwrap_err();
        assert!(error.contains(says), "{end}: {error}");
    }
    assert!(
        ask_of(&model, ("shop/cart", "shop/near", PortRef::Number(80)), false, &[])
            .unwrap_err()
            .contains("opens no connections")
    );
    let headless = shop(&[service("none", &json!({"clusterIP": "None"})), slice("none", &["10.244.2.3"])]);
    let error = ask_of(&headless, ("shop/client", "shop/none", PortRef::Number(80)), false, &[]).unwrap_err();
    assert!(error.contains("10.244.2.3"), "{error}");
}

#[test]
fn p49_it_says_whether_what_it_says_is_in_force() {
    let model = shop(&[]);
    let said = |stale| ask_of(&model, ("shop/client", "shop/near", PortRef::Number(80)), stale, &[]).unwrap();
    assert_eq!((said(false).in_force, said(true).in_force), (Some(true), Some(false)));
    assert!(said(true).lines.iter().any(|line| line.contains("differ for egress of shop/client")));
    let elsewhere = ask(&model, "192.0.2.1", "shop/far", 80);
    assert_eq!(elsewhere.in_force, None);
    assert!(elsewhere.lines.last().unwrap().contains("neither end is a pod of node n1"), "{elsewhere:?}");
    // A pod of this node, and nothing that policy is asked about.
    for to in ["127.0.0.1", "shop/client"] {
        let here = ask(&model, "shop/client", to, 80);
        assert!(here.in_force.is_none() && !here.lines.concat().contains("neither end"), "{here:?}");
    }
}

#[test]
fn p49_an_address_of_another_nodes_range_is_no_pod_that_is_known_here() {
    let model = shop(&[]);
    let said = |to| ask(&model, "shop/client", to, 80).lines.concat();
    assert!(said("10.244.2.9").contains("in the pod range of node n2"), "{}", said("10.244.2.9"));
    for other in ["10.244.2.3", "10.244.1.9", "192.0.2.1", "172.18.0.2"] {
        assert!(!said(other).contains("in the pod range of node n2"), "{other}: {}", said(other));
    }
}

#[test]
fn many_endpoints_are_summed_up() {
    let addresses: Vec<String> = (1..=40).map(|n| format!("10.244.2.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let model = model(&[pod("shop/client", 1, "10.244.1.2"), service("cart", &json!({})), slice("cart", &addresses)]);
    let said = ask(&model, "shop/client", "10.96.0.7", 80);
    assert_eq!(said.lines.iter().filter(|line| line.contains("allowed, no policy")).count(), SHOWN);
    assert!(said.lines.contains(&"and 32 more, 32 of them allowed".to_owned()), "{said:?}");
}

proptest! {
    /// A Service's verdict is that of the flows to its endpoints, each asked for by itself.
    #[test]
    fn p49_a_services_verdict_is_that_of_its_endpoints(
        behind in prop::collection::btree_set(0..4usize, 0..5),
        closed in prop::collection::vec(any::<bool>(), 4),
        ports in prop::collection::vec(prop::sample::select(vec![80, 8080, 9]), 0..3),
    ) {
        let names = ["10.244.1.11", "10.244.1.12", "10.244.2.11", "10.244.2.12"];
        let mut objects = vec![pod("shop/client", 1, "10.244.1.2"), service("cart", &json!({}))];
        for (n, address) in names.iter().enumerate() {
            objects.push(pod(&format!("shop/p{n}"), if n < 2 { 1 } else { 2 }, address));
            if closed[n] {
                objects.push(policy(&format!("in{n}"), &format!("p{n}"), &json!({"ingress": []})));
            }
        }
        if !ports.is_empty() {
            let ports: Vec<_> = ports.iter().map(|port| json!({"port": port})).collect();
            objects.push(policy("out", "client", &json!({"policyTypes": ["Egress"], "egress": [{"ports": ports}]})));
        }
        let behind: BTreeSet<&str> = behind.into_iter().map(|n| names[n]).collect();
        objects.push(slice("cart", &behind.iter().copied().collect::<Vec<_>>()));
        let model = model(&objects);
        let each: Vec<bool> = behind.iter().map(|to| ask(&model, "shop/client", to, 8080).allow).collect();
        let expected = match (each.iter().any(|allow| *allow), each.iter().all(|allow| *allow)) {
            _ if each.is_empty() => PolicyVerdict::Refused,
            (_, true) => PolicyVerdict::Allowed,
            (true, false) => PolicyVerdict::Partly,
            (false, false) => PolicyVerdict::Dropped,
        };
        prop_assert_eq!(ask(&model, "shop/client", "10.96.0.7", 80).verdict, expected);
    }
}

#[test]
fn p74_an_explanation_says_what_policies_in_audit_mode_would_do() {
    let mut strict = policy("strict", "web", &json!({"ingress": [{"ports": [{"port": 81}]}]}));
    let pods = [pod("shop/web", 1, "10.244.1.2"), pod("shop/client", 1, "10.244.1.3")];
    let said = |strict: &Value, port: u16| {
        let model = model(&[pods[0].clone(), pods[1].clone(), strict.clone()]);
        let explained = ask_of(&model, ("shop/client", "shop/web", PortRef::Number(port)), false, &[]).unwrap();
        (explained.verdict, explained.lines.join("\n"))
    };
    assert_eq!(said(&strict, 80).0, PolicyVerdict::Dropped);
    strict["metadata"]["annotations"] = json!({"fairlead.io/mode": "audit"});
    let (verdict, lines) = said(&strict, 80);
    assert_eq!(verdict, PolicyVerdict::Allowed, "{lines}");
    assert!(lines.contains("with policies in audit mode: ") && lines.contains("shop/strict"), "{lines}");
    let (verdict, lines) = said(&strict, 81);
    assert!(verdict == PolicyVerdict::Allowed && !lines.contains("audit"), "{lines}");
}
