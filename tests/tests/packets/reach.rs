//! Who reaches whom, and as whom.

use fairlead_tests::{Ping, Probe, Probes, Via, assert_reaches, probes};

use crate::world::{OUTSIDE, ip, world};

#[test]
fn pods_reach_pods() {
    let world = world();
    for (client, server) in [(&world.one, &world.two), (&world.one, &world.far), (&world.far, &world.two)] {
        assert_reaches(client, server);
    }
}

#[test]
fn a_pod_reaches_itself() {
    let world = world();
    for to in world.one.ips() {
        for probe in probes(to) {
            assert_eq!(world.one.probe(&probe).unwrap().server.pod, world.one.key());
        }
    }
}

#[test]
fn nodes_reach_pods() {
    let world = world();
    let node = world.lab.node("node-1");
    for server in [&world.one, &world.far] {
        for (to, own) in server.ips().into_iter().zip(node.ips()) {
            for via in Via::BOTH {
                for probe in probes(to) {
                    let reply = node.via(via).probe(&probe).unwrap_or_else(|error| panic!("{probe:?}: {error}"));
                    assert_eq!(reply.server.pod, server.key());
                    assert_eq!(reply.server.peer.ip(), own, "{probe:?}");
                }
            }
            assert_eq!(node.ping(&Ping::new(to)).unwrap().from, to);
        }
    }
}

#[test]
fn pods_reach_nodes() {
    let world = world();
    for node in world.lab.nodes() {
        for to in node.ips() {
            for via in Via::BOTH {
                for probe in probes(to) {
                    let reply = world.one.via(via).probe(&probe).unwrap_or_else(|error| panic!("{probe:?}: {error}"));
                    assert_eq!(reply.server.pod, format!("host/{}", node.name()));
                    assert_eq!(reply.server.peer, reply.local, "nodes are part of the cluster: {probe:?}");
                }
            }
            assert_eq!(world.one.ping(&Ping::new(to)).unwrap().from, to);
        }
    }
}

#[test]
fn pods_reach_the_outside_as_their_node() {
    let world = world();
    for (pod, node) in [(&world.one, "node-1"), (&world.far, "node-2")] {
        for (to, own) in OUTSIDE.iter().flat_map(|pair| pair.iter().zip(world.lab.node(node).ips())) {
            let to = ip(to);
            for via in Via::BOTH {
                for probe in probes(to) {
                    let reply = pod.via(via).probe(&probe).unwrap_or_else(|error| panic!("{probe:?}: {error}"));
                    assert_eq!(reply.server.pod, "outside/server");
                    assert_eq!(reply.server.peer.ip(), own, "{probe:?}");
                    assert_eq!(reply.server.peer.port(), reply.local.port(), "the client's port is kept");
                    assert!(pod.ips().contains(&reply.local.ip()));
                }
            }
            for size in [0, 1400] {
                let echo = pod.ping(&Ping::new(to).payload(size)).unwrap();
                assert_eq!((echo.from, echo.size), (to, size));
            }
        }
    }
}

#[test]
fn connections_to_the_outside_stay() {
    let world = world();
    for to in OUTSIDE.iter().flatten() {
        let mut connection = world.two.connect(&Probe::tcp(ip(to), 80)).unwrap();
        let peer = connection.greeting().server.peer;
        for size in [0, 10_000, 0] {
            assert_eq!(connection.exchange(size, size).unwrap().server.peer, peer);
        }
        connection.close();
    }
}

#[test]
fn the_outside_reaches_pods_where_routes_lead_to_them() {
    let world = world();
    let client = world.lab.client();
    for node in world.lab.nodes() {
        let number = node.name().trim_start_matches("node-");
        let routes =
            [(format!("10.244.{number}.0/24"), node.ips()[0]), (format!("fd00:10:244:{number}::/64"), node.ips()[1])];
        for (to, via) in routes {
            client.must_run(&["ip", "route", "add", &to, "via", &via.to_string()]);
        }
    }
    for server in [&world.one, &world.far] {
        for (to, own) in server.ips().into_iter().zip(OUTSIDE[0]) {
            for probe in probes(to) {
                let reply = client.probe(&probe).unwrap_or_else(|error| panic!("{probe:?}: {error}"));
                assert_eq!((reply.server.pod.as_str(), reply.server.peer.ip()), (server.key(), ip(own)));
            }
            assert_eq!(client.ping(&Ping::new(to)).unwrap().from, to);
        }
    }
}
