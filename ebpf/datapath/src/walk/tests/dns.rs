//! DNS that is answered on its way to the server of the node.

use std::string::String;
use std::vec;

use super::*;
use crate::dns::{DnsAnswer, DnsFacts, DnsFlags, DnsName, DnsZone, ZoneFlags};
use crate::policy::{self, HitKey, Hits};
use crate::{Addr, WirePort, WireV4};

const SERVER: u16 = 1;
const A: u16 = 1;
const AAAA: u16 = 28;
const TTL: [u8; 4] = [0, 0, 0, 30];

/// A name in wire format.
fn wire(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        wire.push(label.len() as u8);
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    wire
}

/// What ends a question: name, type and class.
fn question(name: &str, kind: u16) -> Vec<u8> {
    [&wire(name), &kind.to_be_bytes()[..], &[0, 1]].concat()
}

/// A query with the RD flag, and what follows its question.
fn query(name: &str, kind: u16, additional: &[u8]) -> Vec<u8> {
    let count = u8::from(!additional.is_empty());
    [&[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, count], &question(name, kind)[..], additional].concat()
}

/// An OPT record with a size and the DO flag.
const OPT: [u8; 11] = [0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0];

fn name(node: &mut Node, name: &str, v4: Option<u32>, v6: Option<&str>) {
    let flags = if v4.is_some() { DnsFlags::A } else { DnsFlags::NO_A };
    let flags = flags | if v6.is_some() { DnsFlags::AAAA } else { DnsFlags::NO_AAAA };
    let v4 = WireV4::new(v4.unwrap_or(0));
    let v6 = v6.map_or(Addr::UNSPECIFIED, |v6| crate::testing::ip(v6).into());
    node.host.names.insert(DnsName::of(&wire(name)).unwrap(), DnsFacts { flags, v4, v6, ..DnsFacts::default() });
}

/// A node whose pod 1 is the server of the zone `cluster.local`, behind a service.
fn node() -> Node {
    let mut node = Node::new();
    for v6 in [false, true] {
        node.service((Node::vip(v6), 53), UDP, &[(Node::pod(SERVER, v6), 5353)]);
    }
    let mut origin = [0; 8];
    let zone = DnsName::of(&wire("cluster.local")).unwrap();
    origin.copy_from_slice(&zone.words[..8]);
    node.host.zone = DnsZone {
        until: u32::MAX,
        flags: ZoneFlags::COMPLETE,
        serial: 0x0102_0304,
        ttl: 30,
        soa_ttl: 29,
        server: SERVER.into(),
        port: WirePort::new(5353),
        pad: 0,
        length: 15,
        origin,
    };
    name(&mut node, "web.shop.svc.cluster.local", Some(0x0a60_0001), Some("fd00:10:96::1"));
    name(&mut node, "v4.shop.svc.cluster.local", Some(0x0a60_0004), None);
    name(&mut node, "shop.svc.cluster.local", None, None);
    node
}

fn ask(v6: bool, payload: Vec<u8>) -> Message {
    Message { payload, ..udp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 53)) }
}

/// What comes back to the pod that asks, which has to be from whom it has asked.
#[track_caller]
fn answered(send: Send, node: &mut Node, v6: bool, payload: Vec<u8>) -> Vec<u8> {
    let sent = ask(v6, payload);
    let (landed, got) = send.pod(node, 0, &sent);
    assert_eq!(landed, Landed::Answered);
    let (from, to) = seen(&sent.frame()).ends();
    assert_eq!((got.proto, got.ends()), (UDP, (to, from)));
    got.payload
}

/// A query that the server gets as it was sent.
#[track_caller]
fn passed_on(send: Send, node: &mut Node, v6: bool, payload: &[u8]) {
    let (landed, got) = send.pod(node, 0, &ask(v6, payload.to_vec()));
    assert_eq!((landed, &got.payload[..]), (Landed::Pod(SERVER), payload));
}

/// The response to a query without OPT.
fn response(flags: [u8; 2], counts: [u8; 2], question: &[u8], record: &[u8]) -> Vec<u8> {
    let [answers, authorities] = counts;
    [&[0x12, 0x34], &flags[..], &[0, 1, 0, answers, 0, authorities, 0, 0], question, record].concat()
}

/// The SOA of the zone, whose name is at an offset of the message.
fn soa(at: u8) -> Vec<u8> {
    [
        &[0xc0, at, 0, 6, 0, 1, 0, 0, 0, 29, 0, 42, 2, b'n', b's', 3, b'd', b'n', b's', 0xc0, at, 10][..],
        b"hostmaster",
        &[0xc0, at, 1, 2, 3, 4, 0, 0, 0x1c, 0x20, 0, 0, 7, 8, 0, 1, 0x51, 0x80],
        &TTL,
    ]
    .concat()
}

#[test]
fn d2_a_cluster_address_is_told_where_it_is_asked_for() {
    each(|v6, send| {
        let mut node = node();
        // Of even and odd length.
        for web in ["WeB.shop.SVC.cluster.local", "v4.shop.svc.CLUSTER.local"] {
            let last = if web.starts_with('v') { 4 } else { 1 };
            let record = [&[0xc0, 12, 0, 1, 0, 1], &TTL[..], &[0, 4, 10, 96, 0, last]].concat();
            let expected = response([0x85, 0], [1, 0], &question(web, A), &record);
            assert_eq!(answered(send, &mut node, v6, query(web, A, &[])), expected);
        }
        let web = "web.shop.svc.cluster.local";
        let v6_address = [0xfd, 0, 0, 0x10, 0, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let record = [&[0xc0, 12, 0, 28, 0, 1], &TTL[..], &[0, 16], &v6_address].concat();
        let expected = response([0x85, 0], [1, 0], &question(web, AAAA), &record);
        assert_eq!(answered(send, &mut node, v6, query(web, AAAA, &[])), expected);
        assert_eq!((node.host.answers(DnsAnswer::A), node.host.answers(DnsAnswer::Aaaa)), (2, 1));
        assert!(node.host.flows.is_empty(), "nobody waits for an answer of the server");
    });
}

#[test]
fn d2_other_family_is_no_data_and_d19_what_does_not_exist_is_denied() {
    each(|v6, send| {
        let mut node = node();
        for (name, kind, code, at) in [
            ("v4.shop.svc.cluster.local", AAAA, 0, 12 + 12),
            ("shop.svc.cluster.local", A, 0, 12 + 9),
            ("www.example.com.shop.svc.cluster.local", AAAA, 3, 12 + 25),
            ("x.CLUSTER.LOCAL", A, 3, 12 + 2),
            ("pods.CLUSTER.LOCAL", A, 3, 12 + 5),
        ] {
            let expected = response([0x85, code], [0, 1], &question(name, kind), &soa(at));
            assert_eq!(answered(send, &mut node, v6, query(name, kind, &[])), expected, "{name}");
        }
    });
}

#[test]
fn d24_an_opt_record_is_answered_by_one() {
    each(|v6, send| {
        let mut node = node();
        node.host.zone.flags |= ZoneFlags::RECURSION;
        for name in ["v4.shop.svc.cluster.local", "web.shop.svc.cluster.local"] {
            for (size, told) in [([4, 208], [4, 208]), ([0, 7], [2, 0])] {
                let opt = |size: [u8; 2]| [&OPT[..3], &size, &OPT[5..]].concat();
                let got = answered(send, &mut node, v6, query(name, A, &opt(size)));
                assert_eq!(got[2..12], [0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 1]);
                assert!(got.ends_with(&opt(told)), "{got:02x?}");
            }
        }
    });
}

#[test]
fn what_is_not_sure_goes_on_as_it_is() {
    each(|v6, send| {
        let mut node = node();
        let elsewhere = DnsFacts::default();
        node.host.names.insert(DnsName::of(&wire("many.shop.svc.cluster.local")).unwrap(), elsewhere);
        let plain = query("web.shop.svc.cluster.local", A, &[]);
        let with = |at: usize, byte: u8| {
            let mut query = plain.clone();
            query[at] = byte;
            query
        };
        let long = ["a"; 60].map(String::from).join(".");
        for (what, query) in [
            ("several addresses", query("many.shop.svc.cluster.local", A, &[])),
            ("another type", query("web.shop.svc.cluster.local", 33, &[])),
            ("another zone", query("www.example.com", A, &[])),
            ("a zone that ends like it", query("x.mycluster.local", A, &[])),
            (
                "a label with what looks like the zone",
                [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], &b"\x10x\x07cluster\x05local\x00\x00\x00\x01\x00\x01"[..]]
                    .concat(),
            ),
            ("a pod's name", query("10-0-0-1.shop.pod.cluster.local", A, &[])),
            ("a name that may be compressed", query("x.dns.cluster.local", A, &[])),
            ("another such", query("x.hostmaster.cluster.local", A, &[])),
            ("the zone", query("cluster.local", A, &[])),
            ("the root", query("", A, &[])),
            ("many labels", query(&std::format!("{long}.cluster.local"), A, &[])),
            (
                "a long name",
                query(&std::format!("{}.{}.svc.cluster.local", "a".repeat(63), "b".repeat(63)), A, &[0; 3]),
            ),
            ("a response", with(2, 0x81)),
            ("an update", with(2, 0x29)),
            ("a truncated query", with(2, 0x03)),
            ("no question", with(5, 0)),
            ("two questions", with(5, 2)),
            ("an answer", with(7, 1)),
            ("an authority", with(9, 1)),
            ("two additional records", with(11, 2)),
            ("an OPT record that is not there", with(11, 1)),
            ("another class", with(plain.len() - 1, 3)),
            ("a pointer", with(12, 0xc0)),
            ("a name without an end", plain[..30].to_vec()),
            ("half a header", plain[..11].to_vec()),
            ("no payload", vec![]),
            ("something behind it", [&plain[..], &[0]].concat()),
            ("an option", query("web.shop.svc.cluster.local", A, &[&OPT[..10], &[4, 0, 10, 0, 0]].concat())),
            ("another version", query("web.shop.svc.cluster.local", A, &[&OPT[..6], &[1], &OPT[7..]].concat())),
        ] {
            std::eprintln!("{what}");
            passed_on(send, &mut node, v6, &query);
        }
    });
}

#[test]
fn a_lease_that_is_over_and_a_table_that_is_not_complete_deny_nothing() {
    each(|v6, send| {
        let mut node = node();
        let (known, unknown) = (query("web.shop.svc.cluster.local", A, &[]), query("x.shop.svc.cluster.local", A, &[]));
        node.host.zone.flags = 0;
        passed_on(send, &mut node, v6, &unknown);
        answered(send, &mut node, v6, known.clone());
        node.host.zone.flags = ZoneFlags::COMPLETE;
        node.host.zone.until = node.host.now;
        passed_on(send, &mut node, v6, &known);
        node.host.zone.until = node.host.now + 1;
        answered(send, &mut node, v6, unknown);
    });
}

#[test]
fn nobody_is_answered_in_the_name_of_another_server() {
    each(|v6, send| {
        let known = query("web.shop.svc.cluster.local", A, &[]);
        // The service's other server, and one on another node.
        let mut node = node();
        node.service((Node::vip(v6), 53), UDP, &[(Node::pod(2, v6), 5353)]);
        assert_eq!(send.pod(&mut node, 0, &ask(v6, known.clone())).0, Landed::Pod(2));
        let mut node = self::node();
        node.service((Node::vip(v6), 53), UDP, &[(Node::far_pod(v6), 5353)]);
        assert_eq!(send.pod(&mut node, 0, &ask(v6, known.clone())).0, Landed::Node(0));
        // Another port of the same pod.
        let mut node = self::node();
        node.service((Node::vip(v6), 53), UDP, &[(Node::pod(SERVER, v6), 53)]);
        assert_eq!(send.pod(&mut node, 0, &ask(v6, known.clone())).0, Landed::Pod(SERVER));
        // Past the service it is the server that is asked.
        node.host.zone.port = WirePort::new(53);
        let direct = Message { payload: known, ..udp((Node::pod(0, v6), CLIENT), (Node::pod(SERVER, v6), 53)) };
        assert_eq!(send.pod(&mut node, 0, &direct).0, Landed::Answered);
    });
}

#[test]
fn policy_has_judged_what_is_answered() {
    const SET: u32 = 256;
    each(|v6, send| {
        let known = query("web.shop.svc.cluster.local", A, &[]);
        for (ingress, egress, reason) in
            [(policy::ALLOW_ALL, SET, DropReason::EgressPolicy), (SET, policy::ALLOW_ALL, DropReason::IngressPolicy)]
        {
            let mut node = node();
            node.policy_set(SET, Some((TCP, 80)));
            node.police(0, policy::ALLOW_ALL, egress);
            node.police(SERVER, ingress, policy::ALLOW_ALL);
            assert_eq!(send.pod(&mut node, 0, &ask(v6, known.clone())).0, dropped(reason));
            // It is the endpoint that a rule is about, and that is where the question counts.
            node.policy_set(SET, Some((UDP, 5353)));
            let rule = HitKey { set: SET, bit: 0 };
            node.host.hits.borrow_mut().insert(rule, Hits::default());
            answered(send, &mut node, v6, known.clone());
            assert_eq!(node.host.hits.borrow()[&rule].flows, 1);
        }
    });
}

#[test]
fn a_question_among_others_by_the_same_port_is_answered() {
    each(|v6, send| {
        let mut node = node();
        let known = query("web.shop.svc.cluster.local", A, &[]);
        passed_on(send, &mut node, v6, &query("www.example.com", A, &[]));
        assert_eq!(node.host.flows.len(), 2);
        answered(send, &mut node, v6, known.clone());
        assert_eq!(node.host.flows.len(), 2);
        // A policy that is new is asked about.
        node.policy_set(256, Some((TCP, 80)));
        node.police(0, policy::ALLOW_ALL, 256);
        assert_eq!(send.pod(&mut node, 0, &ask(v6, known)).0, dropped(DropReason::EgressPolicy));
    });
}

#[test]
fn who_looks_at_flows_sees_questions_that_are_answered() {
    each(|v6, send| {
        let mut node = node();
        node.host.zone.flags |= ZoneFlags::FLOWS;
        node.policy_set(256, Some((UDP, 5353)));
        node.police(0, policy::ALLOW_ALL, 256);
        let rule = HitKey { set: 256, bit: 0 };
        node.host.hits.borrow_mut().insert(rule, Hits::default());
        for _ in 0..2 {
            answered(send, &mut node, v6, query("web.shop.svc.cluster.local", A, &[]));
            assert_eq!((node.host.flows.len(), node.host.hits.borrow()[&rule].flows), (2, 1));
        }
    });
}

#[test]
fn fragments_options_and_last_hops_are_the_servers() {
    each(|v6, send| {
        let mut node = node();
        let sent = ask(v6, query("web.shop.svc.cluster.local", A, &[]));
        assert_eq!(
            send.pod(&mut node, 0, &Message { ttl: 1, ..sent.clone() }).0,
            Landed::Refused(DropReason::TtlExceeded)
        );
        let odd = match v6 {
            false => Message { options: vec![1, 1, 1, 1], ..sent.clone() },
            true => Message { extensions: vec![(60, vec![1, 4, 0, 0, 0, 0])], ..sent.clone() },
        };
        assert_eq!(send.pod(&mut node, 0, &odd).0, Landed::Pod(SERVER));
        let mut fragments = sent.fragments(40, 9);
        assert_eq!(node.pod_sends(0, &mut fragments[0]), Landed::Pod(SERVER));
        let mut longer = send.frame(&sent);
        longer.bytes.push(0);
        assert_eq!(node.pod_sends(0, &mut longer), Landed::Pod(SERVER));
    });
}
