//! Cluster addresses, from outside (S17).

use crate::world::{cluster, probes, service, world};

#[test]
fn s3_a_port_that_no_service_has_is_refused_to_the_outside() {
    let world = world();
    world.lab.apply(&service("s3", 3).endpoint(&world.near).yaml());
    for outside in [world.lab.client(), world.lab.far_client()] {
        world.reaches(outside, &probes(cluster(3), 80, 53), &[world.near.key()]);
        world.refused(outside, &probes(cluster(3), 81, 54));
    }
}

#[test]
fn s17_cluster_addresses_are_open_to_the_outside_from_the_nodes_address() {
    let world = world();
    world.lab.apply(&service("s17", 17).endpoints(&[&world.near, &world.far]).yaml());
    let to = probes(cluster(17), 80, 53);
    let node = world.lab.node("node-1").ips();
    for outside in [world.lab.client(), world.lab.far_client()] {
        for reply in world.reaches(outside, &to, &[world.near.key(), world.far.key()]) {
            assert!(node.contains(&reply.server.peer.ip()), "{reply:?}");
            assert!(cluster(17).contains(&reply.peer.ip()), "{reply:?}");
        }
    }
    // A datagram that comes in fragments, and one that is answered in them; a connection that carries more.
    for probe in &to {
        let large = probe.clone().payload(6000).answer_payload(6000);
        for reply in world.reaches(world.lab.client(), &[large], &[world.near.key(), world.far.key()]) {
            assert_eq!((reply.server.got, reply.server.pad.len()), (6000, 6000));
        }
    }
}
