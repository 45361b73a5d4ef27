//! TTL, and ICMP errors about what was sent.

use std::time::Duration;

use fairlead_tests::{Ping, Pod, Probe, ProbeError, Probes, Via};

use crate::world::{OUTSIDE, ip, world};
use fairlead_tests::frames::ends;

#[test]
fn routers_lower_the_ttl() {
    let world = world();
    // A node on the way to a pod beside it, two to one elsewhere.
    for (server, hops) in [(&world.two, 1), (&world.far, 2)] {
        for (to, own) in server.ips().into_iter().zip(world.one.ips()) {
            let mut seen = server.packets("eth0");
            world.one.probe(&Probe::udp(to, 53).ttl(40)).unwrap();
            let came = |frame: &fairlead_tests::Frame| !frame.outgoing && ends(&frame.bytes()) == Some((own, to));
            let frame = seen.wait_for(Duration::from_secs(5), came).expect("it came").bytes();
            let ttl = if to.is_ipv4() { frame[22] } else { frame[21] };
            assert_eq!(ttl, 40 - hops, "{to}");
        }
    }
}

#[test]
fn a_ttl_that_runs_out_is_told() {
    let world = world();
    let nodes = ["node-1", "node-2"].map(|name| world.lab.node(name).ips());
    let expired = |to, ttl: u32| world.one.ping(&Ping::new(to).ttl(ttl));
    for family in [0, 1] {
        let (near, far) = (world.two.ips()[family], world.far.ips()[family]);
        assert_eq!(expired(near, 1), Err(ProbeError::Expired(nodes[0][family])));
        assert_eq!(expired(near, 2).unwrap().from, near);
        assert_eq!(expired(far, 1), Err(ProbeError::Expired(nodes[0][family])));
        assert_eq!(expired(far, 2), Err(ProbeError::Expired(nodes[1][family])));
        assert_eq!(expired(far, 3).unwrap().from, far);
        // Out of the cluster: the errors of others come back through the masquerade.
        let outside = ip(OUTSIDE[1][family]);
        let first = expired(outside, 1);
        assert!(matches!(first, Err(ProbeError::Expired(_))), "{first:?}");
        let router = [ip("172.18.0.1"), ip("fd00:172:18::1")][family];
        assert_eq!(expired(outside, 2), Err(ProbeError::Expired(router)));
        assert_eq!(expired(outside, 3).unwrap().from, outside);
    }
}

#[test]
fn closed_ports_refuse() {
    let world = world();
    let outside = OUTSIDE.map(|pair| pair.map(ip));
    let targets = [world.two.ips(), world.far.ips(), world.lab.node("node-1").ips(), outside[0], outside[1]];
    for to in targets.into_iter().flatten() {
        for via in Via::BOTH {
            let from = world.one.via(via);
            assert_eq!(from.tcp(to, 9), Err(ProbeError::Refused), "TCP {to} {via:?}");
            // The kernel of the other side limits how many errors it sends.
            world.lab.wait_until(&format!("UDP {to} is refused"), || match from.udp(to, 9) {
                Err(ProbeError::Refused) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
    }
}

#[test]
fn addresses_of_no_pod_are_unreachable() {
    let world = world();
    // In the networks of the pods of both nodes: each knows all of its own.
    for to in ["10.244.1.250", "fd00:10:244:1::fa", "10.244.2.250", "fd00:10:244:2::fa"].map(ip) {
        assert_eq!(world.one.ping(&Ping::new(to)), Err(ProbeError::Unreachable), "{to}");
    }
}

#[test]
fn a_deleted_pod_is_not_reached() {
    let world = world();
    let node = world.lab.node("node-1");
    let pod = node.pod("net/leaves").tcp(80).start();
    let to = pod.ips();
    let reach = |from: &Pod| to.map(|to| from.probe(&Probe::tcp(to, 80).timeout(Duration::from_millis(300))));
    assert!(reach(&world.one).iter().all(Result::is_ok));
    pod.delete();
    assert!(reach(&world.one).iter().all(Result::is_err));
}
