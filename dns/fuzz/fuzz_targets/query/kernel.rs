//! What a node's kernel says that has been told a zone: for the fuzzer, and for tests.

use fairlead_datapath::dns::{DnsFacts, DnsFlags, DnsName, DnsZone, ZoneFlags};
use fairlead_datapath::testing::{L4, Landed, Message, Node, Seen};
use fairlead_datapath::{Addr, WirePort, WireV4};
use fairlead_dns::manner::Manner;
use fairlead_dns::mirror::told;
use fairlead_dns::{WireName, Zone};
use fairlead_objects::zone::Said;

/// The pod that is the server.
const SERVER: u16 = 1;

/// A node whose kernel has been told the zone.
///
/// # Panics
/// When something can't be told.
pub(crate) fn node(zone: &Zone, manner: Manner) -> Node {
    let mut node = Node::new();
    for v6 in [false, true] {
        node.service((Node::vip(v6), 53), 17, &[(Node::pod(SERVER, v6), 53)]);
    }
    let mut origin = [0; 8];
    origin.copy_from_slice(&DnsName::of(zone.origin().as_wire()).expect("it can be told").words[..8]);
    let recursion = if manner.recursion { ZoneFlags::RECURSION } else { 0 };
    node.host.zone = DnsZone {
        until: u32::MAX,
        flags: ZoneFlags::COMPLETE | recursion,
        serial: zone.serial(),
        ttl: zone.ttl(),
        soa_ttl: zone.soa_ttl(),
        server: SERVER.into(),
        port: WirePort::new(53),
        pad: 0,
        length: zone.origin().as_wire().len() as u32,
        origin,
    };
    for (name, _) in zone.names() {
        let told = told(zone, name).expect("it can be told");
        let wire = WireName::parse(&told.name).expect("it can be told");
        assert_eq!(wire, *name, "its text says what it is");
        // What has no key is too long to be asked for there.
        let Some(key) = DnsName::of(wire.as_wire()) else { continue };
        let mut facts = DnsFacts::default();
        match told.v4 {
            Said::Nothing => {}
            Said::None => facts.flags |= DnsFlags::NO_A,
            Said::One(v4) => (facts.flags, facts.v4) = (facts.flags | DnsFlags::A, WireV4::new(v4.to_bits())),
        }
        match told.v6 {
            Said::Nothing => {}
            Said::None => facts.flags |= DnsFlags::NO_AAAA,
            Said::One(v6) => (facts.flags, facts.v6) = (facts.flags | DnsFlags::AAAA, Addr::from_bytes(v6.octets())),
        }
        node.host.names.insert(key, facts);
    }
    node
}

/// What a pod gets from the kernel, if that says anything; else the server gets the query as it was sent.
///
/// # Panics
/// When the packet becomes something else, or its checksums do not add up.
pub(crate) fn kernel_says(node: &mut Node, query: &[u8], v6: bool, partial: bool) -> Option<Vec<u8>> {
    let l4 = L4::Udp(40_000, 53);
    let sent = Message { payload: query.to_vec(), ..Message::new(Node::pod(0, v6), Node::vip(v6), l4) };
    let mut frame = sent.frame();
    if partial {
        frame = frame.with_partial_checksum();
    }
    let landed = node.pod_sends(0, &mut frame);
    let seen = Seen::of(&frame).unwrap_or_else(|error| panic!("{error}"));
    match landed {
        Landed::Answered => {
            assert_eq!((seen.src, seen.dst, seen.sport, seen.dport), (sent.dst, sent.src, 53, 40_000));
            Some(seen.payload)
        }
        Landed::Pod(SERVER) => {
            assert_eq!(seen.payload, query, "the server gets the query as it was sent");
            None
        }
        other => panic!("{other:?}"),
    }
}
