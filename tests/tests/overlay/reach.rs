//! Who reaches whom across networks, and as whom.

use std::time::Duration;

use fairlead_tests::{Ping, Probe, ProbeError, Probes, ServiceManifest, Via, assert_reaches, probes};

use crate::world::{Kind, ip, kind, seen_while, server, world};

#[test]
fn pods_reach_pods_of_other_networks() {
    let world = world();
    for (client, server) in [(&world.one, &world.far), (&world.far, &world.two), (&world.one, &world.two)] {
        assert_reaches(client, server);
    }
}

#[test]
fn the_tunnel_is_taken_where_it_is_needed() {
    let world = world();
    let node = world.lab.node("node-1");
    // A pod of its own: others' packets are seen too.
    let pod = node.pod("net/watched").start();
    for (own, (near, far)) in pod.ips().into_iter().zip(world.two.ips().into_iter().zip(world.far.ips())) {
        // Over IPv4 there is no checksum outside.
        let (direct, tunnelled) = (Kind::From(own), Kind::Tunnel(0, own));
        let kinds = |to| {
            let frames = seen_while(node, || drop(pod.tcp(to, 80).unwrap()));
            frames.iter().filter(|frame| frame.outgoing).map(kind).collect::<Vec<_>>()
        };
        world.lab.wait_until("the pod is known", || pod.tcp(far, 80));
        let to_near = kinds(near);
        assert!(to_near.contains(&direct) && !to_near.contains(&tunnelled), "{to_near:?}");
        let to_far = kinds(far);
        assert!(to_far.contains(&tunnelled) && !to_far.contains(&direct), "{to_far:?}");
    }
    pod.delete();
}

#[test]
fn pods_and_nodes_of_other_networks_reach_each_other() {
    let world = world();
    for (pod, node) in [(&world.one, "node-3"), (&world.far, "node-1"), (&world.far, "node-2")] {
        let node = world.lab.node(node);
        for ((own, theirs), via) in
            pod.ips().into_iter().zip(node.ips()).flat_map(|pair| Via::BOTH.map(|via| (pair, via)))
        {
            for probe in probes(theirs) {
                let reply = pod.via(via).probe(&probe).unwrap_or_else(|error| panic!("{probe:?} {via:?}: {error}"));
                assert_eq!(reply.server.pod, format!("host/{}", node.name()));
                assert_eq!(reply.server.peer.ip(), own, "the pod is seen as itself");
            }
            for probe in probes(own) {
                let reply = node.via(via).probe(&probe).unwrap_or_else(|error| panic!("{probe:?} {via:?}: {error}"));
                assert_eq!(reply.server.pod, pod.key());
                assert_eq!(reply.server.peer.ip(), theirs, "the node is seen as itself");
            }
            assert_eq!(node.ping(&Ping::new(own)).unwrap().from, own);
            assert_eq!(pod.ping(&Ping::new(theirs)).unwrap().from, theirs);
        }
    }
}

#[test]
fn services_have_endpoints_on_other_networks() {
    let world = world();
    let service = |name: &str, ips: [&str; 2]| {
        ServiceManifest::new(&format!("net/{name}")).ips(&ips).tcp("http", 80, 80).udp("ask", 53, 53)
    };
    let ips = ["10.96.70.1", "fd00:10:96::70:1"];
    world.lab.apply(&service("away", ips).endpoint(&world.far).yaml());
    for to in ips.map(ip) {
        for via in Via::BOTH {
            let client = world.one.via(via);
            world.lab.wait_until("the service answers", || client.tcp(to, 80));
            for probe in probes(to) {
                let reply = client.probe(&probe).unwrap_or_else(|error| panic!("{probe:?} {via:?}: {error}"));
                assert_eq!((reply.server.pod.as_str(), reply.peer.ip()), (world.far.key(), to));
                assert!(world.one.ips().contains(&reply.server.peer.ip()));
            }
            let node = world.lab.node("node-1");
            assert_eq!(node.tcp(to, 80).unwrap().server.pod, world.far.key());
        }
    }
}

/// The node's own process is the backend, and does not know that its answers are a service's.
#[test]
fn s45_processes_of_nodes_answer_pods_of_other_networks() {
    let world = world();
    let node = world.lab.node("node-1");
    let service = ServiceManifest::new("net/host").ips(&["10.96.70.2", "fd00:10:96::70:2"]).tcp("http", 80, 80);
    let service = service.udp("ask", 53, 53).node_ports(&[30_070, 30_071]);
    world.lab.apply(&service.host_endpoint(node).yaml());
    for to in node.ips() {
        for via in Via::BOTH {
            let client = world.far.via(via);
            world.lab.wait_until("the service answers", || client.tcp(to, 30_070));
            for probe in [Probe::tcp(to, 30_070), Probe::udp(to, 30_071)] {
                let reply = client.probe(&probe).unwrap_or_else(|error| panic!("{probe:?} {via:?}: {error}"));
                assert_eq!((reply.server.pod.as_str(), reply.peer.ip()), ("host/node-1", to));
            }
        }
    }
}

#[test]
fn fragments_go_through_the_tunnel() {
    let world = world();
    for (from, to) in [(&world.one, &world.far), (&world.far, &world.one)] {
        for (to, size) in to.ips().into_iter().flat_map(|ip| [1600, 4000, 20_000].map(|size| (ip, size))) {
            for from in [from.vantage(), from.node().vantage()] {
                let probe = Probe::udp(to, 53).payload(size).answer_payload(size);
                let reply = from.probe(&probe).unwrap_or_else(|error| panic!("{to} {size}: {error}"));
                assert_eq!((reply.server.got, reply.server.pad.len()), (size, size));
            }
        }
    }
}

#[test]
fn policy_holds_across_networks() {
    let world = world();
    let friend = world.lab.node("node-1").pod("net/friend").label("is", "friend").start();
    let guarded = world.lab.node("node-3").pod("net/guarded").label("is", "guarded").tcp(80).udp(53).start();
    world.lab.apply(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: net, name: guard}, \
         spec: {podSelector: {matchLabels: {is: guarded}}, \
         ingress: [{from: [{podSelector: {matchLabels: {is: friend}}}], ports: [{port: 80}]}]}}",
    );
    let denied = |from: &fairlead_tests::Pod, to: std::net::IpAddr, port: u16| {
        let probe = Probe::tcp(to, port).timeout(Duration::from_millis(200));
        world.lab.wait_until("policy denies", || match from.probe(&probe) {
            Err(ProbeError::TimedOut) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    for to in guarded.ips() {
        denied(&world.one, to, 80);
        denied(&world.two, to, 80);
        world.lab.wait_until("policy allows", || friend.tcp(to, 80));
        denied(&friend, to, 53);
        // P33: it is its own node that is never kept out, not another.
        assert_eq!(guarded.node().tcp(to, 80).unwrap().server.pod, guarded.key());
    }
}

#[test]
fn errors_come_back_through_the_tunnel() {
    let world = world();
    let (near, far) = (world.lab.node("node-1"), world.lab.node("node-3"));
    for family in [0, 1] {
        let to = world.far.ips()[family];
        let expired = |ttl: u32| world.one.ping(&Ping::new(to).ttl(ttl));
        assert_eq!(expired(1), Err(ProbeError::Expired(near.ips()[family])));
        assert_eq!(expired(2), Err(ProbeError::Expired(far.ips()[family])));
        assert_eq!(expired(3).unwrap().from, to);
        for via in Via::BOTH {
            let from = world.one.via(via);
            assert_eq!(from.tcp(to, 9), Err(ProbeError::Refused));
            world.lab.wait_until("UDP is refused", || match from.udp(to, 9) {
                Err(ProbeError::Refused) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
        let nobody = ip(["10.244.3.250", "fd00:10:244:3::fa"][family]);
        assert_eq!(world.one.ping(&Ping::new(nobody)), Err(ProbeError::Unreachable));
    }
}

#[test]
fn a_pod_that_is_new_is_reached_from_other_networks() {
    let world = world();
    let new = server(&world.lab, "node-3", "net/new");
    for to in new.ips() {
        world.lab.wait_until("it is reached", || world.one.tcp(to, 80));
    }
}
