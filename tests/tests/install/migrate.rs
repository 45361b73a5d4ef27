//! Fairlead takes over from another network, node by node, and gives back: pods of both reach one another all the while.

use std::time::Duration;

use fairlead_tests::{Lab, Load, Loading, Node, Pod, Probe, Probes, ServiceManifest};

use crate::doctor::{doctor, finds};

/// Both ways, both families.
#[track_caller]
fn reach(lab: &Lab, one: &Pod, other: &Pod) {
    for (a, b) in [(one, other), (other, one)] {
        for ip in b.ips() {
            lab.wait_until(&format!("{} reaches {} at {ip}", a.key(), b.key()), || match a.tcp(ip, 8080) {
                Ok(reply) if reply.server.pod == b.key() => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
    }
}

/// As the network that was there would set them again.
fn route(node: &Node, number: u8) {
    let commands = format!(
        "route replace 10.244.{number}.0/24 via 172.18.0.1{number}\nroute replace fd00:10:244:{number}::/64 via fd00:172:18::1{number}\n"
    );
    let ended = node.run_with(&["ip", "-batch", "-"], &[], &commands);
    assert!(ended.ok(), "{ended:?}");
    node.must_run(&["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]);
}

fn load(ip: std::net::IpAddr) -> Load {
    Load::during(Duration::from_secs(6)).short_connections(Probe::tcp(ip, 8080), 50).long_connections(
        Probe::tcp(ip, 8080),
        5,
        Duration::from_millis(50),
    )
}

#[test]
fn c51_nodes_change_one_by_one_and_back_while_pods_of_both_networks_talk() {
    let lab = Lab::builder().nodes(3).plain().start();
    let [first, second, third] = ["node-1", "node-2", "node-3"].map(|name| lab.node(name));
    let old = |node: &std::sync::Arc<Node>, name: &str| node.pod(&format!("move/{name}")).tcp(8080).start();
    let new =
        |node: &std::sync::Arc<Node>, name: &str| node.pod(&format!("move/{name}")).tcp(8080).with_plugin().start();
    // Nobody drains the third: what is between it and others has to go on through everything.
    let steady = old(third, "steady");
    let before = old(first, "old-1");
    reach(&lab, &before, &steady);
    let (_, findings, _) = doctor(first, &["--before-migration"]);
    assert!(findings.iter().all(|(severity, _)| severity == "hinders"), "{findings:?}");

    // Drained; then the agent comes.
    before.delete();
    first.start_agent();
    let moved = new(first, "new-1");
    let waiting = old(second, "old-2");
    reach(&lab, &moved, &waiting);
    reach(&lab, &moved, &steady);
    let mut loads: Vec<Loading> = steady.ips().into_iter().map(|ip| moved.begin(&load(ip))).collect();
    loads.extend(moved.ips().into_iter().map(|ip| steady.begin(&load(ip))));
    loads.iter_mut().for_each(|load| load.goes_on(50));

    // The second follows, under that load.
    waiting.delete();
    second.start_agent();
    let second_pod = new(second, "new-2");
    reach(&lab, &second_pod, &moved);
    reach(&lab, &second_pod, &steady);
    let service = ServiceManifest::new("move/web").ips(&["10.96.1.1", "fd00:10:96::1:1"]).tcp("http", 80, 8080);
    lab.apply(&service.endpoints(&[&second_pod, &steady]).yaml());
    for ip in ["10.96.1.1", "fd00:10:96::1:1"] {
        lab.wait_until("a Service has endpoints on both networks", || {
            moved.tcp(ip.parse::<std::net::IpAddr>().unwrap(), 80)
        });
    }

    // And back.
    lab.delete("Service", "move/web");
    second_pod.delete();
    second.agent().stop();
    let ended = second.fairlead(&["uninstall"]);
    assert!(ended.ok(), "{ended:?}");
    route(second, 1);
    route(second, 3);
    let back = old(second, "old-2-again");
    reach(&lab, &back, &moved);
    reach(&lab, &back, &steady);

    for report in loads.into_iter().map(Loading::end) {
        assert!(report.short.attempted >= 200 && report.long.attempted >= 100, "{report:?}");
        assert_eq!(report.failures(), 0, "{report:?}");
    }
}

/// A node that is not drained: its old pods go on with those of other nodes. With Fairlead's pods of their own node they don't.
#[test]
fn c51_pods_of_the_network_before_keep_theirs_beside_an_agent() {
    let lab = Lab::builder().nodes(2).plain().start();
    let [first, second] = ["node-1", "node-2"].map(|name| lab.node(name));
    let (old, other) = (first.pod("move/old").tcp(8080).start(), second.pod("move/other").tcp(8080).start());
    reach(&lab, &old, &other);
    first.start_agent();
    let new = first.pod("move/new").tcp(8080).with_plugin().start();
    assert_ne!(new.v4(), old.v4());
    reach(&lab, &new, &other);
    reach(&lab, &old, &other);
    let (_, findings, _) = doctor(first, &["--before-migration", "--cluster", "/dev/null"]);
    finds(&findings, "blocks", &["names no Node"]);
}
