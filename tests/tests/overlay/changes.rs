//! Agents end, devices are taken away, nodes join.

use std::time::Duration;

use fairlead_tests::{Lab, Load, Loading, Probe, Probes};
use serde_json::Value;

use crate::world::server;

const DEVICE: &str = "fairlead.vxlan";

#[test]
fn nothing_fails_when_agents_are_killed_and_started_under_load() {
    let lab = Lab::builder().nodes(2).subnets(&[0, 1]).checks_sources().start();
    let (one, far) = (server(&lab, "node-1", "net/one"), server(&lab, "node-2", "net/far"));
    for to in far.ips() {
        lab.wait_until("the other node is reached", || one.tcp(to, 80));
        one.udp(to, 53).unwrap();
    }
    let mut loads = far.ips().map(|ip| {
        let load = Load::during(Duration::from_secs(6))
            .short_connections(Probe::tcp(ip, 80), 50)
            .long_connections(Probe::tcp(ip, 80), 5, Duration::from_millis(100))
            .udp(Probe::udp(ip, 53), 50);
        one.begin(&load)
    });
    for node in lab.nodes() {
        loads.iter_mut().for_each(|load| load.goes_on(50));
        node.agent().kill9();
        loads.iter_mut().for_each(|load| load.goes_on(50));
        node.start_agent();
    }
    for report in loads.map(Loading::end) {
        assert!(report.short.attempted >= 200 && report.udp.attempted >= 200, "{report:?}");
        assert_eq!(report.failures(), 0, "{report:?}");
    }
}

#[test]
fn a_device_that_somebody_takes_away_or_changes_comes_back() {
    let lab = Lab::builder().nodes(2).subnets(&[0, 1]).checks_sources().start();
    let (one, far) = (server(&lab, "node-1", "net/one"), server(&lab, "node-2", "net/far"));
    let node = lab.node("node-1");
    let mut open: Vec<_> =
        far.ips().map(|to| lab.wait_until("the other node is reached", || one.connect(&Probe::tcp(to, 80)))).into();
    for harm in [
        &["ip", "link", "del", DEVICE][..],
        &["ip", "link", "set", DEVICE, "down"],
        &["ip", "link", "set", DEVICE, "address", "02:00:00:00:00:01"],
        // As systemd-networkd with `Name=*`.
        &["ip", "addr", "flush", "dev", DEVICE],
        &["sh", "-c", "ip link add bridge type bridge && ip link set fairlead.vxlan master bridge"],
    ] {
        node.must_run(harm);
        for to in far.ips() {
            lab.wait_until("pods are reached again", || one.tcp(to, 80));
            lab.wait_until("the node reaches pods again", || node.tcp(to, 80));
            lab.wait_until("pods reach the node again", || far.probe(&Probe::udp(one.ips()[0], 53)));
        }
        for connection in &mut open {
            connection.exchange(10, 10).unwrap_or_else(|error| panic!("{harm:?}: {error}"));
        }
    }
    let shown = node.must_run(&["ip", "addr", "show", "dev", DEVICE]);
    assert!(shown.contains("127.169.1.2/32") && !shown.contains("master"), "{shown}");
    // The agent goes, and somebody else has the name.
    node.agent().stop();
    node.must_run(&["ip", "link", "del", DEVICE]);
    node.must_run(&["ip", "link", "add", DEVICE, "type", "bridge"]);
    node.start_agent();
    for to in far.ips() {
        lab.wait_until("pods are reached again", || one.tcp(to, 80));
    }

    node.agent().stop();
    one.delete();
    let ended = node.fairlead(&["uninstall"]);
    assert!(ended.ok(), "{ended:?}");
    let left = node.run(&["ip", "link", "show", "dev", DEVICE]);
    assert!(!left.ok(), "{left:?}");
    for family in ["-4", "-6"] {
        let routes = node.must_run(&["ip", family, "route"]);
        assert!(!routes.contains("10.244.") && !routes.contains("fd00:10:244:"), "{routes}");
    }
}

#[test]
fn a_node_that_joins_on_another_network_is_reached_and_reaches_others() {
    let lab = Lab::builder().nodes(3).subnets(&[0, 1, 2]).checks_sources().late(1).start();
    let pods = ["node-1", "node-2"].map(|node| server(&lab, node, &format!("net/{node}")));
    for to in pods[1].ips() {
        lab.wait_until("the second is reached", || pods[0].tcp(to, 80));
    }
    let third = lab.join("node-3").clone();
    third.serve("host/node-3", &[80], &[53]);
    let new = server(&lab, "node-3", "net/new");
    for pod in &pods {
        for to in new.ips().into_iter().chain(third.ips()) {
            lab.wait_until("what is new is reached", || pod.tcp(to, 80));
        }
        for to in pod.ips() {
            assert_eq!(new.tcp(to, 80).unwrap().server.pod, pod.key());
            assert_eq!(third.tcp(to, 80).unwrap().server.pod, pod.key());
        }
    }
}

/// As when dual-stack is switched on: kubelet adds the other family's address to its Node.
#[test]
fn connections_outlive_an_address_that_a_node_loses_or_gets() {
    let lab = Lab::builder().nodes(2).start();
    let (one, far) = (server(&lab, "node-1", "net/one"), server(&lab, "node-2", "net/far"));
    let (node, other) = (lab.node("node-1"), lab.node("node-2"));
    let [v4, v6] = far.ips();
    let mut open = lab.wait_until("the other node is reached", || one.connect(&Probe::tcp(v4, 80)));
    lab.wait_until("by IPv6, too", || one.tcp(v6, 80));
    let mut goes_on = |when: &str| {
        for _ in 0..20 {
            open.exchange(10, 10).unwrap_or_else(|error| panic!("{when}: {error}"));
            std::thread::sleep(Duration::from_millis(25));
        }
    };
    goes_on("before");
    let own = other.v6().to_string();
    let single: String =
        other.manifest().lines().filter(|line| !line.contains(&own)).map(|line| format!("{line}\n")).collect();
    assert_ne!(single, other.manifest());
    for (manifest, direct) in [(single, false), (other.manifest(), true)] {
        lab.apply(&manifest);
        lab.wait_until("the change is in force", || {
            let routes = node.must_run(&["ip", "-6", "route"]);
            let is_direct = routes.contains(&format!("via {own}"));
            if is_direct == direct { Ok(()) } else { Err(routes) }
        });
        if direct {
            lab.wait_until("IPv6 reaches the node", || one.tcp(v6, 80));
        }
        goes_on(if direct { "with both addresses" } else { "with one address" });
    }
}

/// As Docker Swarm or a network plugin that was there before.
#[test]
fn c31_a_tunnel_that_can_not_be_set_up_is_said_and_comes_when_it_can() {
    let lab = Lab::builder().nodes(2).subnets(&[0, 1]).start();
    let (one, far) = (server(&lab, "node-1", "net/one"), server(&lab, "node-2", "net/far"));
    let node = lab.node("node-1");
    let not_repaired = || -> Vec<String> {
        let status: Value = serde_json::from_str(&node.fairlead(&["status", "-o", "json"]).stdout).unwrap();
        let warnings = status["warnings"].as_array().unwrap().iter();
        let broken = warnings.filter(|warning| warning["topic"] == "not repaired");
        broken.map(|warning| warning["text"].to_string()).collect()
    };
    lab.wait_until("all is well", || if not_repaired().is_empty() { Ok(()) } else { Err(not_repaired()) });
    // Whoever is faster has the port.
    let take = format!(
        "ip link add other type vxlan id 1 dstport 4789; until ip link set other up; do ip link del {DEVICE}; done"
    );
    node.must_run(&["sh", "-c", &take]);
    lab.wait_until("status says so", || match not_repaired() {
        broken if broken.iter().any(|text| text.contains("tunnel") && text.contains("vxlan-port")) => Ok(()),
        broken => Err(broken),
    });
    node.must_run(&["ip", "link", "del", "other"]);
    for to in far.ips() {
        lab.wait_until("pods are reached again", || one.tcp(to, 80));
    }
    lab.wait_until("all is well", || if not_repaired().is_empty() { Ok(()) } else { Err(not_repaired()) });
}
