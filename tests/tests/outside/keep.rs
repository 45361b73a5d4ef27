//! With which address pods leave the cluster, and from which ports: the settings `masquerade`.

use std::net::IpAddr;

use fairlead_tests::{Hold, Lab, Node, Pod, Probe, Probes, Reply, Vantage, Via};

use crate::world::{cluster, probes, service};

const TCP: u16 = 7000;
const UDP: u16 = 7001;

/// A range of ports that no pod has by itself.
const RANGE: std::ops::RangeInclusive<u16> = 30_000..=31_023;

/// Ports of a destination that a pod gets while nobody else wants any: half of the range.
const HALF: u32 = 512;

/// What answers a probe of each kind.
#[track_caller]
fn replies(lab: &Lab, from: &impl Probes, probes: &[Probe]) -> Vec<Reply> {
    let reply = |probe| lab.wait_until(&format!("{probe:?} is answered"), || from.probe(probe));
    probes.iter().map(reply).collect()
}

/// Has another agent take over, with this setting, and waits until that is in force: what is new is decided by it.
fn restart(lab: &Lab, node: &Node, setting: &str, from: &Pod, probe: &Probe, holds: impl Fn(&Reply) -> bool) {
    node.agent().kill9();
    node.launch_agent_with(&[setting]).wait_ready();
    lab.wait_until(&format!("{setting} is in force"), || match from.probe(probe) {
        Ok(reply) if holds(&reply) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn status(node: &Node) -> String {
    node.fairlead(&["status"]).stdout
}

/// A server at a link-local address behind the node, as clouds have them.
fn link_local(lab: &Lab, node: &Node) -> [Probe; 2] {
    let server = "169.254.169.254";
    lab.client().must_run(&["ip", "addr", "add", server, "dev", "lo"]);
    node.must_run(&["ip", "route", "add", server, "via", "172.18.0.100"]);
    let to: IpAddr = server.parse().unwrap();
    [Probe::tcp(to, TCP), Probe::udp(to, UDP)]
}

/// Has a network know where a pod is.
fn route(place: &Vantage, pod: &Pod, by: &Node) {
    for (pod, by) in pod.ips().iter().zip(by.ips()) {
        place.must_run(&["ip", "route", "add", &pod.to_string(), "via", &by.to_string()]);
    }
}

#[test]
fn s62_s63_s64_whose_address_and_which_ports_pods_leave_with_is_a_setting() {
    let lab = Lab::builder().nodes(2).start();
    let [node, other] = ["node-1", "node-2"].map(|name| lab.node(name));
    let pod = node.pod("shop/client").start();
    let far = other.pod("shop/far").tcp(8080).udp(5300).start();
    let near: [IpAddr; 2] = ["172.18.0.100", "fd00:172:18::100"].map(|ip| ip.parse().unwrap());
    let behind: [IpAddr; 2] = ["192.0.2.100", "2001:db8::100"].map(|ip| ip.parse().unwrap());
    for (place, name) in [(lab.client(), "near"), (lab.far_client(), "behind")] {
        place.serve(name, &[TCP], &[UDP]);
    }
    for place in [lab.client(), lab.fabric()] {
        route(place, &pod, node);
    }
    let outside = service("outside", 60).endpoint_outside(near);
    let outside = outside.yaml().replace("8080", &TCP.to_string()).replace("5300", &UDP.to_string());
    lab.apply(&outside);
    lab.apply(&service("inside", 61).node_ports(&[30_060, 30_061]).endpoint(&far).yaml());
    let all = [probes(near, TCP, UDP), probes(behind, TCP, UDP)].concat();

    let seen = |probes: &[Probe]| replies(&lab, &pod, probes).into_iter().map(|reply| (reply.server.peer, reply.local));
    assert!(status(node).contains("auto; source ports 1024-65535"), "{}", status(node));
    assert!(seen(&all).all(|(peer, _)| node.ips().contains(&peer.ip())));
    let link_local = link_local(&lab, node);

    // Never: the pod's own address and port, everywhere, by a service too.
    restart(&lab, node, "--masquerade-mode=never", &pod, &all[0], |reply| reply.server.peer == reply.local);
    assert!(status(node).contains("never: pods keep their addresses"), "{}", status(node));
    for (peer, local) in seen(&all) {
        assert_eq!(peer, local);
    }
    for via in Via::BOTH {
        for reply in replies(&lab, &pod.via(via), &probes(cluster(60), 80, 53)) {
            assert!(pod.ips().contains(&reply.server.peer.ip()), "{via:?}: {reply:?}");
        }
    }
    // But to link-local addresses, from where no network knows the way to pods.
    assert!(seen(&link_local).all(|(peer, _)| peer.ip() == node.ips()[0]));
    // Who comes from outside is no pod: its answers have to come back by this node.
    for reply in replies(&lab, lab.client(), &probes(node.ips(), 30_060, 30_061)) {
        assert!(node.ips().contains(&reply.server.peer.ip()), "{reply:?}");
    }

    // Except: there, and nowhere else.
    let except = "--masquerade-except-cidrs=172.18.0.100/32,fd00:172:18::100/128";
    let far_away = probes(behind, TCP, UDP);
    restart(&lab, node, except, &pod, &far_away[0], |reply| node.ips().contains(&reply.server.peer.ip()));
    assert!(status(node).contains("auto, except to 172.18.0.100/32, fd00:172:18::100/128"), "{}", status(node));
    for (peer, local) in seen(&probes(near, TCP, UDP)) {
        assert_eq!(peer, local);
    }
    assert!(seen(&probes(behind, TCP, UDP)).all(|(peer, _)| node.ips().contains(&peer.ip())));

    // Ports: those of the range, until a pod has its share of a destination's. Then it is said where to and who has them.
    let of_range = |reply: &Reply| RANGE.contains(&reply.server.peer.port());
    restart(&lab, node, "--masquerade-port-range=30000-31023", &pod, &all[0], of_range);
    for (peer, local) in seen(&all) {
        assert!(RANGE.contains(&peer.port()) && !RANGE.contains(&local.port()), "{peer} {local}");
    }
    let gone = node.pod("shop/gone").start();
    let _sink = lab.far_client().sink(7100);
    let held = pod.hold(&Hold { to: (behind[0], 7100).into(), count: HALF + 8 });
    let opened = held.opened();
    assert_eq!(opened.failed.values().sum::<u64>(), 8, "{opened:?}");
    // The tables are swept every 10 s, and soon when a pod goes.
    gone.delete();
    let said = format!(
        "{}:7100/TCP from {}: {HALF} of 1024 source ports in use, by pod shop/client ({HALF})",
        behind[0],
        node.v4()
    );
    lab.wait_until("it is said who holds the ports", || {
        let status = status(node);
        if status.contains(&said) { Ok(()) } else { Err(status) }
    });
}
