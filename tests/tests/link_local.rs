//! IPv4 link-local addresses and metadata services: a resolver at one of the node's own, a metadata service behind the node,
//! and a mesh that probes as a link-local address. Rows P51 to P53.

use std::net::IpAddr;
use std::time::Duration;

use fairlead_tests::{Drops, Lab, Node, Ping, Pod, Probe, ProbeError, Probes, Via, probes};
use serde_json::json;

/// What NodeLocal DNSCache has on its dummy interface.
const NODE_LOCAL: &str = "169.254.20.10";

/// Where clouds have their metadata services.
const METADATA: [&str; 2] = ["169.254.169.254", "fd00:ec2::254"];

/// As whom a mesh in ambient mode has kubelet probe.
const PROBER: [&str; 2] = ["169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"];

/// The client outside.
const OUTSIDE: [&str; 2] = ["172.18.0.100", "fd00:172:18::100"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn run(place: &impl Probes, command: &str) {
    place.must_run(&command.split(' ').collect::<Vec<_>>());
}

/// One node, with a server at a link-local address of its own and one behind it.
fn lab() -> Lab {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    for command in ["link add nodelocaldns type bridge", "link set nodelocaldns up"] {
        run(&**node, &format!("ip {command}"));
    }
    run(&**node, &format!("ip addr add {NODE_LOCAL}/32 dev nodelocaldns"));
    for (server, by) in METADATA.into_iter().zip(OUTSIDE) {
        run(lab.client(), &format!("ip addr add {server} dev lo"));
        run(&**node, &format!("ip route add {server} via {by}"));
    }
    node.serve("host/node-1", &[80], &[53]);
    lab.client().serve("outside/metadata", &[80], &[53]);
    lab
}

/// Has what the node itself sends to a pod come from the addresses of a mesh, as its rules do it.
fn probe_as_a_mesh(node: &Node, pod: &Pod) {
    let [v4, v6] = pod.ips();
    let rules = [("ip", v4, PROBER[0]), ("ip6", v6, PROBER[1])].map(|(family, pod, prober)| {
        format!(
            "add table {family} mesh
             add chain {family} mesh out {{ type nat hook postrouting priority srcnat; }}
             add rule {family} mesh out {family} daddr {pod} snat to {prober}\n"
        )
    });
    let nft = node.run_with(&["nft", "-f", "-"], &[], &rules.concat());
    assert!(nft.ok(), "{nft:?}");
}

fn policy(lab: &Lab, name: &str, spec: &serde_json::Value) {
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": name},
        "spec": spec,
    });
    lab.apply(&policy.to_string());
}

fn fails(lab: &Lab, from: &impl Probes, to: &str, wanted: &ProbeError) {
    for probe in probes(ip(to)) {
        let probe = probe.timeout(Duration::from_millis(300));
        lab.wait_until(&format!("{probe:?} ends with {wanted:?}"), || match from.probe(&probe) {
            Err(error) if error == *wanted => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

#[test]
fn p51_p52_link_local_servers_are_reached_and_link_local_probes_answered_unless_policy_says_no() {
    let lab = lab();
    let node = lab.node("node-1");
    let pod = node.pod("shop/client").label("role", "client").start();
    let probed = node.pod("shop/probed").label("role", "probed").tcp(80).udp(53).start();
    for via in Via::BOTH {
        for probe in probes(ip(NODE_LOCAL)) {
            let reply = pod.via(via).probe(&probe).unwrap_or_else(|error| panic!("{probe:?}: {error}"));
            assert_eq!((reply.server.pod.as_str(), reply.server.peer.ip()), ("host/node-1", pod.v4().into()));
        }
        for (server, own) in METADATA.into_iter().zip(node.ips()) {
            for probe in probes(ip(server)) {
                let reply = pod.via(via).probe(&probe).unwrap_or_else(|error| panic!("{probe:?}: {error}"));
                assert_eq!((reply.server.pod.as_str(), reply.server.peer.ip()), ("outside/metadata", own));
            }
        }
    }
    for to in [NODE_LOCAL, METADATA[0], METADATA[1]].map(ip) {
        assert_eq!(pod.ping(&Ping::new(to)).unwrap().from, to);
    }

    // Policies that let nothing pass, but what the node itself sends, which comes from where nobody knows any policy for.
    let isolated = json!({"podSelector": {"matchLabels": {"role": "probed"}}, "policyTypes": ["Ingress", "Egress"]});
    policy(&lab, "isolated", &isolated);
    fails(&lab, &pod, &probed.v4().to_string(), &ProbeError::TimedOut);
    probe_as_a_mesh(node, &probed);
    for (to, prober) in probed.ips().into_iter().zip(PROBER) {
        for probe in probes(to) {
            let reply = node.probe(&probe).unwrap_or_else(|error| panic!("{probe:?}: {error}"));
            assert_eq!((reply.server.pod.as_str(), reply.server.peer.ip()), ("shop/probed", ip(prober)));
        }
        assert_eq!(node.ping(&Ping::new(to)).unwrap().from, to);
    }

    // A policy closes an address, and no other.
    let except = json!({
        "podSelector": {"matchLabels": {"role": "client"}},
        "policyTypes": ["Egress"],
        "egress": [{"to": [
            {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}},
            {"ipBlock": {"cidr": "::/0", "except": ["fd00:ec2::254/128"]}},
        ]}],
    });
    policy(&lab, "no-metadata", &except);
    for server in METADATA {
        fails(&lab, &pod, server, &ProbeError::TimedOut);
    }
    assert_eq!(pod.udp(ip(NODE_LOCAL), 53).unwrap().server.pod, "host/node-1");
}

#[test]
fn p53_metadata_services_can_be_closed_to_pods_and_are_no_endpoints() {
    let lab = lab();
    let node = lab.node("node-1");
    let pod = node.pod("shop/client").start();
    let mut before = pod.connect(&Probe::tcp(ip(METADATA[0]), 80)).unwrap();
    before.exchange(10, 10).unwrap();
    let (vips, ports) = (["10.96.77.1", "fd00:10:96::77:1"], json!([{"name": "http", "port": 80, "protocol": "TCP"}]));
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "shop", "name": "thief"},
        "spec": {"clusterIP": vips[0], "clusterIPs": vips, "ports": ports},
    });
    lab.apply(&service.to_string());
    for (server, family) in METADATA.into_iter().zip(["IPv4", "IPv6"]) {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": "shop",
                "name": format!("thief-{}", family.to_lowercase()),
                "labels": {"kubernetes.io/service-name": "thief"},
            },
            "addressType": family,
            "ports": ports,
            "endpoints": [{"addresses": [server], "conditions": {"ready": true}}],
        });
        lab.apply(&slice.to_string());
    }
    // Open or closed, no Service leads there; the node's own processes go by it as little.
    let refused = |from: &dyn Fn(&Probe) -> Result<(), ProbeError>| {
        for vip in vips {
            let probe = Probe::tcp(ip(vip), 80);
            lab.wait_until("the service has no endpoint", || match from(&probe) {
                Err(ProbeError::Refused) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
    };
    let of_pod = |probe: &Probe| pod.probe(probe).map(drop);
    let of_node = |probe: &Probe| node.probe(probe).map(drop);
    refused(&of_pod);
    refused(&of_node);
    let status = node.fairlead(&["status"]).stdout;
    assert!(status.contains("the endpoint 169.254.169.254 gets no traffic"), "{status}");

    node.agent().stop();
    node.launch_agent_with(&["--metadata-access", "closed"]).wait_ready();
    for server in METADATA {
        for via in Via::BOTH {
            fails(&lab, &pod.via(via), server, &ProbeError::Refused);
        }
        for probe in probes(ip(server)) {
            assert_eq!(node.probe(&probe).unwrap().server.pod, "outside/metadata", "the node's own processes");
        }
    }
    refused(&of_pod);
    let drops = Drops::of(node);
    assert!(drops.count("metadata") >= 4, "{:?}", drops.counts());
    let explained = node.fairlead(&["policy", "explain", "--from", "shop/client", "--to", "169.254.169.254:80"]).stdout;
    assert!(explained.contains("metadata.access"), "{explained}");
    for probe in probes(ip(NODE_LOCAL)) {
        assert_eq!(pod.probe(&probe).unwrap().server.pod, "host/node-1");
    }
    lab.wait_until("a connection from before ends", || match before.exchange(10, 10) {
        Err(error) if error != ProbeError::TimedOut => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
