//! One part of Fairlead beside the network of another plugin: Services alone, NetworkPolicy alone. The other network is a bridge on each
//! node, or routes to each pod.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlead_tests::{
    Builder, Connection, Lab, Node, Pod, Probe, ProbeError, Probes, Reply, ServiceManifest, Vantage, Via,
};
use serde_json::Value;

const POLICY: [&str; 2] = ["--parts", "policy"];
const PROXY: [&str; 2] = ["--parts", "proxy"];

/// The networks that pods may be on.
fn networks() -> [(&'static str, Builder); 2] {
    [("bridge", Lab::builder().bridged()), ("routes", Lab::builder().plain())]
}

fn lab(network: Builder, arguments: &[&str]) -> Lab {
    network.nodes(2).agent(arguments).start()
}

fn quick(ip: impl Into<IpAddr>, port: u16) -> Probe {
    Probe::tcp(ip, port).timeout(Duration::from_millis(300))
}

fn quick_udp(ip: impl Into<IpAddr>, port: u16) -> Probe {
    Probe::udp(ip, port).timeout(Duration::from_millis(300))
}

fn pod(node: &Arc<Node>, name: &str) -> Pod {
    node.pod(&format!("parts/{name}")).label("app", name).tcp(8080).udp(5300).start()
}

fn status(node: &Node) -> Value {
    let ended = node.fairlead(&["status", "-o", "json"]);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"))
}

/// Waits until the agent has found these pods, and gives their slots.
#[track_caller]
fn found(lab: &Lab, pods: &[&Pod]) -> Vec<u64> {
    let slot = |pod: &&Pod| {
        lab.wait_until(&format!("the interface of {} is found", pod.key()), || {
            let status = status(pod.node());
            let attached = status["pods"].as_array().into_iter().flatten().find(|seen| seen["pod"] == pod.key());
            attached.and_then(|seen| seen["slot"].as_u64()).ok_or(status)
        })
    };
    pods.iter().map(slot).collect()
}

#[track_caller]
fn reaches(lab: &Lab, what: &str, attempt: impl Fn() -> Result<Reply, ProbeError>) -> Reply {
    lab.wait_until(what, attempt)
}

#[track_caller]
fn is_cut(lab: &Lab, what: &str, attempt: impl Fn() -> Result<Reply, ProbeError>) {
    lab.wait_until(&format!("not {what}"), || match attempt() {
        Err(_) => Ok(()),
        Ok(reply) => Err(Box::new(reply)),
    });
}

/// A NetworkPolicy of the tests' namespace for the pods with a label.
fn policy(name: &str, app: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: parts, name: {name}}}, \
         spec: {{podSelector: {{matchLabels: {{app: {app}}}}}, {spec}}}}}"
    )
}

/// Both ways of a name on both families.
fn ways(to: &Pod) -> Vec<Probe> {
    to.ips().into_iter().flat_map(|ip| [quick(ip, 8080), quick_udp(ip, 5300)]).collect()
}

/// Has the client outside reach pods of the first node.
fn route_client(lab: &Lab) {
    lab.client().must_run(&["ip", "route", "add", "10.244.1.0/24", "via", "172.18.0.11"]);
    lab.client().must_run(&["ip", "route", "add", "fd00:10:244:1::/64", "via", "fd00:172:18::11"]);
}

#[test]
fn c55_policy_alone_is_enforced_on_pods_of_another_network() {
    for (network, builder) in networks() {
        let lab = lab(builder, &POLICY);
        let [first, second] = ["node-1", "node-2"].map(|name| lab.node(name));
        route_client(&lab);
        // They were there before the agent, and so were their connections.
        let [near, server] = ["near", "server"].map(|name| pod(first, name));
        let far = pod(second, "far");
        let mut open: Vec<Connection> = Vec::new();
        for from in [&near, &far] {
            open.extend(server.ips().map(|ip| from.connect(&Probe::tcp(ip, 8080)).unwrap()));
        }
        for node in lab.nodes() {
            node.start_agent();
        }
        found(&lab, &[&near, &server, &far]);
        for connection in &mut open {
            connection.exchange(1000, 20_000).unwrap_or_else(|error| panic!("{network}: {error:?}"));
        }
        let everybody: [(&str, &Vantage); 3] = [
            ("a pod of this node", near.vantage()),
            ("a pod of another node", far.vantage()),
            ("a client outside", lab.client()),
        ];
        for (who, from) in everybody {
            for probe in ways(&server) {
                reaches(&lab, &format!("{network}: {who} reaches {probe:?}"), || from.probe(&probe));
            }
        }

        // Denied: for whoever comes, and for whoever is connected; but not for the node.
        lab.apply(&policy("closed", "server", "policyTypes: [Ingress]"));
        for (who, from) in everybody {
            for probe in ways(&server) {
                is_cut(&lab, &format!("{network}: {who} reaches {probe:?}"), || from.probe(&probe));
            }
        }
        for probe in ways(&server) {
            first.probe(&probe).unwrap_or_else(|error| panic!("{network}: the node reaches {probe:?}: {error:?}"));
        }
        for connection in &mut open {
            assert!(connection.exchange(10, 10).is_err(), "{network}: an open connection goes on");
        }
        drop(open);
        server.tcp(near.v4(), 8080).unwrap_or_else(|error| panic!("{network}: what it opens itself: {error:?}"));

        // One who comes later is judged as well, and so is what others open to him.
        let late = pod(first, "late");
        lab.apply(&policy("closed-too", "late", "policyTypes: [Ingress]"));
        found(&lab, &[&late]);
        for probe in ways(&late) {
            is_cut(&lab, &format!("{network}: a late pod is reached by {probe:?}"), || near.probe(&probe));
        }

        // Lifted.
        lab.delete("NetworkPolicy", "parts/closed");
        for (who, from) in everybody {
            for probe in ways(&server) {
                reaches(&lab, &format!("{network}: {who} reaches {probe:?} again"), || from.probe(&probe));
            }
        }
    }
}

#[test]
fn c55_egress_is_about_endpoints_also_where_another_proxy_serves_services() {
    for (network, builder) in networks() {
        let lab = lab(builder, &POLICY);
        let [first, second] = ["node-1", "node-2"].map(|name| lab.node(name));
        let [near, server] = ["near", "server"].map(|name| pod(first, name));
        let far = pod(second, "far");
        for node in lab.nodes() {
            node.start_agent();
        }
        found(&lab, &[&near, &server, &far]);
        let service = |name: &str, n: u8, to: &Pod| {
            let ips = [format!("10.96.1.{n}"), format!("fd00:10:96::1:{n}")];
            let service = ServiceManifest::new(&format!("parts/{name}")).ips(&ips).tcp("http", 80, 8080);
            lab.apply(&service.udp("udp", 53, 5300).endpoint(to).yaml());
            ips.map(|ip| ip.parse::<IpAddr>().unwrap())
        };
        let (of_server, of_far) = (service("server", 1, &server), service("far", 2, &far));
        for ip in of_server.into_iter().chain(of_far) {
            reaches(&lab, &format!("{network}: {ip} over TCP"), || near.probe(&quick(ip, 80)));
            reaches(&lab, &format!("{network}: {ip} over UDP"), || near.probe(&quick_udp(ip, 53)));
        }
        lab.apply(&policy(
            "egress",
            "near",
            "policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: far}}}]}]",
        ));
        for ip in of_server {
            is_cut(&lab, &format!("{network}: {ip} is reached"), || near.probe(&quick(ip, 80)));
            is_cut(&lab, &format!("{network}: {ip} is reached"), || near.probe(&quick_udp(ip, 53)));
        }
        for ip in of_far {
            reaches(&lab, &format!("{network}: {ip} over TCP"), || near.probe(&quick(ip, 80)));
            reaches(&lab, &format!("{network}: {ip} over UDP"), || near.probe(&quick_udp(ip, 53)));
        }
        for (to, open) in [(&server, false), (&far, true)] {
            for probe in ways(to) {
                match open {
                    true => drop(reaches(&lab, &format!("{network}: {probe:?}"), || near.probe(&probe))),
                    false => is_cut(&lab, &format!("{network}: {probe:?}"), || near.probe(&probe)),
                }
            }
        }
        // Nobody else's Services are touched: a process of the node has them by its own proxy, which is not there.
        assert!(first.probe(&quick(of_far[0], 80)).is_err(), "{network}");
    }
}

#[test]
fn c56_policy_outlives_its_agent_and_uninstall_leaves_the_other_network() {
    for (network, builder) in networks() {
        let lab = lab(builder, &POLICY);
        let first = lab.node("node-1");
        let [near, server] = ["near", "server"].map(|name| pod(first, name));
        let links = || first.must_run(&["ip", "-o", "link"]);
        let routes = || ["-4", "-6"].map(|family| first.must_run(&["ip", family, "route", "show", "table", "all"]));
        let (links_before, routes_before) = (links(), routes());
        first.start_agent();
        let slots = found(&lab, &[&near, &server]);
        lab.apply(&policy("closed", "server", "policyTypes: [Ingress]"));
        let probe = quick(server.v4(), 8080);
        is_cut(&lab, &format!("{network}: a pod that policy closes is reached"), || near.probe(&probe));
        first.agent().kill9();
        assert!(near.probe(&probe).is_err(), "{network}: without an agent");
        first.start_agent();
        assert!(near.probe(&probe).is_err(), "{network}: with the next");
        assert_eq!(found(&lab, &[&near, &server]), slots, "{network}: pods stay in their slots");
        // Gone, and another in its place.
        near.delete();
        let next = pod(first, "next");
        found(&lab, &[&next]);
        assert!(next.probe(&probe).is_err(), "{network}");
        lab.wait_until("the pod that is gone is forgotten", || {
            let status = status(first);
            if status["pods"].as_array().is_some_and(|pods| pods.len() == 2) { Ok(()) } else { Err(status) }
        });
        next.delete();
        first.agent().stop();
        let ended = first.fairlead(&["uninstall"]);
        assert!(ended.ok(), "{ended:?}");
        let again = pod(first, "again");
        assert!(again.probe(&probe).is_ok(), "{network}: nothing of it is left");
        again.delete();
        // But for pods, which come and go.
        let named = |text: String| -> Vec<String> {
            let names = text.lines().filter_map(|line| line.split(' ').nth(1).map(str::to_owned));
            names.filter(|name| !name.starts_with("veth") && !name.starts_with("pod")).collect()
        };
        assert_eq!(named(links()), named(links_before), "{network}");
        let lasting = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.contains("dev pod") && !line.contains("dev veth"));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(routes().map(|text| lasting(&text)), routes_before.map(|text| lasting(&text)), "{network}");
    }
}

/// Whether all three endpoints answer somebody.
#[track_caller]
fn reaches_all(lab: &Lab, network: &str, from: &Vantage, probe: &Probe) {
    lab.wait_until(&format!("{network}: {from:?} reaches all by {probe:?}"), || match from.spread(probe, 20) {
        Ok(spread) if spread.len() == 3 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn c54_services_alone_are_served_for_pods_of_another_network() {
    for (network, builder) in networks() {
        let lab = lab(builder, &PROXY);
        let [first, second] = ["node-1", "node-2"].map(|name| lab.node(name));
        let [near, server] = ["near", "server"].map(|name| pod(first, name));
        let far = pod(second, "far");
        for node in lab.nodes() {
            node.start_agent();
        }
        found(&lab, &[&near, &server, &far]);
        let vips: [IpAddr; 2] = ["10.96.1.1", "fd00:10:96::1:1"].map(|ip| ip.parse().unwrap());
        let service = ServiceManifest::new("parts/web").ips(&vips).tcp("http", 80, 8080).udp("udp", 53, 5300);
        lab.apply(&service.node_ports(&[30080, 30053]).endpoints(&[&near, &server, &far]).yaml());
        // Each endpoint, the client itself among them, from pods of both nodes, at the socket and per packet, and from a node.
        for ip in vips {
            let mut from: Vec<_> =
                [&near, &far].into_iter().flat_map(|pod| Via::BOTH.map(|via| pod.via(via))).collect();
            from.extend(Via::BOTH.map(|via| first.via(via)));
            for from in &from {
                for probe in [quick(ip, 80), quick_udp(ip, 53)] {
                    reaches_all(&lab, network, from, &probe);
                    let reply = from.probe(&probe).unwrap();
                    assert_eq!(reply.peer.ip(), ip, "{network}: it talks to the Service");
                }
            }
        }
        // NodePorts: from outside, where the node's other endpoints are elsewhere too, and from pods and nodes.
        for node in [first, second] {
            for ip in node.ips() {
                let places =
                    [lab.client().clone(), near.via(Via::Packet), far.via(Via::Socket), second.via(Via::Socket)];
                for from in &places {
                    for probe in [quick(ip, 30080), quick_udp(ip, 30053)] {
                        reaches_all(&lab, network, from, &probe);
                    }
                }
            }
        }
        let size = 30_000;
        let large = quick(vips[0], 80).payload(size).answer_payload(size);
        let reply = near.via(Via::Packet).probe(&large).unwrap_or_else(|error| panic!("{network}: {error:?}"));
        assert_eq!((reply.server.got, reply.server.pad.len()), (size, size), "{network}");

        // Affinity, and traffic policy that keeps clients' addresses.
        let sticky: IpAddr = "10.96.1.2".parse().unwrap();
        let affine = ServiceManifest::new("parts/sticky").ips(&[sticky]).tcp("http", 80, 8080).udp("udp", 53, 5300);
        let affine = affine.spec("sessionAffinity", "ClientIP".into()).node_ports(&[30081, 30054]);
        let affine = affine.spec("externalTrafficPolicy", "Local".into());
        lab.apply(&affine.endpoints(&[&near, &server, &far]).yaml());
        for via in Via::BOTH {
            for probe in [quick(sticky, 80), quick_udp(sticky, 53)] {
                let spread = lab.wait_until("the sticky Service answers", || far.via(via).spread(&probe, 20));
                assert_eq!(spread.len(), 1, "{network}: {spread:?}");
            }
        }
        let client =
            lab.client().probe(&quick(first.v4(), 30081)).unwrap_or_else(|error| panic!("{network}: {error:?}"));
        assert_eq!(client.server.peer.ip(), client.local.ip(), "{network}: the client's own address");

        // No policy is enforced, and that is said.
        lab.apply(&policy("closed", "server", "policyTypes: [Ingress]"));
        let more = ServiceManifest::new("parts/more").ips(&["10.96.1.3"]).tcp("http", 80, 8080).endpoint(&server);
        lab.apply(&more.yaml());
        reaches(&lab, "what came after the policy is in force", || {
            near.tcp("10.96.1.3".parse::<IpAddr>().unwrap(), 80)
        });
        near.tcp(server.v4(), 8080).unwrap();
        let text = first.fairlead(&["status"]).stdout;
        assert!(text.contains("NetworkPolicy is not enforced"), "{text}");
        let doctor = first.fairlead(&["doctor", "-o", "json"]).stdout;
        assert!(doctor.contains("parts: proxy") && !doctor.contains("CNI configuration"), "{doctor}");
        let files = first.run(&["ls", "/etc/cni/net.d", "/opt/cni/bin"]);
        assert!(!files.stdout.contains("fairlead"), "{files:?}");
    }
}

/// The Node is not known when an agent starts, so the interface does not count yet.
#[test]
fn c56_an_uplink_that_only_the_nodes_address_makes_one_is_served_while_an_agent_starts() {
    let lab = lab(Lab::builder().plain(), &PROXY);
    let [first, second] = ["node-1", "node-2"].map(|name| lab.node(name));
    for family in ["-4", "-6"] {
        first.run(&["ip", family, "route", "del", "default"]);
    }
    let far = pod(second, "far");
    for node in lab.nodes() {
        node.start_agent();
    }
    found(&lab, &[&far]);
    let service = ServiceManifest::new("parts/web").ips(&["10.96.1.1"]).tcp("http", 80, 8080).node_ports(&[30080]);
    lab.apply(&service.endpoint(&far).yaml());
    let probe = Probe::tcp(first.v4(), 30080).timeout(Duration::from_secs(5));
    let mut connection = lab.wait_until("a client outside connects", || lab.client().connect(&probe));
    std::thread::scope(|scope| {
        let restarts = scope.spawn(|| {
            for _ in 0..3 {
                first.agent().kill9();
                first.start_agent();
            }
        });
        while !restarts.is_finished() {
            connection.exchange(10, 10).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        restarts.join().unwrap();
    });
}

#[test]
fn c57_pods_whose_interface_cannot_be_told_are_named() {
    let lab = lab(Lab::builder().bridged(), &POLICY);
    let first = lab.node("node-1");
    let seen = pod(first, "seen");
    first.start_agent();
    // As one on macvlan, which no veth leads to.
    lab.apply(
        "{apiVersion: v1, kind: Pod, metadata: {namespace: parts, name: hidden, uid: hidden}, \
         spec: {nodeName: node-1, containers: [{name: a}]}, \
         status: {phase: Running, podIP: 10.244.1.200, podIPs: [{ip: 10.244.1.200}]}}",
    );
    found(&lab, &[&seen]);
    let text = lab.wait_until("the pod is named", || {
        let text = first.fairlead(&["status"]).stdout;
        if text.contains("parts/hidden (no veth of this node leads to its addresses") { Ok(text) } else { Err(text) }
    });
    assert!(!text.contains("parts/seen (") && text.contains("no policy is enforced on them"), "{text}");
    let (doctor, hidden) = (first.fairlead(&["doctor", "-o", "json"]).stdout, "parts/hidden");
    assert!(doctor.contains(hidden) && doctor.contains("parts: policy"), "{doctor}");
    lab.delete("Pod", "parts/hidden");
    lab.wait_until("it is not named any more", || {
        let text = first.fairlead(&["status"]).stdout;
        if text.contains(hidden) { Err(text) } else { Ok(()) }
    });
}

#[test]
fn c57_a_pod_that_hides_its_interface_stays_closed() {
    let lab = lab(Lab::builder().bridged(), &POLICY);
    let first = lab.node("node-1");
    let [near, server] = ["near", "server"].map(|name| pod(first, name));
    first.start_agent();
    let slots = found(&lab, &[&near, &server]);
    lab.apply(&policy("closed", "server", "policyTypes: [Ingress]"));
    let probe = quick(server.v4(), 8080);
    is_cut(&lab, "a pod that policy closes is reached", || near.probe(&probe));
    // So many names that the kernel's answer about the link is longer than what reads it has room for.
    let names = "link=$(ip -o -4 addr show scope global | awk '{print $2; exit}'); \
                 seq 490 | awk -v link=$link '{printf \"link property add dev %s altname n%0126d\\n\", link, $1}' | ip -batch -";
    server.vantage().must_run(&["sh", "-c", names]);
    // Longer than looks are apart.
    std::thread::sleep(Duration::from_secs(8));
    assert!(near.probe(&probe).is_err());
    assert_eq!(found(&lab, &[&near, &server]), slots);
    first.agent().kill9();
    first.start_agent();
    std::thread::sleep(Duration::from_secs(8));
    assert!(near.probe(&probe).is_err(), "with the next agent");
    assert_eq!(found(&lab, &[&near, &server]), slots, "with the next agent");
    // And others come and go as before.
    let late = pod(first, "late");
    found(&lab, &[&late]);
}

#[test]
fn c56_an_agent_that_wires_pods_itself_takes_none_of_another_network_on() {
    for (network, builder) in networks() {
        let lab = lab(builder, &POLICY);
        let first = lab.node("node-1");
        let [near, server] = ["near", "server"].map(|name| pod(first, name));
        first.start_agent();
        found(&lab, &[&near, &server]);
        lab.apply(&policy("closed", "server", "policyTypes: [Ingress]"));
        let probe = quick(server.v4(), 8080);
        is_cut(&lab, &format!("{network}: a pod that policy closes is reached"), || near.probe(&probe));
        first.agent().stop();
        // Without an uninstall: what was attached is detached, and what was noted forgotten.
        first.launch_agent_with(&[]).wait_ready();
        reaches(&lab, &format!("{network}: the pods are the other network's again"), || near.probe(&probe));
        assert_eq!(status(first)["pods"].as_array().map(Vec::len), Some(0), "{network}");
        first.agent().stop();
        first.start_agent();
        found(&lab, &[&near, &server]);
        is_cut(&lab, &format!("{network}: a pod that policy closes is reached"), || near.probe(&probe));
    }
}
