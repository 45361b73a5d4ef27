//! What clients and servers see of each other, and of changes.

use std::net::IpAddr;

use fairlead_tests::{Probe, Probes, Via};

use crate::world::{ips, service, ways, world};

#[test]
fn s36_a_pod_reaches_itself() {
    let world = world();
    let node = world.lab.node("node-2");
    let own = node.pod("shop/alone").tcp(8080).udp(5300).start();
    world.lab.apply(&service("s36", 136).endpoint(&own).yaml());
    for way in ways(&own, &ips(136)) {
        let reply = world.lab.wait_until(&format!("{} reaches itself", way.name()), || way.try_it());
        assert_eq!(reply.server.pod, own.key());
        assert_eq!(reply.peer.ip(), way.ip, "{}", way.name());
        let (pod, host) = match way.ip {
            IpAddr::V4(_) => (IpAddr::from(own.v4()), IpAddr::from(node.v4())),
            IpAddr::V6(_) => (own.v6().into(), node.v6().into()),
        };
        // At the socket, which is where TCP of pods is translated, the connection never leaves the pod. Per packet it has
        // to come back through the node, so the pod sees that.
        let seen = if way.via == Via::Socket && !way.udp { pod } else { host };
        assert_eq!(reply.server.peer.ip(), seen, "{}", way.name());
        let size = if way.udp { 1000 } else { 50_000 };
        let large = way.from.probe(&way.probe.clone().payload(size).answer_payload(size)).unwrap();
        assert_eq!((large.server.got, large.server.pad.len()), (size, size), "{}", way.name());
    }
    // With others behind it too, none of the attempts is lost.
    world.lab.apply(&service("s36", 136).endpoints(&[&own, &world.near]).yaml());
    for way in ways(&own, &ips(136)) {
        world.lab.wait_until("both are reached", || match way.from.spread(&way.probe, 30) {
            Ok(spread) if spread.len() == 2 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        way.from.spread(&way.probe, 40).unwrap();
    }
}

#[test]
fn s37_servers_see_the_clients_own_address() {
    let world = world();
    // A client of its own: a port that it has used with a backend through another service would be changed (S48).
    let client = world.lab.node("node-1").pod("shop/source").start();
    world.lab.apply(&service("s37", 37).endpoints(&[&world.near, &world.far]).yaml());
    world.reaches(&ips(37), &[&world.near, &world.far]);
    for way in ways(&client, &ips(37)) {
        for _ in 0..20 {
            let reply = way.try_it().unwrap();
            assert_eq!(reply.server.peer, reply.local, "{}: neither address nor port is changed", way.name());
            assert_eq!(reply.peer.ip(), way.ip, "{}: the client talks to the service", way.name());
            assert!(client.ips().contains(&reply.local.ip()), "{}", way.name());
        }
    }
}

#[test]
fn s43_connections_outlive_their_service() {
    let world = world();
    let service = service("s43", 43).endpoints(&[&world.near, &world.far]);
    world.lab.apply(&service.yaml());
    world.reaches(&ips(43), &[&world.near, &world.far]);
    let host = world.lab.node("node-1");
    let mut open = Vec::new();
    for ip in ips(43) {
        for _ in 0..4 {
            for via in Via::BOTH {
                open.push(world.client.via(via).connect(&Probe::tcp(ip, 80)).unwrap());
            }
            open.push(host.connect(&Probe::tcp(ip, 80)).unwrap());
        }
    }
    let servers: std::collections::BTreeSet<_> = open.iter().map(|each| each.greeting().server.pod.clone()).collect();
    assert_eq!(servers.len(), 2, "connections to both: {servers:?}");
    world.lab.delete("Service", "shop/s43");
    for family in ["ipv4", "ipv6"] {
        world.lab.delete("EndpointSlice", &format!("shop/s43-{family}"));
    }
    world.nobody_answers(&ips(43));
    for each in &mut open {
        let before = each.greeting().clone();
        for size in [0, 20_000] {
            let reply = each.exchange(size, size).unwrap_or_else(|error| panic!("{error:?}: {before:?}"));
            assert_eq!(reply.server.pod, before.server.pod);
            assert_eq!(reply.peer, before.peer, "it still talks to the service's address");
        }
    }
    // Created anew, with somebody else behind it: old connections stay where they are.
    world.lab.apply(&crate::world::service("s43", 43).endpoint(&world.third).yaml());
    world.reaches(&ips(43), &[&world.third]);
    for mut each in open {
        assert_eq!(each.exchange(0, 0).unwrap().server.pod, each.greeting().server.pod);
        each.close();
    }
}
