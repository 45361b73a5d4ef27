//! VLAN devices that keep their tags in the packet. Not every kernel has VLAN devices, so this runs where one surely does:
//! `cargo xtask vm --labs` boots it.
//!
//! A guest is slow, so each step gets time.

use std::net::IpAddr;
use std::time::Duration;

use fairlead_tests::{Drops, Lab, Pod, Probe, ProbeError, Probes, ServiceManifest, Vantage, Via};
use serde_json::json;

/// How long something may take to be in force, or back.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long nothing comes where nothing may.
const SILENCE: Duration = Duration::from_secs(2);

/// The VLAN whose device keeps its tags, and one that is as any.
const KEPT: u8 = 5;
const USUAL: u8 = 6;

const PORT: u16 = 9000;

/// A host's addresses in a VLAN: 1 is the node's, 2 that of who is behind its trunk.
fn at(vlan: u8, host: u8) -> [IpAddr; 2] {
    [format!("198.18.{vlan}.{host}"), format!("fd00:198:18:{vlan}::{host}")].map(|ip| ip.parse().unwrap())
}

fn cluster() -> [IpAddr; 2] {
    ["10.96.60.79", "fd00:10:96::60:79"].map(|ip| ip.parse().unwrap())
}

/// Runs `ip`, with words between spaces.
fn ip(place: &impl Probes, line: &str) {
    place.must_run(&["ip"].into_iter().chain(line.split(' ')).collect::<Vec<_>>());
}

/// Has a place be in a VLAN above one of its devices.
fn join(place: &impl Probes, above: &str, vlan: u8, more: &str, [v4, v6]: [IpAddr; 2]) {
    ip(place, &format!("link add link {above} name {above}.{vlan} type vlan id {vlan}{more}"));
    ip(place, &format!("addr add {v4}/24 dev {above}.{vlan}"));
    ip(place, &format!("addr add {v6}/64 dev {above}.{vlan} nodad"));
    ip(place, &format!("link set {above}.{vlan} up"));
}

/// Waits until each probe is answered: by this pod, which sees one of these clients.
#[track_caller]
fn answered(lab: &Lab, from: &Vantage, probes: &[Probe], server: &str, clients: &[IpAddr]) {
    for probe in probes {
        let probe = probe.clone().timeout(Duration::from_secs(5));
        lab.wait_within(PATIENCE, &format!("{probe:?} is answered by {server}"), || match from.probe(&probe) {
            Ok(reply) if reply.server.pod == server && clients.contains(&reply.server.peer.ip()) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

/// Waits until nobody answers, but perhaps to refuse, and looks again.
#[track_caller]
fn unanswered(lab: &Lab, from: &Vantage, probes: &[Probe]) {
    for probe in probes {
        let probe = probe.clone().timeout(SILENCE);
        let ask = || match from.probe(&probe) {
            Err(ProbeError::TimedOut | ProbeError::Refused) => Ok(()),
            other => Err(format!("{other:?}")),
        };
        lab.wait_within(PATIENCE, &format!("{probe:?} is not answered"), ask);
        assert_eq!(ask(), Ok(()), "{probe:?}");
    }
}

fn probes(ips: [IpAddr; 2], tcp: u16, udp: u16) -> Vec<Probe> {
    ips.into_iter().flat_map(|ip| [Probe::tcp(ip, tcp), Probe::udp(ip, udp)]).collect()
}

#[test]
#[ignore = "needs a kernel that has VLAN devices: `cargo xtask vm --labs`"]
fn s79_a_vlan_device_that_keeps_its_tags_serves_nothing_is_named_and_policy_holds_behind_it() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let pod = |key: &str| node.pod(key).label("app", "s79").tcp(8080).udp(5300).start();
    let open: Pod = pod("shop/open");
    let [of_kept, of_usual] = [KEPT, USUAL].map(|vlan| {
        let namespace = format!("only-{vlan}");
        let only = pod(&format!("{namespace}/pod"));
        let blocks = [format!("198.18.{vlan}.0/24"), format!("fd00:198:18:{vlan}::/64")];
        let from = blocks.map(|block| json!({"ipBlock": {"cidr": block}}));
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": namespace, "name": "only"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": from}]},
        });
        lab.apply(&policy.to_string());
        only
    });
    let service = ServiceManifest::new("shop/s79").ips(&cluster()).tcp("http", 80, 8080).udp("ask", 53, 5300);
    lab.apply(&service.endpoint(&open).yaml());

    // Somebody behind the node, with two VLANs on the way there.
    let guest = node.guest("trunk");
    ip(&**node, "link add trunk type veth peer name eth0 netns trunk");
    ip(&**node, "link set trunk up");
    ip(&guest, "link set eth0 up");
    for (vlan, more) in [(KEPT, " reorder_hdr off"), (USUAL, "")] {
        join(&**node, "trunk", vlan, more, at(vlan, 1));
        join(&guest, "eth0", vlan, "", at(vlan, 2));
    }
    guest.serve("guest", &[PORT], &[PORT]);
    let status = || node.fairlead(&["status"]).stdout;
    lab.wait_within(PATIENCE, "the device is named, and no other", || {
        let found = status();
        if found.contains("packets of trunk.5 have headers that Fairlead does not read") { Ok(()) } else { Err(found) }
    });
    let before = Drops::of(node).count("vlan");

    let behind = |vlan: u8| {
        for gateway in at(vlan, 1) {
            ip(&guest, &format!("route replace default via {gateway}"));
        }
    };
    let of_pod = |pod: &Pod| probes(pod.ips(), 8080, 5300);
    // Whom a Service's backend sees: a node's address, or that of the client.
    let clients = [node.ips(), at(USUAL, 1), at(USUAL, 2)].concat();
    let (packets, to_service) = (guest.via(Via::Packet), probes(cluster(), 80, 53));
    // By the usual one Services are served, and pods get the node's address there.
    behind(USUAL);
    answered(&lab, &packets, &to_service, open.key(), &clients);
    answered(&lab, &guest, &of_pod(&of_usual), of_usual.key(), &at(USUAL, 2));
    unanswered(&lab, &guest, &of_pod(&of_kept));
    answered(&lab, open.vantage(), &probes(at(USUAL, 2), PORT, PORT), "guest", &at(USUAL, 1));
    // By the other one it is the stack alone, and policy at the pods goes by who it is.
    behind(KEPT);
    answered(&lab, &guest, &of_pod(&open), open.key(), &at(KEPT, 2));
    answered(&lab, &guest, &of_pod(&of_kept), of_kept.key(), &at(KEPT, 2));
    let large: Vec<Probe> =
        of_pod(&of_kept).into_iter().map(|probe| probe.payload(4000).answer_payload(4000)).collect();
    answered(&lab, &guest, &large, of_kept.key(), &at(KEPT, 2));
    unanswered(&lab, &guest, &of_pod(&of_usual));
    unanswered(&lab, &packets, &to_service);
    // The node itself is answered there.
    answered(&lab, node.vantage(), &probes(at(KEPT, 2), PORT, PORT), "guest", &at(KEPT, 1));
    // Of all these frames the programs of the device below have dropped none for their tags.
    assert_eq!(Drops::of(node).count("vlan"), before, "{:?}", Drops::of(node).counts());
    ip(&**node, "link del trunk.5");
    lab.wait_within(PATIENCE, "it is named no more", || {
        let found = status();
        if found.contains("have headers that Fairlead does not read") { Err(found) } else { Ok(()) }
    });
    behind(USUAL);
    answered(&lab, &packets, &to_service, open.key(), &clients);
}
