//! Which address a backend sees (S35). There is no `masqueradeAll`, and a client that is no pod is one that comes from
//! outside: the tables of (a) and (b) have no more cases.

use std::net::IpAddr;

use fairlead_tests::{Probe, Probes, Via};
use serde_json::json;

use crate::world::{balancer, cluster, everywhere, host_service, probes, service, world};

/// The probes of all its addresses.
fn all(number: u8, node: [IpAddr; 2], [tcp, udp]: [u16; 2]) -> Vec<Probe> {
    [probes(cluster(number), 80, 53), probes(balancer(number), 80, 53), probes(node, tcp, udp)].concat()
}

#[test]
fn s35_from_outside_the_node_is_seen_and_with_policy_local_the_client() {
    const PORTS: [u16; 2] = [30_035, 30_036];
    let world = world();
    let node = world.lab.node("node-1").ips();
    let both = everywhere(service("s35", 35), 35, PORTS);
    let server = [world.near.key()];
    world.lab.apply(&both.clone().endpoint(&world.near).yaml());
    for reply in world.reaches(world.lab.client(), &all(35, node, PORTS), &server) {
        assert!(node.contains(&reply.server.peer.ip()), "{reply:?}");
    }
    // Cluster addresses have no policy for clients outside: those are masqueraded as before.
    world.lab.apply(&both.spec("externalTrafficPolicy", json!("Local")).endpoint(&world.near).yaml());
    let open = [probes(balancer(35), 80, 53), probes(node, PORTS[0], PORTS[1])].concat();
    world.lab.wait_until("the policy is in force", || match world.lab.client().probe(&open[0]) {
        Ok(reply) if reply.server.peer == reply.local => Ok(()),
        other => Err(format!("{other:?}")),
    });
    for reply in world.reaches(world.lab.client(), &open, &server) {
        assert_eq!(reply.server.peer, reply.local, "neither address nor port is changed");
    }
    for reply in world.reaches(world.lab.client(), &probes(cluster(35), 80, 53), &server) {
        assert!(node.contains(&reply.server.peer.ip()), "{reply:?}");
    }
}

#[test]
fn s35_a_process_of_the_same_node_sees_the_client() {
    const PORTS: [u16; 2] = [30_135, 30_136];
    let world = world();
    let [one, two] = ["node-1", "node-2"].map(|name| world.lab.node(name));
    let both = everywhere(host_service("s35-host", 135), 135, PORTS);
    for (backend, name) in [(one, "host/node-1"), (two, "host/node-2")] {
        world.lab.apply(&both.clone().host_endpoint(backend).yaml());
        for reply in world.reaches(world.lab.client(), &all(135, one.ips(), PORTS), &[name]) {
            let seen = reply.server.peer.ip();
            let wanted = if name == "host/node-1" { seen == reply.local.ip() } else { one.ips().contains(&seen) };
            assert!(wanted, "{reply:?}");
        }
    }
}

#[test]
fn s35_pods_and_processes_of_the_node_keep_their_addresses() {
    const PORTS: [u16; 2] = [30_235, 30_236];
    let world = world();
    let node = world.lab.node("node-1");
    world.lab.apply(&everywhere(service("s35-inside", 235), 235, PORTS).endpoint(&world.far).yaml());
    let to = all(235, node.ips(), PORTS);
    for via in Via::BOTH {
        for reply in world.reaches(&world.client.via(via), &to, &[world.far.key()]) {
            assert!(world.client.ips().contains(&reply.server.peer.ip()), "{via:?}: {reply:?}");
        }
    }
    for reply in world.reaches(node.as_ref(), &to, &[world.far.key()]) {
        assert!(node.ips().contains(&reply.server.peer.ip()), "{reply:?}");
    }
}
