//! SCTP on a wire, between pods, to services and from outside, and what policy says of it: the rows that name it. Not every
//! kernel has SCTP, so these tests run where one surely does: `cargo xtask vm --labs` boots it.
//!
//! A guest is slow, so each test gives it time, and they share one cluster.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use fairlead_tests::{Lab, Pod, Probe, ProbeError, Probes, Reply, ServiceManifest};
use serde_json::json;

/// The port that every server has, by SCTP and by TCP.
const PORT: u16 = 30132;

/// How long something may take to be in force, or back.
const PATIENCE: Duration = Duration::from_secs(90);

struct World {
    lab: Lab,
    client: Pod,
    near: Pod,
    far: Pod,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let lab = Lab::builder().nodes(2).start();
        let server = |node: &str, key: &str| lab.node(node).pod(key).tcp(PORT).sctp(PORT).start();
        World {
            client: lab.node("node-1").pod("shop/client").start(),
            near: server("node-1", "shop/near"),
            far: server("node-2", "shop/far"),
            lab,
        }
    })
}

fn sctp(ip: IpAddr) -> Probe {
    Probe::sctp(ip, PORT).timeout(Duration::from_secs(8))
}

fn tcp(ip: IpAddr) -> Probe {
    Probe::tcp(ip, PORT).timeout(Duration::from_secs(8))
}

/// Waits until a probe is answered by this pod, and gives the answer.
#[track_caller]
fn answered(from: &impl Probes, probe: &Probe, by: &Pod) -> Reply {
    world().lab.wait_within(PATIENCE, &format!("{probe:?} is answered"), || match from.probe(probe) {
        Ok(reply) if reply.server.pod == by.key() => Ok(reply),
        other => Err(format!("{other:?}")),
    })
}

/// Waits until a probe is not.
#[track_caller]
fn unanswered(from: &impl Probes, probe: &Probe) {
    let probe = probe.clone().timeout(Duration::from_secs(3));
    world().lab.wait_within(PATIENCE, &format!("{probe:?} is not answered"), || match from.probe(&probe) {
        Err(ProbeError::TimedOut | ProbeError::NotPermitted | ProbeError::Refused) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn service(name: &str, number: u8) -> (ServiceManifest, [IpAddr; 2]) {
    let ips = [format!("10.96.60.{number}"), format!("fd00:10:96::60:{number}")].map(|ip| ip.parse().unwrap());
    (ServiceManifest::new(&format!("shop/{name}")).ips(&ips).sctp("sctp", PORT), ips)
}

#[test]
#[ignore = "needs a kernel that has SCTP: `cargo xtask vm --labs`"]
fn s2_pods_reach_each_other_by_sctp() {
    let world = world();
    for server in [&world.near, &world.far] {
        for ip in server.ips() {
            let reply = answered(&world.client, &sctp(ip).payload(8000).answer_payload(8000), server);
            assert_eq!((reply.server.got, reply.server.pad.len()), (8000, 8000), "data goes both ways in pieces");
            assert_eq!(reply.server.peer.ip(), reply.local.ip(), "the server sees the pod's own address");
        }
    }
}

#[test]
#[ignore = "needs a kernel that has SCTP: `cargo xtask vm --labs`"]
fn s2_sctp_services_are_reached_by_pods_and_the_node() {
    let world = world();
    for (number, server) in [(1, &world.near), (2, &world.far)] {
        let (service, ips) = service(&format!("sctp-{number}"), number);
        world.lab.apply(&service.endpoint(server).yaml());
        for ip in ips {
            let reply = answered(&world.client, &sctp(ip), server);
            assert_eq!(reply.peer.ip(), ip, "the client talks to the service");
            assert_eq!(reply.server.peer.ip(), reply.local.ip(), "its port and address are its own");
            // No hook of sockets sees SCTP: what the node sends takes the way of kernel sockets (S80).
            answered(&**world.lab.node("node-1"), &sctp(ip), server);
            // A port of SCTP is none of TCP.
            unanswered(&world.client, &tcp(ip));
        }
    }
}

#[test]
#[ignore = "needs a kernel that has SCTP: `cargo xtask vm --labs`"]
fn s2_sctp_node_ports_are_reached_from_outside() {
    let world = world();
    for (number, server) in [(3, &world.near), (4, &world.far)] {
        let (service, _) = service("sctp-outside", number);
        world.lab.apply(&service.endpoint(server).node_ports(&[PORT]).yaml());
        let node = world.lab.node("node-1");
        for ip in [IpAddr::from(node.v4()), IpAddr::from(node.v6())] {
            let reply = answered(world.lab.client(), &sctp(ip), server);
            assert_eq!(reply.peer.ip(), ip, "the client talks to the node");
        }
        world.lab.delete("Service", "shop/sctp-outside");
        unanswered(world.lab.client(), &sctp(node.v4().into()));
    }
}

#[test]
#[ignore = "needs a kernel that has SCTP: `cargo xtask vm --labs`"]
fn p20_rules_of_sctp_are_none_of_tcp_and_the_other_way_round() {
    let world = world();
    let database = world.lab.node("node-1").pod("base/near").tcp(PORT).sctp(PORT).start();
    let elsewhere = world.lab.node("node-2").pod("base/far").tcp(PORT).sctp(PORT).start();
    let policy = |protocol: &str| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "base", "name": "one-protocol"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"],
                "ingress": [{"ports": [{"protocol": protocol, "port": PORT}]}]},
        })
        .to_string()
    };
    for server in [&database, &elsewhere] {
        for ip in server.ips() {
            answered(&world.client, &sctp(ip), server);
        }
    }
    for (protocol, open, closed) in
        [("SCTP", sctp as fn(IpAddr) -> Probe, tcp as fn(IpAddr) -> Probe), ("TCP", tcp, sctp)]
    {
        world.lab.apply(&policy(protocol));
        for server in [&database, &elsewhere] {
            for ip in server.ips() {
                unanswered(&world.client, &closed(ip));
                answered(&world.client, &open(ip), server);
            }
        }
    }
}
