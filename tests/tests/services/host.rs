//! Processes of the host, at the socket. What no hook sees is in `unseen`.

use std::time::Duration;

use fairlead_tests::{Probe, ProbeError, Probes};

use crate::world::{ips, service, world};

#[test]
fn s1_host_processes_reach_services() {
    let world = world();
    world.lab.apply(&service("host", 101).endpoints(&[&world.near, &world.far]).yaml());
    let node = world.lab.node("node-1");
    for ip in ips(101) {
        let probes = [
            (Probe::tcp(ip, 80), 80),
            (Probe::udp(ip, 53), 53),
            (Probe::udp(ip, 53).unconnected(), 53),
            (Probe::tcp(ip, 80).payload(20_000).answer_payload(20_000), 80),
        ];
        for (probe, port) in probes {
            let pods = world.lab.wait_until("a host process reaches both", || match node.spread(&probe, 30) {
                Ok(pods) if pods.len() == 2 => Ok(pods),
                other => Err(format!("{probe:?}: {other:?}")),
            });
            assert!(pods.contains_key(world.near.key()) && pods.contains_key(world.far.key()), "{pods:?}");
            let reply = node.probe(&probe).unwrap();
            assert_eq!(reply.peer, (ip, port).into(), "it talks to the service as far as it knows: {probe:?}");
            let own = if ip.is_ipv4() { node.v4().into() } else { std::net::IpAddr::from(node.v6()) };
            assert_eq!(reply.server.peer.ip(), own, "the server sees the node: {probe:?}");
        }
    }
}

#[test]
fn s33_host_processes_are_refused() {
    let world = world();
    let service = service("host-refused", 133);
    world.lab.apply(&service.yaml());
    let node = world.lab.node("node-1");
    let refused = || {
        for ip in ips(133) {
            // An unconnected socket is told too: it is refused before anything is sent.
            for probe in [Probe::tcp(ip, 80), Probe::udp(ip, 53), Probe::udp(ip, 53).unconnected()] {
                let probe = probe.timeout(Duration::from_millis(300));
                world.lab.wait_until("a host process is refused", || match node.probe(&probe) {
                    Err(ProbeError::Refused) => Ok(()),
                    other => Err(format!("{probe:?}: {other:?}")),
                });
            }
        }
    };
    refused();
    world.lab.apply(&service.clone().endpoint(&world.far).yaml());
    for ip in ips(133) {
        world.lab.wait_until("a host process reaches it", || node.tcp(ip, 80));
        world.lab.wait_until("a host process asks it", || node.probe(&Probe::udp(ip, 53).unconnected()));
    }
    world.lab.apply(&service.yaml());
    refused();
}
