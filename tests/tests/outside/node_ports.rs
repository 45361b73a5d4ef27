//! NodePorts.

use std::net::{IpAddr, SocketAddr};

use fairlead_tests::{Probe, Probes, Via};

use crate::world::{bare, host_service, probes, service, world};

#[test]
fn s4_s6_a_node_port_is_at_every_node_for_everybody() {
    let world = world();
    world.lab.apply(&service("s4", 4).node_ports(&[30_004, 30_005]).endpoints(&[&world.near, &world.far]).yaml());
    let both = [world.near.key(), world.far.key()];
    for node in world.lab.nodes() {
        let to = probes(node.ips(), 30_004, 30_005);
        for outside in [world.lab.client(), world.lab.far_client()] {
            for reply in world.reaches(outside, &to, &both) {
                assert!(node.ips().contains(&reply.server.peer.ip()), "{reply:?}");
            }
        }
        for via in Via::BOTH {
            world.reaches(&world.client.via(via), &to, &both);
        }
        world.reaches(world.lab.node("node-1").as_ref(), &to, &both);
    }
    // A long connection, and what the node itself serves beside it.
    for probe in probes(world.lab.node("node-1").ips(), 30_004, 30_005).iter().step_by(2) {
        let mut open = world.lab.client().connect(probe).unwrap();
        for size in [1000, 100_000] {
            assert_eq!(open.exchange(size, size).unwrap().server.got, size);
        }
    }
    let own = probes(world.lab.node("node-1").ips(), crate::world::HOST, crate::world::HOST);
    world.reaches(world.lab.client(), &own, &["host/node-1"]);
}

#[test]
fn s5_processes_of_the_node_reach_it_by_loopback() {
    let world = world();
    world.lab.apply(&service("s5", 5).node_ports(&[30_050, 30_051]).endpoints(&[&world.near, &world.far]).yaml());
    let to = probes(["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()], 30_050, 30_051);
    let replies = world.reaches(world.lab.node("node-1").as_ref(), &to, &[world.near.key(), world.far.key()]);
    assert!(replies.iter().all(|reply| reply.peer.ip().is_loopback()), "{replies:?}");
    world.refused(&world.client, &to);
}

#[test]
fn s7_processes_of_the_node_do_not_get_a_node_port() {
    const IN_USE: i32 = 98;
    let world = world();
    let node = world.lab.node("node-1");
    let service = service("s7", 7).node_ports(&[30_007, 30_008]);
    world.lab.apply(&service.clone().endpoint(&world.near).yaml());
    let loopbacks: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let everywhere: [IpAddr; 2] = ["0.0.0.0".parse().unwrap(), "::".parse().unwrap()];
    let addresses = [node.ips(), loopbacks, everywhere].concat();
    for (udp, port) in [(false, 30_007), (true, 30_008)] {
        for ip in &addresses {
            let at = SocketAddr::new(*ip, port);
            world.lab.wait_until(&format!("{at} is in use"), || match node.bind(udp, at) {
                Err(IN_USE) => Ok(()),
                other => Err(format!("{other:?}")),
            });
            // That number of the other protocol is nobody's, and a pod's ports are its own.
            node.bind(!udp, at).unwrap();
            if !node.ips().contains(ip) {
                world.client.bind(udp, at).unwrap();
            }
        }
    }
    // Who wants any port gets one.
    for udp in [false, true] {
        node.bind(udp, SocketAddr::new(everywhere[0], 0)).unwrap();
    }
    // A process of the node that is meant to listen there can, and is reached.
    let own = bare("s7", 7).node_ports(&[30_007]).tcp("http", 80, 30_007);
    world.lab.apply(&own.host_endpoint(node).yaml());
    world.lab.wait_until("it is free", || node.bind(false, SocketAddr::new(everywhere[1], 30_007)));
    node.serve("host/s7", &[30_007], &[]);
    let to: Vec<_> = node.ips().into_iter().map(|ip| Probe::tcp(ip, 30_007)).collect();
    world.reaches(world.lab.client(), &to, &["host/s7"]);
    // The other NodePort is gone with its service port.
    world.lab.wait_until("it is free", || node.bind(true, SocketAddr::new(everywhere[0], 30_008)));
}

#[test]
fn s45_processes_of_nodes_behind_a_node_port() {
    let world = world();
    let service = host_service("s45", 45).node_ports(&[30_045, 30_046]);
    let [one, two] = ["node-1", "node-2"].map(|name| world.lab.node(name));
    world.lab.apply(&service.host_endpoint(one).host_endpoint(two).yaml());
    for node in [one, two] {
        let to = probes(node.ips(), 30_045, 30_046);
        for outside in [world.lab.client(), world.lab.far_client()] {
            world.reaches(outside, &to, &["host/node-1", "host/node-2"]);
        }
        for via in Via::BOTH {
            world.reaches(&world.client.via(via), &to, &["host/node-1", "host/node-2"]);
        }
        world.reaches(one.as_ref(), &to, &["host/node-1", "host/node-2"]);
        // To its own process a node shows the client, to another's itself.
        let names = [("host/node-1", one), ("host/node-2", two)];
        for probe in &to {
            for _ in 0..10 {
                let reply = world.lab.client().probe(probe).unwrap();
                let own = names.iter().any(|(name, of)| *name == reply.server.pod && of.name() == node.name());
                let seen = reply.server.peer.ip();
                assert_eq!(own, !node.ips().contains(&seen), "{reply:?}");
            }
        }
        let large: Vec<_> = to.iter().map(|probe| probe.clone().payload(5000).answer_payload(5000)).collect();
        world.reaches(world.lab.client(), &large, &["host/node-1", "host/node-2"]);
    }
}
