//! What clients outside are told when there is no answer, and flows that outlive what they began with.

use fairlead_tests::Probes;

use crate::world::{bare, cluster, probes, service, world};

#[test]
fn s33_no_endpoints_refuses() {
    let world = world();
    world.lab.apply(&service("s33", 33).node_ports(&[30_033, 30_034]).yaml());
    for outside in [world.lab.client(), world.lab.far_client()] {
        world.refused(outside, &probes(world.lab.node("node-1").ips(), 30_033, 30_034));
        world.refused(outside, &probes(cluster(33), 80, 53));
    }
}

#[test]
fn s46_a_closed_port_of_a_backend_refuses() {
    let world = world();
    for (number, pod) in [(46, &world.near), (47, &world.far)] {
        let closed = bare(&format!("closed-{number}"), number)
            .tcp("http", 80, 9999)
            .udp("ask", 53, 9999)
            .node_ports(&[30_000 + u16::from(number) * 2, 30_001 + u16::from(number) * 2]);
        world.lab.apply(&closed.endpoint(pod).yaml());
        let first = 30_000 + u16::from(number) * 2;
        world.refused(world.lab.client(), &probes(world.lab.node("node-1").ips(), first, first + 1));
        world.refused(world.lab.far_client(), &probes(cluster(number), 80, 53));
    }
}

#[test]
fn s40_s43_connections_outlive_their_service_and_datagrams_move() {
    let world = world();
    let service = service("s40", 40).node_ports(&[30_140, 30_141]);
    world.lab.apply(&service.clone().endpoints(&[&world.near, &world.far]).yaml());
    let to = probes(world.lab.node("node-1").ips(), 30_140, 30_141);
    let both = [world.near.key(), world.far.key()];
    world.reaches(world.lab.client(), &to, &both);
    let mut open: Vec<_> = (0..8).map(|_| world.lab.client().connect(&to[0]).unwrap()).collect();
    // One client port, so one flow.
    let asks = to[1].clone().source_port(41_040);
    let before = world.lab.client().probe(&asks).unwrap().server.pod;
    let other = if before == both[0] { &world.far } else { &world.near };
    world.lab.apply(&service.endpoint(other).yaml());
    world.reaches(world.lab.client(), &[asks], &[other.key()]);
    world.lab.delete("Service", "shop/s40");
    world.refused(world.lab.client(), &to);
    for each in &mut open {
        let before = each.greeting().server.pod.clone();
        assert_eq!(each.exchange(20_000, 20_000).unwrap().server.pod, before);
    }
}
