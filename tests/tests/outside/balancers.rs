//! Addresses of load balancers and external ones.

use fairlead_tests::{Probes, Via};
use serde_json::json;

use crate::world::{balancer, bare, everywhere, external, probes, service, world};

#[test]
fn s8_s9_s28_a_load_balancers_address_is_the_nodes_to_answer() {
    let world = world();
    let service = service("s8", 8).balanced(&balancer(8)).spec("allocateLoadBalancerNodePorts", json!(false));
    world.lab.apply(&service.endpoints(&[&world.near, &world.far]).yaml());
    let both = [world.near.key(), world.far.key()];
    let to = probes(balancer(8), 80, 53);
    for reply in world.reaches(world.lab.client(), &to, &both) {
        assert!(world.lab.node("node-1").ips().contains(&reply.server.peer.ip()), "{reply:?}");
    }
    for via in Via::BOTH {
        for reply in world.reaches(&world.client.via(via), &to, &both) {
            assert!(world.client.ips().contains(&reply.server.peer.ip()), "a pod keeps its address: {reply:?}");
        }
    }
    world.reaches(world.lab.node("node-2").as_ref(), &to, &both);
}

#[test]
fn s8_an_address_that_a_load_balancer_keeps_is_left_to_it() {
    let world = world();
    let service = service("s8-proxy", 80).balanced_as(&balancer(80), "Proxy").balanced_as(&balancer(81), "VIP");
    world.lab.apply(&service.endpoint(&world.near).yaml());
    world.reaches(&world.client, &probes(balancer(81), 80, 53), &[world.near.key()]);
    for probe in probes(balancer(80), 80, 53) {
        world.client.probe(&probe.timeout(std::time::Duration::from_millis(200))).unwrap_err();
    }
}

#[test]
fn s10_one_port_for_both_protocols() {
    let world = world();
    let service = bare("s10", 10).tcp("t", 80, 8080).udp("u", 80, 5300).balanced(&balancer(10));
    world.lab.apply(&service.endpoint(&world.far).yaml());
    world.reaches(world.lab.client(), &probes(balancer(10), 80, 80), &[world.far.key()]);
}

#[test]
fn s11_external_addresses_are_captured() {
    let world = world();
    let service = service("s11", 11).spec("externalIPs", json!(external(11)));
    world.lab.apply(&service.endpoints(&[&world.near, &world.far]).yaml());
    let (to, both) = (probes(external(11), 80, 53), [world.near.key(), world.far.key()]);
    world.reaches(world.lab.client(), &to, &both);
    for via in Via::BOTH {
        world.reaches(&world.client.via(via), &to, &both);
    }
    world.reaches(world.lab.node("node-1").as_ref(), &to, &both);
}

#[test]
fn s12_source_ranges_hold_for_a_load_balancers_addresses_alone() {
    let world = world();
    let service = everywhere(service("s12", 12), 12, [30_012, 30_013]).endpoint(&world.near);
    let open_to = |ranges: &[&str]| {
        world.lab.apply(&service.clone().spec("loadBalancerSourceRanges", json!(ranges)).yaml());
    };
    let (to, port) = (probes(balancer(12), 80, 53), probes(world.lab.node("node-1").ips(), 30_012, 30_013));
    let near = [world.near.key()];
    open_to(&["172.18.0.100/32", "fd00:172:18::100/128"]);
    world.reaches(world.lab.client(), &to, &near);
    world.silent(world.lab.far_client(), &to);
    for via in Via::BOTH {
        world.silent(&world.client.via(via), &to);
    }
    world.reaches(world.lab.far_client(), &port, &near);
    // Who is inside is asked for its own address.
    open_to(&[" 10.244.0.0/16 ", "fd00:10:244::/48", "172.18.0.11/32", "fd00:172:18::11/128"]);
    world.silent(world.lab.client(), &to);
    for via in Via::BOTH {
        world.reaches(&world.client.via(via), &to, &near);
    }
    world.reaches(world.lab.node("node-1").as_ref(), &to, &near);
    open_to(&[]);
    world.reaches(world.lab.client(), &to, &near);
    world.reaches(world.lab.far_client(), &to, &near);
}
