//! Datagrams that do not fit into a packet (S47): the fragments go where the first one goes, translated or not.

use std::net::IpAddr;

use fairlead_tests::{Probe, Probes, ServiceManifest, Vantage, Via};

use crate::world::{OUTSIDE, ip, world};

const SIZES: [usize; 3] = [1600, 4000, 20_000];

#[track_caller]
fn exchanges(from: &Vantage, to: IpAddr, what: &str) {
    for size in SIZES {
        let probe = Probe::udp(to, 53).payload(size).answer_payload(size);
        let reply = from.probe(&probe).unwrap_or_else(|error| panic!("{what} {to} {size}: {error}"));
        assert_eq!((reply.server.got, reply.server.pad.len()), (size, size), "{what} {to}");
        assert_eq!(reply.peer.ip(), to);
    }
}

#[test]
fn s47_fragments_reach_pods_and_come_back() {
    let world = world();
    let node = world.lab.node("node-1");
    for server in [&world.two, &world.far] {
        for to in server.ips() {
            for via in Via::BOTH {
                exchanges(&world.one.via(via), to, "pod to pod");
            }
            exchanges(node.vantage(), to, "node to pod");
        }
    }
}

#[test]
fn s47_fragments_reach_services_and_come_back() {
    let world = world();
    let service =
        |name: &str, ips: [&str; 2]| ServiceManifest::new(&format!("net/{name}")).ips(&ips).udp("ask", 53, 53);
    let services = [
        (["10.96.60.1", "fd00:10:96::60:1"], &world.two),
        (["10.96.60.2", "fd00:10:96::60:2"], &world.far),
        // To the pod itself: both addresses are translated.
        (["10.96.60.3", "fd00:10:96::60:3"], &world.one),
    ];
    for (ips, pod) in services {
        let name = format!("large-{}", &ips[0][9..]);
        world.lab.apply(&service(&name, ips).endpoint(pod).yaml());
        for to in ips.map(ip) {
            world.lab.wait_until("the service answers", || world.one.udp(to, 53));
            for via in Via::BOTH {
                exchanges(&world.one.via(via), to, "pod to service");
            }
            let node = world.lab.node("node-1");
            world.lab.wait_until("the service answers", || node.udp(to, 53));
            exchanges(node.vantage(), to, "node to service");
        }
    }
}

#[test]
fn s47_fragments_reach_the_outside_and_come_back() {
    let world = world();
    for to in OUTSIDE.into_iter().flatten().map(ip) {
        for via in Via::BOTH {
            exchanges(&world.one.via(via), to, "pod to outside");
        }
    }
}
