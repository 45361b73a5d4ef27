//! Packets to all hosts of a network of the node.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use fairlead_tests::frames::flags::SYN;
use fairlead_tests::frames::{Segment, Wire, datagram, segment};
use fairlead_tests::{Drops, Probe, Probes, ServiceManifest};
use serde_json::json;

use crate::world::{MARK, assert_nothing_smuggled, carries, outside, smuggled, world};

/// That of the nodes' network, as the kernel has it.
const ALL: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 18, 0, 255));
/// The last address of the first node's pod range, which no pod gets.
const LAST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 1, 255));

/// A NodePort, and a port that processes of the node listen at.
const NODE_PORT: u16 = 30_982;
const HOST: u16 = 9082;

/// A process that says what comes to any address.
const HEARS: &str = r#"
import socket, sys
place = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
place.bind(("", int(sys.argv[1])))
print("listening", flush=True)
while True:
    print(place.recvfrom(2048), flush=True)
"#;

#[test]
fn p82_what_is_for_all_hosts_of_a_network_meets_no_service_and_no_pod_and_the_nodes_own_kernel_alone_takes_it() {
    let lab = world();
    let node = lab.node("node-1");
    let sender = node.pod("all/sender").start();
    let server = node.pod("all/server").udp(53).start();
    let number = 82;
    let cluster = [format!("10.96.71.{number}"), format!("fd00:10:96::71:{number}")];
    let service = ServiceManifest::new("all/service").ips(&cluster).udp("ask", 53, 53).node_ports(&[NODE_PORT]);
    lab.apply(&service.endpoint(&server).yaml());
    let client = outside()[0];
    let node_ip = IpAddr::V4(node.v4());
    lab.wait_until("the NodePort answers", || lab.client().probe(&Probe::udp(node_ip, NODE_PORT)));
    let hears = node.spawn("hears", &["python3", "-c", HEARS, &HOST.to_string()], &[]);
    let heard = |text: &str| {
        lab.wait_until(&format!("{text:?} is heard"), || match hears.log() {
            log if log.contains(text) => Ok(()),
            log => Err(log),
        });
    };
    heard("listening");

    // A pod is on no such network.
    let own = sender.ips()[0];
    let mut wire = Wire::of(&sender);
    let mut seen = [
        lab.fabric().packets("node-1"),
        server.packets("eth0"),
        lab.client().packets("eth0"),
        lab.node("node-2").packets("eth0"),
    ];
    let of_pod = |reason: &str| Drops::of(node).of_pod(sender.key()).get(reason).copied().unwrap_or_default();
    let before = of_pod("multicast");
    let mut sent = 0;
    for port in [53, NODE_PORT, HOST] {
        for (kind, packet) in [
            datagram(own, ALL, (46_001, port), MARK),
            segment(own, ALL, (46_001, port), &Segment { payload: MARK, ..Segment::new(SYN) }),
        ] {
            wire.send(kind, &packet);
            sent += 1;
        }
    }
    lab.wait_until("all are counted", || match of_pod("multicast") - before {
        count if count == sent => Ok(()),
        other => Err(other),
    });
    // Nobody has the last address of the range.
    let (kind, packet) = datagram(own, LAST, (46_001, 53), MARK);
    wire.send(kind, &packet);
    for place in &mut seen {
        let arrived = place.collect(Duration::from_millis(60), |frame| carries(frame, MARK));
        assert_eq!(arrived, [], "a pod's packets to all hosts");
    }

    // From outside it is the node's own, as it came.
    let mut wire = Wire { gateway: [0xff; 6], ..Wire::to_uplink(lab.client(), node) };
    let mut at_pods = [&server, &sender].map(|pod| pod.packets("eth0"));
    for (to, port) in [(ALL, NODE_PORT), (ALL, 53), (LAST, 53), (LAST, NODE_PORT)] {
        let (kind, packet) = datagram(client, to, (46_002, port), MARK);
        wire.send(kind, &packet);
    }
    for seen in &mut at_pods {
        assert_nothing_smuggled(seen, "packets to all hosts");
    }
    let (kind, packet) = datagram(client, ALL, (46_003, HOST), b"to all");
    wire.send(kind, &packet);
    heard("to all");
    // Addressed to the node it is served.
    let mut served = server.packets("eth0");
    let (kind, packet) = datagram(client, node_ip, (46_004, NODE_PORT), MARK);
    Wire::to_uplink(lab.client(), node).send(kind, &packet);
    assert!(served.wait_for(Duration::from_secs(10), smuggled).is_some());

    // And no Service gets it by a claim.
    let claims = ServiceManifest::new("all/claims").ips(&["10.96.71.83".to_owned(), "fd00:10:96::71:83".to_owned()]);
    let claims = claims.udp("ask", 53, 53).spec("externalIPs", json!([ALL]));
    lab.apply(&claims.endpoint(&server).yaml());
    lab.wait_until("the claim is refused by name", || match node.fairlead(&["status"]).stdout {
        status if status.contains("172.18.0.255") && status.contains("broadcast address") => Ok(()),
        status => Err(status),
    });
    let mut at_server = server.packets("eth0");
    let (kind, packet) = datagram(client, ALL, (46_005, 53), MARK);
    wire.send(kind, &packet);
    assert_nothing_smuggled(&mut at_server, "packets to what a Service claims");
}
