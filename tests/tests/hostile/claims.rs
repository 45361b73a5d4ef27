//! Objects that claim addresses of others: who may write one, or runs a node, takes nobody's traffic and nobody's name.

use std::net::IpAddr;

use fairlead_tests::{Lab, Node, Pod, Probe, ProbeError, Probes, ServiceManifest, Vantage, Via};
use serde_json::{Value, json};

use crate::world::{SILENCE, outside, policy, wait_until_silent, world};

/// Namespaces and names of thieves sort before those of victims: who is first by name has nothing from it.
const THIEF: &str = "a-thief";

fn ips(texts: [&str; 2]) -> [IpAddr; 2] {
    texts.map(|text| text.parse().expect("it is an address"))
}

/// Whoever answers at an address.
fn answers(from: &Vantage, to: IpAddr, port: u16) -> Result<String, String> {
    from.tcp(to, port).map(|reply| reply.server.pod).map_err(|error| error.to_string())
}

/// A pod of the thief's node, by both ways, and a process of the node, which reaches services by the hooks alone, still
/// reach the victim.
#[track_caller]
fn keeps(pod: &Pod, to: IpAddr, port: u16, victim: &str) {
    let places = [pod.via(Via::Socket), pod.via(Via::Packet), pod.node().via(Via::Socket)];
    for (place, name) in places.iter().zip(["a pod's socket", "a pod's packets", "a process of the node"]) {
        assert_eq!(answers(place, to, port).as_deref(), Ok(victim), "{to}:{port} by {name}");
    }
}

/// Waits until the agent of a node says that an object claims something in vain, and says so to an operator too.
#[track_caller]
fn is_told(lab: &Lab, node: &Node, object: &str, what: &str) {
    lab.wait_until(&format!("{object} is told of {what}"), || {
        let status = node.fairlead(&["status"]).stdout;
        let told = status.lines().any(|line| line.starts_with(object) && line.contains(what));
        if told { Ok(()) } else { Err(status) }
    });
    let doctor = node.fairlead(&["doctor"]).stdout;
    assert!(doctor.contains("claim addresses or ports that are not theirs"), "{doctor}");
}

#[test]
fn s58_a_host_ip_that_the_node_does_not_have_takes_nobodys_traffic() {
    let lab = world();
    let (here, there) = (lab.node("node-1"), lab.node("node-2"));
    let client = here.pod("hostip/client").start();
    let dns = there.pod("hostip/dns").tcp(53).start();
    let victim = there.pod("hostip/victim").tcp(80).start();
    there.serve("hostip/node-2", &[7101], &[]);
    let cluster = ips(["10.96.71.1", "fd00:10:96::71:1"]);
    lab.apply(&ServiceManifest::new("hostip/dns").ips(&cluster).tcp("dns", 53, 53).endpoint(&dns).yaml());
    let mut claims = here.pod(&format!("{THIEF}/host-ip")).tcp(8080);
    for (family, own) in here.ips().into_iter().enumerate() {
        let at = |ip: IpAddr| ip.to_string();
        claims = claims.host_port_at(8080, 53, &at(cluster[family]));
        // A port that the Service does not have is nobody's.
        claims = claims.host_port_at(8080, 7102, &at(cluster[family]));
        claims = claims.host_port_at(8080, 80, &at(victim.ips()[family]));
        claims = claims.host_port_at(8080, 7101, &at(there.ips()[family]));
        // What is legitimate: the node's own address, and loopback.
        claims = claims.host_port_at(8080, 7103, &at(own));
    }
    let thief = claims.host_port_at(8080, 7104, "127.0.0.1").start();
    for (family, own) in here.ips().into_iter().enumerate() {
        lab.wait_until("a hostPort at the node's own address leads to the pod", || {
            match answers(client.vantage(), own, 7103) {
                Ok(pod) if pod == thief.key() => Ok(()),
                other => Err(other),
            }
        });
        // All claims of a pod are decided at once.
        keeps(&client, cluster[family], 53, dns.key());
        keeps(&client, victim.ips()[family], 80, victim.key());
        keeps(&client, there.ips()[family], 7101, "hostip/node-2");
        let silent = client.probe(&Probe::tcp(cluster[family], 7102).timeout(SILENCE));
        assert!(silent.is_err(), "{silent:?}");
    }
    assert_eq!(answers(&here.via(Via::Socket), ips(["127.0.0.1", "::1"])[0], 7104).as_deref(), Ok(thief.key()));
    is_told(lab, here, &format!("Pod {THIEF}/host-ip"), "10.96.71.1:53/TCP");
    is_told(lab, here, &format!("Pod {THIEF}/host-ip"), &there.v4().to_string());
    let explained = here.fairlead(&["service", "explain", "10.96.71.1:53"]).stdout;
    for named in ["hostip/dns", &format!("{THIEF}/host-ip")] {
        assert!(explained.contains(named), "{explained}");
    }
}

/// An address counts from when the node has it, until it has it no more.
#[test]
fn s58_a_host_ip_follows_the_addresses_that_the_node_has() {
    let lab = world();
    let here = lab.node("node-2");
    let pod = here.pod("hostip/follows").tcp(8080).host_port_at(8080, 7105, "192.168.71.1").start();
    let to: IpAddr = "192.168.71.1".parse().unwrap();
    is_told(lab, here, "Pod hostip/follows", "192.168.71.1:7105");
    here.must_run(&["ip", "addr", "add", "192.168.71.1/32", "dev", "lo"]);
    lab.wait_until("the hostPort is there with the address", || match answers(here.vantage(), to, 7105) {
        Ok(found) if found == pod.key() => Ok(()),
        other => Err(other),
    });
    here.must_run(&["ip", "addr", "del", "192.168.71.1/32", "dev", "lo"]);
    is_told(lab, here, "Pod hostip/follows", "192.168.71.1:7105");
}

/// What the control plane would say of an API server at a node.
fn api_server(node: &Node, port: u16) -> String {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default",
            "name": "kubernetes",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [node.v4()], "conditions": {"ready": true}}],
    })
    .to_string()
}

/// The manifest of a Service as the API server has it, with a time.
fn created(service: &ServiceManifest, time: &str) -> String {
    let at = format!("\"metadata\":{{\"creationTimestamp\":{},", json!(time));
    service.yaml().replacen("\"metadata\":{", &at, 1)
}

fn external(service: ServiceManifest, addresses: &[IpAddr]) -> ServiceManifest {
    service.spec("externalIPs", json!(addresses))
}

#[test]
fn s56_addresses_for_the_outside_cover_nothing_of_the_clusters() {
    const API: u16 = 7201;
    let lab = world();
    let (here, there) = (lab.node("node-1"), lab.node("node-2"));
    let client = here.pod("outside/client").start();
    let web = there.pod("outside/web").tcp(80).start();
    let victim = there.pod("outside/victim").tcp(80).start();
    there.serve("outside/node-2", &[10_250, API], &[]);
    lab.apply(&api_server(there, API));
    let cluster = ips(["10.96.71.11", "fd00:10:96::71:11"]);
    lab.apply(&ServiceManifest::new("outside/web").ips(&cluster).tcp("http", 80, 80).endpoint(&web).yaml());
    let front = ips(["10.96.71.12", "fd00:10:96::71:12"]);
    let service = ServiceManifest::new("outside/front").ips(&front).tcp("http", 80, 80).node_ports(&[30_711]);
    lab.apply(&service.endpoint(&web).yaml());
    let thief = here.pod(&format!("{THIEF}/server")).tcp(8080).start();
    let own = ips(["10.96.71.13", "fd00:10:96::71:13"]);
    for kind in ["external", "balancer"] {
        let mut claimed: Vec<IpAddr> = [cluster, there.ips(), victim.ips()].concat();
        let legitimate = if kind == "external" {
            ips(["198.51.100.71", "2001:db8:71::1"])
        } else {
            ips(["198.51.100.72", "2001:db8:71::2"])
        };
        claimed.extend(legitimate);
        let ports = [80, 10_250, API, 30_711, 7202];
        let named = ServiceManifest::new(&format!("{THIEF}/{kind}")).ips(&own);
        let service = ports.iter().fold(named, |service, port| service.tcp(&format!("p{port}"), *port, 8080));
        let service = if kind == "external" { external(service, &claimed) } else { service.balanced(&claimed) };
        lab.apply(&service.endpoint(&thief).yaml());
        for family in 0..2 {
            // What is legitimate: an address outside, and another port of a node's address, as k3s has it.
            for (to, port) in [(legitimate[family], 80), (there.ips()[family], 7202)] {
                lab.wait_until(&format!("the {kind} address {to}:{port} is served"), || {
                    match answers(client.vantage(), to, port) {
                        Ok(pod) if pod == thief.key() => Ok(()),
                        other => Err(other),
                    }
                });
            }
            keeps(&client, cluster[family], 80, web.key());
            keeps(&client, victim.ips()[family], 80, victim.key());
            keeps(&client, there.ips()[family], 10_250, "outside/node-2");
            keeps(&client, there.ips()[family], 30_711, web.key());
        }
        keeps(&client, there.v4().into(), API, "outside/node-2");
        is_told(lab, here, &format!("Service {THIEF}/{kind}"), "10.96.71.11:80/TCP");
        let explained = here.fairlead(&["service", "explain", "10.96.71.11:80"]).stdout;
        for named in ["outside/web", &format!("{THIEF}/{kind}")] {
            assert!(explained.contains(named), "{explained}");
        }
        let refused = here.fairlead(&["service", "explain", &format!("{}:10250", there.v4())]).stderr;
        assert!(refused.contains("kubelet") && refused.contains(&format!("{THIEF}/{kind}")), "{refused}");
        lab.delete("Service", &format!("{THIEF}/{kind}"));
    }
}

#[test]
fn s55_of_two_with_one_address_the_older_one_has_it() {
    let lab = world();
    let here = lab.node("node-1");
    let client = here.pod("older/client").start();
    let (first, second) =
        (here.pod("older/first").tcp(8080).start(), here.pod(&format!("{THIEF}/second")).tcp(8080).start());
    let shared = ips(["198.51.100.75", "2001:db8:71::5"]);
    let older = ServiceManifest::new("older/service").ips(&ips(["10.96.71.21", "fd00:10:96::71:21"]));
    let older = external(older.tcp("http", 80, 8080).endpoint(&first), &shared);
    let younger = ServiceManifest::new(&format!("{THIEF}/younger")).ips(&ips(["10.96.71.22", "fd00:10:96::71:22"]));
    let younger = external(younger.tcp("http", 80, 8080).endpoint(&second), &shared);
    lab.apply(&created(&younger, "2026-02-01T00:00:00Z"));
    let goes_to = |pod: &Pod| {
        for to in shared {
            lab.wait_until(&format!("{to} leads to {}", pod.key()), || match answers(client.vantage(), to, 80) {
                Ok(found) if found == pod.key() => Ok(()),
                other => Err(other),
            });
        }
    };
    goes_to(&second);
    lab.apply(&created(&older, "2026-01-01T00:00:00Z"));
    goes_to(&first);
    is_told(lab, here, &format!("Service {THIEF}/younger"), "older/service");
    let explained = here.fairlead(&["service", "explain", "198.51.100.75:80"]).stdout;
    assert!(
        explained.contains("is service older/service") && explained.contains("the older one takes precedence"),
        "{explained}"
    );
    // By kind first: a load balancer's goes before an external one, however old.
    lab.apply(&created(&younger.clone().balanced(&shared), "2026-02-01T00:00:00Z"));
    goes_to(&second);
    is_told(lab, here, "Service older/service", "that kind takes precedence");
    lab.delete("Service", &format!("{THIEF}/younger"));
    goes_to(&first);
}

/// A Pod object as a kubelet may write it.
fn pod_object(key: &str, node: &str, app: &str, ips: &[IpAddr]) -> String {
    let (namespace, name) = key.split_once('/').expect("pods are named so");
    let listed: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "uid": key, "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"name": "server"}]},
        "status": {"phase": "Running", "podIP": ips[0], "podIPs": listed},
    })
    .to_string()
}

#[test]
fn p48_a_compromised_node_takes_no_address_of_others_by_the_status_of_its_pods() {
    let lab = world();
    let (here, there) = (lab.node("node-1"), lab.node("node-2"));
    let victim = here.pod("status/victim").label("role", "status").tcp(80).start();
    let trusted = there.pod("status/trusted").label("app", "trusted").start();
    let stranger = there.pod("status/stranger").start();
    let allow = json!({"from": [{"podSelector": {"matchLabels": {"app": "trusted"}}}]});
    policy(lab, "status", "status", &json!({"policyTypes": ["Ingress"], "ingress": [allow]}));
    let enters = |who: &str, from: &Vantage| {
        for to in victim.ips() {
            lab.wait_until(&format!("{to} lets {who} in"), || from.tcp(to, 80));
        }
    };
    let is_kept_out = |from: &Vantage| {
        for to in victim.ips() {
            assert_eq!(from.probe(&Probe::tcp(to, 80).timeout(SILENCE)), Err(ProbeError::TimedOut), "{to}");
        }
    };
    enters("the trusted pod", trusted.vantage());
    wait_until_silent(lab, &stranger, &victim, 80);
    wait_until_silent(lab, lab.client(), &victim, 80);
    // The label that opens the door, for a pod of another node and for a host outside; and none for who has it.
    let thieves = [
        ("status/a-thief", "node-1", "trusted", stranger.ips()),
        ("status/b-thief", "node-2", "trusted", outside()),
        ("status/c-thief", "node-1", "none", trusted.ips()),
    ];
    for (key, node, app, ips) in thieves {
        lab.apply(&pod_object(key, node, app, &ips));
        is_told(lab, here, &format!("Pod {key}"), &ips[0].to_string());
    }
    is_kept_out(stranger.vantage());
    is_kept_out(lab.client());
    enters("the trusted pod", trusted.vantage());
    // A node may name addresses of its own, too: those of another node's pods are not among them.
    let node = |ips: &[IpAddr]| {
        let listed: Vec<Value> = ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "compromised"},
            "spec": {"podCIDRs": ["10.244.71.0/24"]},
            "status": {"addresses": listed},
        })
        .to_string()
    };
    lab.apply(&node(&["172.18.0.71".parse().unwrap(), trusted.ips()[0], trusted.ips()[1]]));
    lab.apply(&pod_object("status/late", "late", "trusted", &["10.244.71.7".parse().unwrap()]));
    let late = || here.fairlead(&["policy", "explain", "--from", "10.244.71.7", "--to", "status/victim:80"]).stdout;
    lab.wait_until("a pod waits for its node", || {
        let status = here.fairlead(&["status"]).stdout;
        if status.contains("Node late") { Ok(()) } else { Err(status) }
    });
    assert!(late().contains("dropped"), "{}", late());
    enters("the trusted pod", trusted.vantage());
    lab.delete("Node", "compromised");
    // Its Pod comes to nothing, and to its due once its Node is there.
    lab.apply(&node(&["172.18.0.71".parse().unwrap()]).replace("compromised", "late"));
    lab.wait_until("the pod counts with its node", || if late().contains("allowed") { Ok(()) } else { Err(late()) });
    lab.delete("Node", "late");
    lab.wait_until("and does not without", || if late().contains("dropped") { Ok(()) } else { Err(late()) });
    for key in ["status/a-thief", "status/b-thief", "status/c-thief", "status/late"] {
        lab.delete("Pod", key);
    }
}

#[test]
fn s57_settings_say_which_external_addresses_and_which_pools_of_pods_there_are() {
    let lab = Lab::builder().agent(&["--external-ips=198.51.100.0/25", "--pod-ranges=10.245.0.0/16"]).start();
    let node = &lab.nodes()[0];
    let client = node.pod("set/client").start();
    let server = node.pod("set/server").label("role", "pool").tcp(8080).start();
    let service = ServiceManifest::new("set/service").ips(&["10.96.71.31"]).tcp("http", 80, 8080).endpoint(&server);
    let claimed: Vec<IpAddr> = ["198.51.100.7", "198.51.100.200", "10.245.0.9"].map(|ip| ip.parse().unwrap()).into();
    lab.apply(&external(service, &claimed).yaml());
    lab.wait_until("what is permitted is served", || answers(client.vantage(), claimed[0], 80));
    for refused in &claimed[1..] {
        let found = client.probe(&Probe::tcp(*refused, 80).timeout(SILENCE));
        assert!(found.is_err(), "{refused}: {found:?}");
    }
    is_told(&lab, node, "Service set/service", "198.51.100.200:80/TCP");
    is_told(&lab, node, "Service set/service", "10.245.0.9:80/TCP");
    // A pod of the pool counts, whatever the ranges of its node.
    let allow = json!({"from": [{"podSelector": {"matchLabels": {"app": "trusted"}}}]});
    policy(&lab, "set", "pool", &json!({"policyTypes": ["Ingress"], "ingress": [allow]}));
    let arguments = ["policy", "explain", "--from", "10.245.0.7", "--to", "set/server:8080"];
    lab.wait_until("nobody counts before that pod is there", || {
        let explained = node.fairlead(&arguments).stdout;
        if explained.contains("dropped") { Ok(()) } else { Err(explained) }
    });
    let elsewhere = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "elsewhere"},
        "spec": {"podCIDRs": ["10.244.71.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.71"}]},
    });
    lab.apply(&elsewhere.to_string());
    lab.apply(&pod_object("set/pooled", "elsewhere", "trusted", &["10.245.0.7".parse().unwrap()]));
    lab.wait_until("the pod of the pool counts", || {
        let explained = node.fairlead(&arguments).stdout;
        if explained.contains("allowed") { Ok(()) } else { Err(explained) }
    });
    let doctor = node.fairlead(&["doctor"]).stdout;
    assert!(doctor.contains("addresses of pods in 10.245.0.0/16 are not checked"), "{doctor}");
}
