//! What fits.

use std::time::Duration;

use fairlead_tests::{Lab, Ping, Probe, ProbeError, Probes};

use crate::world::{Kind, kind, mtu, seen_while, server, world};

#[test]
fn pods_know_what_the_tunnel_takes() {
    let world = world();
    let node = world.lab.node("node-1");
    let pod = node.pod("net/sized").start();
    assert_eq!(mtu(&pod), 1450);
    for (to, own) in world.far.ips().into_iter().zip(pod.ips()) {
        world.lab.wait_until("the pod is known", || pod.tcp(to, 80));
        // As many fragments as the pod makes; the larger ones fill the uplink's 1500 and no more.
        let frames = seen_while(node, || drop(pod.probe(&Probe::udp(to, 53).payload(4000)).unwrap()));
        let sizes = frames.iter().filter(|frame| frame.outgoing && kind(frame) == Kind::Tunnel(0, own));
        let largest = sizes.map(|frame| frame.bytes().len()).max().expect("it goes through the tunnel");
        assert!((1500..=1514).contains(&largest), "{largest}");
    }
    pod.delete();
}

#[test]
fn aggregates_go_through_the_tunnel_as_one() {
    let world = world();
    let (node, to) = (world.lab.node("node-1"), world.far.ips());
    for to in to {
        let probe = Probe::tcp(to, 80).payload(300_000).timeout(Duration::from_secs(5));
        let frames = seen_while(node, || assert_eq!(world.one.probe(&probe).unwrap().server.got, 300_000));
        let sent = frames.iter().filter(|frame| {
            frame.outgoing && matches!(kind(frame), Kind::Tunnel(0, own) if world.one.ips().contains(&own))
        });
        let largest = sent.map(|frame| frame.bytes().len()).max().unwrap_or_default();
        assert!(largest > 10_000, "the kernel cuts it into segments behind the tunnel, not before: {largest}");
    }
}

#[test]
fn pods_that_were_there_before_a_node_elsewhere_hear_what_the_tunnel_takes() {
    let lab = Lab::builder().nodes(3).subnets(&[0, 0, 1]).checks_sources().late(1).start();
    let before = server(&lab, "node-1", "net/before");
    let beside = server(&lab, "node-2", "net/beside");
    assert_eq!(mtu(&before), 1500, "no other node needs the tunnel");
    let full = |to: std::net::IpAddr, headers: usize| before.ping(&Ping::new(to).payload(1500 - headers));
    for (to, headers) in beside.ips().into_iter().zip([28, 48]) {
        assert_eq!(full(to, headers).unwrap().from, to);
    }

    let third = lab.join("node-3").clone();
    third.serve("host/node-3", &[80], &[53]);
    let far = server(&lab, "node-3", "net/far");
    assert_eq!(mtu(&far), 1450);
    lab.wait_until("new pods get what the tunnel takes", || {
        let new = lab.node("node-1").pod("net/after").start();
        let got = mtu(&new);
        new.delete();
        if got == 1450 { Ok(()) } else { Err(got) }
    });
    for (to, headers) in far.ips().into_iter().zip([28, 48]) {
        lab.wait_until("the node is reached", || before.tcp(to, 80));
        assert_eq!(full(to, headers), Err(ProbeError::TooBig), "{to}");
        // Having heard of it, the pod sends fragments.
        assert_eq!(full(to, headers).unwrap().from, to);
        let probe = Probe::udp(to, 53).payload(1460).answer_payload(1460);
        assert_eq!(before.probe(&probe).unwrap().server.got, 1460);
    }
    // A pod that has not heard of it yet, by TCP.
    let other = lab.node("node-1").pod("net/other").start();
    other.must_run(&["ip", "link", "set", "dev", "eth0", "mtu", "1500"]);
    for to in far.ips().into_iter().chain(third.ips()) {
        let probe = Probe::tcp(to, 80).payload(200_000).answer_payload(200_000);
        assert_eq!(other.probe(&probe).unwrap().server.got, 200_000, "{to}");
    }
    // And what is beside is as it was.
    for (to, headers) in beside.ips().into_iter().zip([28, 48]) {
        assert_eq!(full(to, headers).unwrap().from, to);
    }
}
