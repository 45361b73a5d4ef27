//! Resets in the name of a client that are not where its connection stands.

use std::net::SocketAddr;
use std::time::Duration;

use fairlead_tests::frames::{Segment, Wire, flags, segment};
use fairlead_tests::{Lab, Probe, Probes};

use crate::world::bare;

/// Longer than a connection is remembered that was reset: 10 s. The silence is what is tried.
const SILENCE: Duration = Duration::from_millis(11_500);

#[test]
fn s70_a_blind_reset_does_not_end_an_idle_connection() {
    const PORTS: [u16; 2] = [30_068, 30_168];
    let lab = Lab::builder().nodes(2).start();
    let node = lab.node("node-1");
    for (name, port) in ["node-1", "node-2"].into_iter().zip(PORTS) {
        let server = lab.node(name).pod(&format!("shop/{name}")).tcp(8080).start();
        let service = bare(&format!("s70-{name}"), port.to_le_bytes()[0]).tcp("http", 80, 8080).node_ports(&[port]);
        lab.apply(&service.endpoint(&server).yaml());
    }
    let mut wire = Wire::to_uplink(lab.client(), node);
    let mut open = Vec::new();
    for (port, ip) in PORTS.iter().flat_map(|port| node.ips().map(|ip| (*port, ip))) {
        let connection = lab.wait_until("it is answered", || lab.client().connect(&Probe::tcp(ip, port)));
        let (client, server) = (connection.greeting().local, connection.greeting().peer);
        blind(&mut wire, client, server);
        open.push(connection);
    }
    std::thread::sleep(SILENCE);
    for connection in &mut open {
        assert_eq!(connection.exchange(1000, 1000).unwrap().server.got, 1000);
    }
}

/// Sends resets and an end in a client's name that are far from where it stands.
fn blind(wire: &mut Wire, client: SocketAddr, server: SocketAddr) {
    let l4 = 14 + if client.is_ipv4() { 20 } else { 40 };
    let ports = [client.port(), server.port()].map(u16::to_be_bytes).concat();
    let sent = wire
        .packets
        .wait_for(Duration::from_secs(5), |frame| frame.outgoing && frame.bytes().get(l4..l4 + 4) == Some(&ports[..]));
    let sent = sent.expect("the client has sent something").bytes();
    let seq = u32::from_be_bytes(sent[l4 + 4..l4 + 8].try_into().unwrap());
    for flags in [flags::RST, flags::RST | flags::ACK, flags::FIN | flags::ACK] {
        for by in [1 << 26, 1 << 31, 3 << 30] {
            let tcp = Segment { seq: seq.wrapping_add(by), ..Segment::new(flags) };
            let (kind, packet) = segment(client.ip(), server.ip(), (client.port(), server.port()), &tcp);
            wire.send(kind, &packet);
        }
    }
}
