//! A host on the nodes' network that sends from addresses of others.

use std::net::IpAddr;

use fairlead_tests::frames::flags::{ACK, PSH, RST, SYN};
use fairlead_tests::frames::{Segment, Wire, datagram, segment};
use fairlead_tests::{Probe, Probes, Vantage};

use crate::world::{MARK, assert_nothing_smuggled, world};

/// Packets of a datagram flow and of a connection, from a neighbour that sends from one of their ends.
fn inject(wire: &mut Wire, from: (IpAddr, IpAddr), udp: (u16, u16), tcp: (u16, u16)) {
    let (kind, packet) = datagram(from.0, from.1, udp, MARK);
    wire.send(kind, &packet);
    for flags in [ACK | PSH, SYN, SYN | ACK, RST, RST | ACK] {
        let (kind, packet) = segment(from.0, from.1, tcp, &Segment { ack: 1, payload: MARK, ..Segment::new(flags) });
        wire.send(kind, &packet);
    }
}

#[test]
fn a_neighbour_sends_nothing_into_flows_of_one_node() {
    const PORT: u16 = 43_001;
    let lab = world();
    let node = lab.node("node-1");
    let one = node.pod("next/one").start();
    let two = node.pod("next/two").tcp(80).udp(53).start();
    let mut wire = Wire::to_uplink(lab.client(), node);
    // A pod's flow to another, and that of a process of the node.
    let openers: [(&Vantage, [IpAddr; 2]); 2] = [(one.vantage(), one.ips()), (node.vantage(), node.ips())];
    for (opener, ips) in openers {
        for (own, to) in ips.into_iter().zip(two.ips()) {
            let asks = Probe::udp(to, 53).source_port(PORT);
            opener.probe(&asks).unwrap();
            let mut open = opener.connect(&Probe::tcp(to, 80)).unwrap();
            let local = open.greeting().local.port();
            let mut seen = [one.packets("eth0"), two.packets("eth0")];
            inject(&mut wire, (own, to), (PORT, 53), (local, 80));
            inject(&mut wire, (to, own), (53, PORT), (80, local));
            for seen in &mut seen {
                assert_nothing_smuggled(seen, &format!("a neighbour that sends as {own} or {to}"));
            }
            opener.probe(&asks).unwrap();
            assert_eq!(open.exchange(20_000, 20_000).unwrap().server.pod, two.key());
        }
    }
}
