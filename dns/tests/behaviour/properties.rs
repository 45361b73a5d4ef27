//! What holds for any objects and any bytes.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use fairlead_dns::full::Outcome;
use fairlead_dns::manner::Transport;
use fairlead_dns::wire::RecordType;
use fairlead_dns::{Builder, Zone, fast};
use fairlead_objects::{Event, Kind, Object, ObjectKey, Protocol, ServiceType};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::client::{Tiers, query, read, write};
use crate::fixture::{MANNER, builder, endpoint, namespace, origin, responder, service, slice, zone, zone_of};

const NAMESPACES: &[&str] = &["a", "b"];
const NAMES: &[&str] = &["s", "t", "kube-dns"];
const ADDRESSES: &[&str] = &["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2"];
const HOSTNAMES: &[&str] = &["", "h", "H", "_tcp", "x.y", "s"];
const PORTS: &[crate::fixture::Port] =
    &[("p", Protocol::Tcp, 80), ("p", Protocol::Udp, 80), ("q", Protocol::Tcp, 81), ("", Protocol::Tcp, 82)];

fn any_service() -> impl Strategy<Value = Object> {
    let addresses = vec(select(ADDRESSES), 0..3);
    (select(NAMESPACES), select(NAMES), addresses, vec(select(PORTS), 0..3), 0..6_u8).prop_map(
        |(namespace, name, addresses, ports, kind)| {
            let mut service = service(namespace, name, &addresses, &ports);
            match kind {
                0 => {
                    service.service_type = ServiceType::ExternalName;
                    service.external_name = Some("t.a.svc.cluster.local".to_owned());
                }
                1 => service.headless = false,
                _ => {}
            }
            Object::Service(service)
        },
    )
}

fn any_slice() -> impl Strategy<Value = Object> {
    let endpoints = vec((select(ADDRESSES), select(HOSTNAMES), any::<bool>()), 0..4);
    let owner = prop_oneof![4 => select(NAMES), 1 => Just("")];
    (select(NAMESPACES), select(NAMES), owner, vec(select(PORTS), 0..3), endpoints).prop_map(
        |(namespace, name, owner, ports, endpoints)| {
            let endpoints = endpoints.into_iter().map(|(address, host, ready)| endpoint(address, host, ready));
            Object::EndpointSlice(slice(namespace, name, owner, &ports, endpoints.collect()))
        },
    )
}

pub(crate) fn any_event() -> impl Strategy<Value = Event> {
    let object = prop_oneof![any_service(), any_slice(), select(NAMESPACES).prop_map(namespace)];
    let kind = select(&[Kind::Service, Kind::EndpointSlice][..]);
    let gone = (kind, select(NAMESPACES), select(NAMES))
        .prop_map(|(kind, namespace, name)| Event::Deleted(kind, ObjectKey::new(namespace, name)));
    let no_namespace = select(NAMESPACES).prop_map(|name| Event::Deleted(Kind::Namespace, ObjectKey::cluster(name)));
    prop_oneof![5 => object.prop_map(Event::Applied), 2 => gone, 1 => no_namespace]
}

/// The objects that are left after these events.
fn objects_after(events: &[Event]) -> Vec<Object> {
    let mut objects = BTreeMap::new();
    for event in events {
        match event {
            Event::Applied(object) => drop(objects.insert((object.kind(), object.key()), object.clone())),
            Event::Deleted(kind, key) => drop(objects.remove(&(*kind, key.clone()))),
            Event::Synced(_) | Event::Invalid { .. } | Event::Mended { .. } => {}
        }
    }
    objects.into_values().collect()
}

fn content(zone: &Zone) -> String {
    let mut lines: Vec<_> = zone.names().map(|(name, facts)| format!("{name} {facts:?}")).collect();
    lines.sort();
    for address in ADDRESSES {
        let address: std::net::IpAddr = address.parse().unwrap();
        let labels: Vec<String> = match address {
            std::net::IpAddr::V4(v4) => v4.octets().iter().rev().map(ToString::to_string).collect(),
            std::net::IpAddr::V6(v6) => {
                v6.octets().iter().rev().flat_map(|o| [o & 15, o >> 4]).map(|n| format!("{n:x}")).collect()
            }
        };
        let suffix = if address.is_ipv4() { "in-addr.arpa" } else { "ip6.arpa" };
        let name = fairlead_dns::WireName::parse(&format!("{}.{suffix}", labels.join("."))).unwrap();
        lines.push(format!("{address} {:?}", zone.answer(name.as_wire(), RecordType::PTR)));
    }
    lines.join("\n")
}

/// Names and types that have something to do with the zone, in any spelling.
fn any_question() -> impl Strategy<Value = Vec<u8>> {
    let labels = select(
        &[
            "web",
            "web4",
            "pets",
            "pets-0",
            "six",
            "many",
            "shop",
            "svc",
            "pod",
            "_http",
            "_tcp",
            "10-0-0-1",
            "ns",
            "dns",
            "hostmaster",
            "x",
            "outside",
            "inside",
            "cluster",
            "local",
            "kube-dns",
            "kube-system",
            "DNS",
        ][..],
    );
    let known = select(
        &[
            "web.shop.svc",
            "web4.shop.svc",
            "pets.shop.svc",
            "six.shop.svc",
            "many.shop.svc",
            "shop.svc",
            "svc",
            "",
            "_http._tcp.web.shop.svc",
            "pets-0.pets.shop.svc",
            "inside.shop.svc",
            "ns.dns",
            "dns",
            "x.dns",
        ][..],
    )
    .prop_map(|text| text.split('.').filter(|l| !l.is_empty()).map(ToOwned::to_owned).collect::<Vec<_>>());
    let random = vec(labels, 0..4).prop_map(|labels| labels.into_iter().map(ToOwned::to_owned).collect());
    let in_zone = prop_oneof![9 => Just(true), 1 => Just(false)];
    let types = select(&[1_u16, 28, 33, 6, 2, 5, 12, 16, 65, 255, 252, 0, 41, 65280][..]);
    (prop_oneof![known, random], in_zone, types, any::<u64>()).prop_map(|(labels, in_zone, kind, spelling)| {
        let mut wire = Vec::new();
        let zone = if in_zone { &["cluster", "local"][..] } else { &[] };
        for label in labels.iter().map(String::as_str).chain(zone.iter().copied()) {
            wire.push(label.len() as u8);
            wire.extend_from_slice(label.as_bytes());
        }
        for (at, byte) in wire.iter_mut().filter(|byte| byte.is_ascii_alphabetic()).enumerate() {
            if spelling >> (at % 64) & 1 == 1 {
                byte.make_ascii_uppercase();
            }
        }
        wire.push(0);
        wire.extend_from_slice(&kind.to_be_bytes());
        wire.extend_from_slice(&[0, 1]);
        wire
    })
}

pub(crate) fn any_query() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![8 => Just(0x0100_u16), 1 => Just(0x0110), 1 => any::<u16>()];
    let edns = prop_oneof![
        3 => Just(vec![]),
        3 => (any::<u16>(), any::<bool>()).prop_map(|(size, d)| {
            let [a, b] = size.to_be_bytes();
            vec![0, 0, 41, a, b, 0, 0, u8::from(d) << 7, 0, 0, 0]
        }),
        1 => vec(any::<u8>(), 11..20),
    ];
    (any::<u16>(), flags, any_question(), edns).prop_map(|(id, flags, question, edns)| {
        let mut bytes = Vec::new();
        for word in [id, flags, 1, 0, 0, u16::from(!edns.is_empty())] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.extend(question);
        bytes.extend(edns);
        bytes
    })
}

/// A query with a few bytes changed, cut or added.
pub(crate) fn any_damaged_query() -> impl Strategy<Value = Vec<u8>> {
    let damage = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (any_query(), damage, any::<prop::sample::Index>(), vec(any::<u8>(), 0..4), any::<bool>()).prop_map(
        |(mut bytes, damage, end, more, cut)| {
            for (index, value) in damage {
                let at = index.index(bytes.len());
                bytes[at] = value;
            }
            if cut {
                bytes.truncate(end.index(bytes.len()));
            }
            bytes.extend(more);
            bytes
        },
    )
}

/// Whatever the short way says, the long way says the same; and both survive.
fn agree(bytes: &[u8]) -> Result<(), TestCaseError> {
    thread_local! {
        static RESPONDER: std::sync::Arc<fairlead_dns::full::Responder> = responder(zone(), None);
    }
    RESPONDER.with(|responder| {
        let mut short = Vec::new();
        let answered = fast::respond(&responder.zone.read().unwrap(), MANNER, bytes, &mut short);
        for transport in [Transport::Udp, Transport::Tcp] {
            match responder.respond(bytes, transport) {
                Outcome::Reply(response) => {
                    let long = response.encode();
                    prop_assert_eq!(&long[..2], &bytes[..2]);
                    prop_assert!(transport == Transport::Tcp || long.len() <= 1232);
                    prop_assert!(!answered || short == long);
                }
                Outcome::Silence => prop_assert!(!answered),
                Outcome::Pending(_) => prop_assert!(false, "there is no upstream server"),
                Outcome::Transfer(_) => prop_assert!(false, "nobody may have a zone"),
            }
        }
        Ok(())
    })
}

/// Over TCP there is the same message; and whatever was said, the next query on the connection is answered.
fn agree_over_tcp(bytes: &[u8]) -> Result<(), TestCaseError> {
    static SERVED: LazyLock<(Runtime, Tiers)> = LazyLock::new(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let tiers = runtime.block_on(Tiers::start(responder(zone(), None)));
        (runtime, tiers)
    });
    let (runtime, tiers) = &*SERVED;
    let next = query("web.shop.svc.cluster.local A");
    let expected = match tiers.responder.respond(bytes, Transport::Tcp) {
        Outcome::Reply(response) => Some(response.encode()),
        _ => None,
    };
    let (first, second) = runtime.block_on(async {
        let mut stream = TcpStream::connect(tiers.server.tcp_addresses()[0]).await.unwrap();
        write(&mut stream, bytes).await;
        write(&mut stream, &next).await;
        let first = if expected.is_some() { Some(read(&mut stream).await) } else { None };
        (first, read(&mut stream).await)
    });
    prop_assert_eq!(first, expected);
    prop_assert_eq!(Some(second), tiers.fast(&next));
    Ok(())
}

proptest! {
    #[test]
    fn a_zone_that_changed_is_the_zone_made_anew(
        events in vec(any_event(), 0..40),
        pauses in vec(any::<bool>(), 40),
    ) {
        let mut zone = Zone::new(origin(), 5).unwrap();
        let mut changing = builder();
        for (event, pause) in events.iter().zip(pauses) {
            changing.apply(event.clone());
            if pause {
                changing.settle().into_iter().for_each(|delta| zone.update(delta));
            }
        }
        changing.settle().into_iter().for_each(|delta| zone.update(delta));
        prop_assert_eq!(changing.settle(), vec![]);
        Builder::KINDS.map(Event::Synced).into_iter().for_each(|event| changing.apply(event));
        zone.set_synced();
        let anew = zone_of(objects_after(&events).into_iter().map(Event::Applied).chain(Builder::KINDS.map(Event::Synced)));
        prop_assert_eq!(content(&zone), content(&anew));
    }

    #[test]
    fn every_tier_gives_the_same_bytes(query in any_query()) {
        agree(&query)?;
    }

    #[test]
    fn every_transport_gives_the_same_bytes(query in prop_oneof![any_query(), any_damaged_query()]) {
        prop_assume!(!query.is_empty(), "a length of 0 ends the connection");
        agree_over_tcp(&query)?;
    }

    #[test]
    fn damaged_queries_are_survived(query in any_damaged_query()) {
        agree(&query)?;
    }

    #[test]
    fn random_bytes_are_survived(bytes in vec(any::<u8>(), 0..80)) {
        agree(&bytes)?;
    }
}

#[test]
fn the_short_way_takes_part_in_the_comparison() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let zone = zone();
    let answered = (0..200).filter(|_| {
        let query = any_query().new_tree(&mut runner).unwrap().current();
        fast::respond(&zone, MANNER, &query, &mut Vec::new())
    });
    assert!(answered.count() > 50, "most of what is compared is the long way with itself");
}
