//! The tunnel everywhere, nowhere, and over IPv6.

use fairlead_tests::{Lab, Ping, Probe, Probes, Via, probes};

use crate::world::{Kind, kind, mtu, seen_while, server};

#[test]
fn always_shows_no_pods_address_to_the_network() {
    let lab = Lab::builder().nodes(2).agent(&["--tunnel", "always"]).start();
    for node in lab.nodes() {
        node.serve(&format!("host/{}", node.name()), &[80], &[53]);
    }
    let (one, far) = (server(&lab, "node-1", "net/one"), server(&lab, "node-2", "net/far"));
    let node = lab.node("node-1");
    assert_eq!((mtu(&one), mtu(&far)), (1450, 1450));
    for to in far.ips().into_iter().chain(far.node().ips()) {
        lab.wait_until("the other node is reached", || one.tcp(to, 80));
    }
    let frames = seen_while(node, || {
        for to in far.ips().into_iter().chain(far.node().ips()) {
            for probe in probes(to) {
                one.probe(&probe).unwrap_or_else(|error| panic!("{probe:?}: {error}"));
            }
        }
        for to in far.ips() {
            node.probe(&Probe::tcp(to, 80)).unwrap();
        }
        for to in one.ips() {
            far.probe(&Probe::tcp(to, 80)).unwrap();
        }
    });
    let kinds: Vec<_> = frames.iter().map(kind).collect();
    let pods = |ip: &std::net::IpAddr| one.ips().contains(ip) || far.ips().contains(ip);
    assert!(kinds.contains(&Kind::Tunnel(0, one.v4().into())), "{kinds:?}");
    assert!(!kinds.iter().any(|kind| matches!(kind, Kind::From(ip) if pods(ip))), "{kinds:?}");
}

/// As while the setting is changed on one node after the other.
#[test]
fn nodes_that_do_not_agree_on_the_way_understand_each_other_if_they_are_told_to() {
    let lab = Lab::builder().nodes(2).agent(&["--tunnel", "always"]).late(1).start();
    let one = server(&lab, "node-1", "net/one");
    lab.objects().apply(&lab.node("node-2").manifest());
    let other = lab.node("node-2");
    other.launch_agent_with(&["--tunnel", "auto", "--tunnel-from", "nodes"]);
    other.agent().wait_ready();
    other.serve("host/node-2", &[80], &[53]);
    let far = server(&lab, "node-2", "net/far");
    for (from, to) in [(&one, &far), (&far, &one)] {
        for to in to.ips() {
            for via in Via::BOTH {
                lab.wait_until("it is reached", || from.via(via).tcp(to, 80));
                for probe in probes(to) {
                    from.via(via).probe(&probe).unwrap_or_else(|error| panic!("{probe:?}: {error}"));
                }
            }
        }
    }
    for to in other.ips() {
        assert_eq!(one.tcp(to, 80).unwrap().server.pod, "host/node-2");
    }
}

#[test]
fn never_leaves_it_to_the_network_to_know_pods() {
    let lab = Lab::builder().nodes(2).subnets(&[0, 1]).agent(&["--tunnel", "never"]).start();
    for (node, number) in lab.nodes().iter().zip(1..) {
        node.serve(&format!("host/{}", node.name()), &[80], &[53]);
        let [v4, v6] = node.ips().map(|ip| ip.to_string());
        lab.fabric().must_run(&["ip", "route", "add", &format!("10.244.{number}.0/24"), "via", &v4]);
        lab.fabric().must_run(&["ip", "route", "add", &format!("fd00:10:244:{number}::/64"), "via", &v6]);
        assert!(!node.run(&["ip", "link", "show", "dev", "fairlead.vxlan"]).ok());
    }
    let (one, far) = (server(&lab, "node-1", "net/one"), server(&lab, "node-2", "net/far"));
    assert_eq!(mtu(&one), 1500);
    for (to, node) in far.ips().into_iter().zip(far.node().ips()) {
        lab.wait_until("the other node's pod is reached", || one.tcp(to, 80));
        for probe in probes(to).into_iter().chain(probes(node)) {
            assert_eq!(one.probe(&probe).unwrap().server.peer.ip().is_ipv4(), to.is_ipv4());
        }
        assert_eq!(lab.node("node-1").tcp(to, 80).unwrap().server.pod, far.key());
    }
}

#[test]
fn both_families_go_over_ipv6() {
    let lab = Lab::builder().nodes(2).subnets(&[0, 1]).checks_sources().ipv6_alone().start();
    let (one, far) = (server(&lab, "node-1", "net/one"), server(&lab, "node-2", "net/far"));
    let node = lab.node("node-1");
    assert_eq!(mtu(&one), 1430);
    for (to, headers) in far.ips().into_iter().zip([28, 48]) {
        lab.wait_until("the other node's pod is reached", || one.tcp(to, 80));
        for probe in probes(to) {
            one.probe(&probe).unwrap_or_else(|error| panic!("{probe:?}: {error}"));
            // A node is known by the addresses that its object names.
            if to.is_ipv6() {
                node.probe(&probe).unwrap_or_else(|error| panic!("{probe:?}: {error}"));
            }
        }
        assert_eq!(one.ping(&Ping::new(to).payload(1430 - headers)).unwrap().from, to);
        let probe = Probe::udp(to, 53).payload(4000).answer_payload(4000);
        assert_eq!(one.probe(&probe).unwrap().server.got, 4000);
        // IPv6 wants a checksum outside.
        let frames = seen_while(node, || drop(one.probe(&Probe::tcp(to, 80).payload(100_000)).unwrap()));
        let sum = |frame| match kind(frame) {
            Kind::Tunnel(sum, _) => Some(sum),
            _ => None,
        };
        let sums: Vec<_> = frames.iter().filter_map(sum).collect();
        assert!(!sums.is_empty() && !sums.contains(&0), "{sums:?}");
    }
}
