//! hostPorts (S13).

use std::net::IpAddr;

use fairlead_tests::{Probes, Via};

use crate::world::{probes, world};

#[test]
fn s13_a_host_port_is_its_pods_from_everywhere() {
    let world = world();
    let node = world.lab.node("node-1");
    let builder = node.pod("shop/door").tcp(8080).udp(5300);
    let pod = builder.host_port(8080, 8088).host_port(5300, 8053).start();
    let to = probes(node.ips(), 8088, 8053);
    for (outside, addresses) in [
        (world.lab.client(), ["172.18.0.100", "fd00:172:18::100"]),
        (world.lab.far_client(), ["192.0.2.100", "2001:db8::100"]),
    ] {
        let seen = world.reaches(outside, &to, &[pod.key()]);
        let known = addresses.map(|text| text.parse::<IpAddr>().unwrap());
        for reply in seen {
            assert!(known.contains(&reply.server.peer.ip()), "it sees the client: {reply:?}");
            assert_eq!(reply.server.peer.port(), reply.local.port());
            assert!(node.ips().contains(&reply.peer.ip()));
        }
    }
    for via in Via::BOTH {
        world.reaches(&world.client.via(via), &to, &[pod.key()]);
        world.reaches(&world.far_client.via(via), &to, &[pod.key()]);
        world.reaches(&pod.via(via), &to, &[pod.key()]);
    }
    world.reaches(node.as_ref(), &to, &[pod.key()]);
    world.reaches(world.lab.node("node-2").as_ref(), &to, &[pod.key()]);
    let loopback = probes(["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()], 8088, 8053);
    world.reaches(node.as_ref(), &loopback, &[pod.key()]);
    // Only its node has the port, and a pod's loopback is its own.
    let elsewhere = probes(world.lab.node("node-2").ips(), 8088, 8053);
    world.refused(world.lab.client(), &elsewhere);
    world.refused(&world.client, &loopback);
    let listed = node.fairlead(&["service", "list"]).stdout;
    assert!(listed.contains("shop/pod/door") && listed.contains("0.0.0.0:8088"), "{listed}");
    let explained = node.fairlead(&["service", "explain", &format!("{}:8088", node.v4())]).stdout;
    assert!(explained.contains("hostPort") && explained.contains("with the client's address"), "{explained}");
    pod.delete();
    world.refused(world.lab.client(), &to);
}

#[test]
fn s13_host_ip_and_protocol_tell_host_ports_apart() {
    let world = world();
    let node = world.lab.node("node-1");
    let [v4, v6] = node.ips().map(|ip| ip.to_string());
    let local = node.pod("shop/local").tcp(8080).host_port_at(8080, 8090, "127.0.0.1").start();
    let here = node.pod("shop/here").tcp(8080).host_port_at(8080, 8090, &v4).host_port_at(8080, 8090, &v6).start();
    let other = node.pod("shop/other").udp(5300).host_port_at(5300, 8090, &v4).start();
    let [tcp4, udp4, tcp6, udp6] = <[_; 4]>::try_from(probes(node.ips(), 8090, 8090)).expect("four");
    world.reaches(world.lab.client(), &[tcp4.clone(), tcp6.clone()], &[here.key()]);
    world.reaches(world.lab.client(), &[udp4], &[other.key()]);
    world.refused(world.lab.client(), &[udp6]);
    let loopback = fairlead_tests::Probe::tcp(IpAddr::from([127, 0, 0, 1]), 8090);
    world.reaches(node.as_ref(), &[loopback], &[local.key()]);
    here.delete();
    world.refused(world.lab.client(), &[tcp4, tcp6]);
}
