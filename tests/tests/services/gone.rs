//! Pods that go while others talk to them.

use std::net::IpAddr;
use std::time::Duration;

use fairlead_tests::{Connection, Pod, Probe, ProbeError, Probes, Via};

use crate::world::{ips, service, world};

/// How long one exchange may take: what is sent into the time before the agent has seen that the pod is gone is sent again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections to a server and to its service, both families, at the socket and per packet.
fn connections(from: &impl Probes, who: &str, server: &Pod, service: [IpAddr; 2]) -> Vec<(String, Connection)> {
    let mut open = Vec::new();
    for via in Via::BOTH {
        for (ip, port) in server.ips().map(|ip| (ip, 8080)).into_iter().chain(service.map(|ip| (ip, 80))) {
            let mut connection = from.via(via).connect(&Probe::tcp(ip, port).timeout(PATIENCE)).unwrap();
            connection.exchange(10, 10).unwrap();
            open.push((format!("{who} to {ip} by {via:?}"), connection));
        }
    }
    open
}

#[test]
fn s60_connections_to_a_pod_that_is_gone_are_reset() {
    let world = world();
    let server = |key: &str| world.lab.node("node-1").pod(key).tcp(8080).udp(5300).start();
    let (gone, stays) = (server("shop/gone"), server("shop/stays"));
    world.lab.apply(&service("s60", 60).endpoint(&gone).yaml());
    world.lab.apply(&service("s60-stays", 61).endpoint(&stays).yaml());
    world.reaches(&ips(60), &[&gone]);
    world.reaches(&ips(61), &[&stays]);
    let far = world.lab.node("node-2").pod("shop/far-client").start();
    let all = |server: &Pod, service: [IpAddr; 2]| {
        let mut open = connections(&world.client, "its neighbour", server, service);
        open.extend(connections(&far, "a pod of another node", server, service));
        open
    };
    let lost = all(&gone, ips(60));
    let mut kept = all(&stays, ips(61));
    gone.delete();
    for (name, mut connection) in lost {
        assert_eq!(connection.exchange(10, 10), Err(ProbeError::Reset), "{name}");
    }
    for (name, connection) in &mut kept {
        connection.exchange(10, 10).unwrap_or_else(|error| panic!("{name}, whose server stays: {error}"));
    }
    far.delete();
    stays.delete();
}
