//! One service in the tables, and every answer that it can give.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::vec::Vec;

use proptest::prelude::*;

use super::{
    Affinity, AffinityKey, Backend, BackendState, Chosen, From, Frontend, FrontendFlags, FrontendKey, HostTables,
    MAX_AFFINITIES, Scope, Selection, SourceRangeKey, Tables, admits, flow_is_stale, select, stick,
};
use crate::Addr;
use crate::{WirePort, WireV4};

const TCP: u8 = 6;
const SERVICE: u32 = 7;
const OFFSET: u32 = 64;
const SET: u32 = 3;

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn key() -> FrontendKey {
    FrontendKey::new(addr("10.96.0.1"), WirePort::new(443), TCP)
}

fn frontend(internal: Scope, external: Scope) -> Frontend {
    Frontend { tag: 0, service: SERVICE, internal, external, affinity_seconds: 0, flags: 0 }.sealed(key().tag())
}

fn backend(id: u32) -> Backend {
    Backend {
        addr: Addr::from_v4(WireV4::from_bits(id)),
        port: WirePort::new(id as u16),
        proto: TCP,
        pad: 0,
        service: SERVICE,
        state: BackendState::new(id + 100, true).0,
    }
}

/// The service with backends 1 to `count` for clients inside, and REJECT for those outside.
fn service(count: u32) -> HostTables {
    let mut tables = HostTables::default();
    for id in 1..=count {
        tables.write_backend(id, backend(id));
    }
    tables.write_slots(OFFSET, &(1..=count).collect::<Vec<_>>());
    tables.frontends.insert(key(), frontend(Scope::forward(OFFSET, count), Scope::REJECT));
    tables
}

fn ask(tables: &impl Tables, from: From, random: u32) -> Selection {
    match select(tables, key().addr, key().port, key().proto, from, random) {
        // Where it was chosen from is another question.
        Selection::Forward(chosen) => Selection::Forward(Chosen { block: Scope::REJECT, ..chosen }),
        other => other,
    }
}

fn choice(id: u32) -> Selection {
    let Backend { addr, port, service, .. } = backend(id);
    Selection::Forward(Chosen {
        id,
        generation: id + 100,
        service,
        flags: 0,
        affinity_seconds: 0,
        block: Scope::REJECT,
        addr,
        port,
    })
}

#[test]
fn s1_each_backend_has_its_share() {
    let tables = service(3);
    let mut hits = [0u32; 4];
    for step in 0..3000u32 {
        let Selection::Forward(chosen) = ask(&tables, From::Inside, step * (u32::MAX / 3000)) else {
            panic!("not forwarded");
        };
        hits[chosen.id as usize] += 1;
    }
    assert_eq!(hits[0], 0);
    assert!(hits[1..].iter().all(|&n| n.abs_diff(1000) <= 1), "{hits:?}");
}

#[test]
fn s2_another_protocol_is_another_frontend() {
    let (tables, key) = (service(1), key());
    for proto in [17, 132] {
        assert_eq!(select(&tables, key.addr, key.port, proto, From::Inside, 0), Selection::NotAService);
    }
}

#[test]
fn s4_a_wildcard_is_reached_by_addresses_of_its_kind_and_family() {
    let mut tables = service(1);
    let wildcard = FrontendKey::new(addr("0.0.0.0"), WirePort::new(443), TCP);
    let value =
        Frontend { flags: FrontendFlags::NODE_PORT, ..frontend(Scope::DROP, Scope::REJECT) }.sealed(wildcard.tag());
    tables.frontends.insert(wildcard, value);
    for (node, kinds) in [
        ("172.18.0.1", FrontendFlags::WILDCARDS),
        ("172.17.0.1", FrontendFlags::HOST_PORT),
        ("fd00:172:18::1", FrontendFlags::WILDCARDS),
    ] {
        tables.node_addresses.insert(addr(node), kinds);
    }
    let at = |tables: &HostTables, ip: &str| select(tables, addr(ip), key().port, TCP, From::Outside, 0);
    assert_eq!(at(&tables, "172.18.0.1"), Selection::Reject);
    for other in ["172.17.0.1", "fd00:172:18::1", "192.0.2.1", "127.0.0.1", "::"] {
        assert_eq!(at(&tables, other), Selection::NotAService, "{other}");
    }
    // An entry of the address itself goes before.
    let own = FrontendKey::new(addr("172.18.0.1"), WirePort::new(443), TCP);
    tables.frontends.insert(own, frontend(Scope::DROP, Scope::DROP).sealed(own.tag()));
    assert_eq!(at(&tables, "172.18.0.1"), Selection::Drop);
    tables.frontends.get_mut(&wildcard).unwrap().tag ^= 1;
    tables.node_addresses.insert(addr("172.18.0.9"), FrontendFlags::NODE_PORT);
    assert_eq!(at(&tables, "172.18.0.9"), Selection::Raced);
}

#[test]
fn s12_source_ranges_hold_the_clients_of_one_set() {
    let mut tables = service(1);
    let Selection::Forward(open) = ask(&tables, From::Inside, 0) else { panic!("not forwarded") };
    let closed = Chosen { flags: FrontendFlags::source_set(SET), ..open };
    let client = addr("192.0.2.100");
    assert!(admits(&tables, &open, client));
    assert!(!admits(&tables, &closed, client));
    tables.source_ranges.insert(SourceRangeKey::prefix(SET + 1, addr("192.0.2.0"), 24));
    assert!(!admits(&tables, &closed, client), "another set's");
    tables.source_ranges.insert(SourceRangeKey::prefix(SET, addr("192.0.2.0"), 24));
    assert!(admits(&tables, &closed, client));
    assert!(!admits(&tables, &closed, addr("192.0.3.100")));
    tables.source_ranges.insert(SourceRangeKey::prefix(SET, addr("0.0.0.0"), 0));
    assert!(admits(&tables, &closed, addr("203.0.113.1")));
    assert!(!admits(&tables, &closed, Addr::UNSPECIFIED), "who is not known");
}

#[test]
fn s33_a_verdict_is_that_of_the_scope() {
    let mut tables = service(1);
    assert_eq!(ask(&tables, From::Inside, 5), choice(1));
    assert_eq!(ask(&tables, From::Outside, 5), Selection::Reject);
    tables.frontends.insert(key(), frontend(Scope::DROP, Scope::forward(OFFSET, 1)));
    assert_eq!(ask(&tables, From::Inside, 5), Selection::Drop);
    assert_eq!(ask(&tables, From::Outside, 5), choice(1));
}

#[test]
fn s33_reject_is_never_inferred_from_an_empty_block() {
    let mut tables = service(1);
    tables.frontends.insert(key(), frontend(Scope::forward(OFFSET + 1, 0), Scope::REJECT));
    assert_eq!(ask(&tables, From::Inside, 5), Selection::Raced);
}

#[test]
fn what_can_not_be_trusted_is_dropped_and_never_let_through() {
    let good = service(1);
    let spoil: [fn(&mut HostTables); 5] = [
        |t| t.frontends.get_mut(&key()).unwrap().tag ^= 1,
        |t| t.change_frontends(|_, frontend| frontend.service += 1),
        |t| t.write_backend_state(1, BackendState::new(101, false).0),
        |t| t.write_slots(OFFSET, &[0]),
        |t| t.write_slots(OFFSET, &[u32::MAX]),
    ];
    for spoil in spoil {
        let mut tables = good.clone();
        spoil(&mut tables);
        assert_eq!(ask(&tables, From::Inside, 9), Selection::Raced);
    }
}

/// Gives the first reader of a frontend another one than those after it.
struct Changing {
    first: Frontend,
    asked: Cell<bool>,
    then: HostTables,
}

impl Tables for Changing {
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        if self.asked.replace(true) { self.then.frontend(key) } else { Some(self.first) }
    }
    fn node_address(&self, addr: &Addr) -> u32 {
        self.then.node_address(addr)
    }
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.then.affinity(key)
    }
    fn remember_affinity(&self, key: &AffinityKey, value: &Affinity) {
        self.then.remember_affinity(key, value);
    }
    fn service_ports(&self, index: u32) -> u64 {
        self.then.service_ports(index)
    }
    fn in_source_range(&self, key: &SourceRangeKey) -> bool {
        self.then.in_source_range(key)
    }
    fn slot(&self, index: u32) -> Option<u32> {
        self.then.slot(index)
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.then.backend(id)
    }
    fn backend_state(&self, id: u32) -> u64 {
        self.then.backend_state(id)
    }
    fn udp_generation(&self) -> u32 {
        self.then.udp_generation()
    }
}

#[test]
fn a_frontend_that_was_replaced_under_the_reader_is_read_again() {
    let other = frontend(Scope::REJECT, Scope::REJECT).sealed(!key().tag());
    let then = service(2);
    let tables = Changing { first: other, asked: Cell::new(false), then: then.clone() };
    assert!(matches!(ask(&tables, From::Inside, 1), Selection::Forward(_)));

    let mut gone = then;
    gone.frontends.clear();
    let tables = Changing { first: other, asked: Cell::new(false), then: gone };
    assert_eq!(ask(&tables, From::Inside, 1), Selection::NotAService);
}

#[test]
fn s40_a_flow_goes_stale_with_its_backend() {
    let mut tables = service(1);
    assert!(!flow_is_stale(&tables, 1, 101, true));
    assert!(flow_is_stale(&tables, 1, 100, true), "the id was given out again since");
    tables.write_backend_state(1, BackendState::new(101, true).with_ending(true).0);
    assert!(!flow_is_stale(&tables, 1, 101, true) && flow_is_stale(&tables, 1, 101, false));
    tables.write_backend_state(1, BackendState::new(101, false).0);
    assert!(flow_is_stale(&tables, 1, 101, true));
    assert!(flow_is_stale(&tables, u32::MAX, 0, true), "beyond the table");
}

/// The backend of a client's new flow, of three, under an affinity of ten seconds.
fn affine(tables: &HostTables, client: &str, now: u32, random: u32) -> u32 {
    match select(tables, key().addr, key().port, key().proto, From::Inside, random) {
        Selection::Forward(chosen) => stick(tables, chosen, addr(client), From::Inside, now).id,
        other => panic!("{other:?}"),
    }
}

fn sticky(count: u32) -> HostTables {
    let mut tables = service(count);
    tables.change_frontends(|_, frontend| frontend.affinity_seconds = 10);
    tables
}

#[test]
fn s38_a_client_stays_until_it_has_been_away_for_long_enough() {
    let tables = sticky(3);
    assert_eq!(affine(&tables, "192.0.2.1", 100, 0), 1);
    assert_eq!(affine(&tables, "192.0.2.1", 109, u32::MAX), 1);
    assert_eq!(affine(&tables, "192.0.2.2", 109, u32::MAX), 3, "another client");
    assert_eq!(affine(&tables, "192.0.2.1", 118, u32::MAX), 1, "each new flow counts");
    assert_eq!(affine(&tables, "192.0.2.1", 128, u32::MAX), 3);
    assert!(service(3).affinities.borrow().is_empty(), "without affinity nothing is remembered");
}

#[test]
fn s39_affinity_is_to_what_may_be_chosen_alone() {
    let mut tables = sticky(3);
    assert_eq!(affine(&tables, "192.0.2.1", 100, 0), 1);
    // It serves on, but new flows may not choose it.
    let narrow = Scope::forward(OFFSET + 1, 2);
    tables.change_frontends(|_, frontend| frontend.internal = narrow);
    assert_eq!(affine(&tables, "192.0.2.1", 101, 0), 2);
    // Its id is another's by now.
    tables.write_backend_state(2, BackendState::new(900, true).0);
    assert_eq!(affine(&tables, "192.0.2.1", 102, u32::MAX), 3);
    tables.write_backend_state(3, BackendState::new(103, false).0);
    assert_eq!(affine(&tables, "192.0.2.1", 103, 0), 2);
}

#[test]
fn s38_a_client_of_ever_more_services_makes_nobody_else_lose_the_backend() {
    let tables = sticky(3);
    let Selection::Forward(chosen) = select(&tables, key().addr, key().port, key().proto, From::Inside, 0) else {
        panic!("no backend")
    };
    let clients: Vec<_> = (1..=100).map(|n| (std::format!("10.0.0.{n}"), From::Inside)).collect();
    // Networks outside share groups of places; of those here none is in the flooder's.
    let flooder = addr("198.51.100.1");
    let outside = (0..100).map(|n| std::format!("203.0.{n}.1"));
    let others = outside.filter(|text| AffinityKey::outside(addr(text)) != AffinityKey::outside(flooder));
    let clients: Vec<_> = clients.into_iter().chain(others.map(|text| (text, From::Outside))).collect();
    for (client, from) in &clients {
        stick(&tables, chosen, addr(client), *from, 100);
    }
    let before = tables.affinities.borrow().len();
    assert_eq!(before, clients.len(), "each is remembered");
    for service in 0..20_000 {
        for (client, from) in [(addr("10.0.0.200"), From::Inside), (flooder, From::Outside)] {
            stick(&tables, Chosen { service, ..chosen }, client, from, 101);
        }
    }
    assert_eq!(tables.affinities.borrow().len() - before, 2 * AffinityKey::PLACES as usize);
    for (client, from) in &clients {
        let last = Chosen { id: 3, generation: 103, ..chosen };
        assert_eq!(stick(&tables, last, addr(client), *from, 102).id, chosen.id, "{client}");
    }
}

#[test]
fn s38_clients_of_one_network_share_places_and_those_that_fill_a_quarter_lose_almost_nothing() {
    let tables = sticky(3);
    let Selection::Forward(chosen) = select(&tables, key().addr, key().port, key().proto, From::Inside, 0) else {
        panic!("no backend")
    };
    let mut lost = 0;
    for network in 0..100 {
        let clients = || (1..=AffinityKey::PLACES / 4).map(|n| addr(&std::format!("192.{network}.2.{n}")));
        for client in clients() {
            stick(&tables, chosen, client, From::Outside, 100);
        }
        let last = Chosen { id: 3, generation: 103, ..chosen };
        lost += clients().filter(|&client| stick(&tables, last, client, From::Outside, 101).id != chosen.id).count();
    }
    assert!(lost < 32, "{lost} of 1600 clients lost their backend");
}

#[test]
fn every_place_of_the_table_fits() {
    let inside = MAX_AFFINITIES / AffinityKey::PLACES - AffinityKey::NETWORKS;
    assert!(inside >= 2 * 500, "500 pods, each with an address of either family");
    for client in ["10.0.0.1", "192.0.2.9", "fd00::7", "2001:db8::1"].map(addr) {
        assert!(AffinityKey::outside(client) < AffinityKey::NETWORKS && AffinityKey::inside(client) >> 31 == 1);
        let whose = Affinity::whose(client, 7);
        let places: BTreeSet<_> = (0..AffinityKey::CHOICES).map(|n| AffinityKey::new(1, whose, n).place).collect();
        assert_eq!(places.len(), AffinityKey::CHOICES as usize);
        assert!(places.iter().all(|&place| place < AffinityKey::PLACES));
    }
}

proptest! {
    #[test]
    fn s1_random_bits_choose_among_all_and_only_the_backends(count in 1u32..300, random: u32) {
        let tables = service(count);
        let expected = 1 + ((u64::from(random) * u64::from(count)) >> 32) as u32;
        prop_assert_eq!(ask(&tables, From::Inside, random), choice(expected));
        for id in 1..=count {
            let lowest = (u64::from(id - 1) << 32).div_ceil(u64::from(count)) as u32;
            prop_assert_eq!(ask(&tables, From::Inside, lowest), choice(id));
        }
    }

    #[test]
    fn s39_every_backend_of_a_block_is_found_in_it(count in 1u32..300, first: u32, second: u32) {
        let tables = sticky(count);
        let kept = affine(&tables, "192.0.2.1", 100, first);
        prop_assert_eq!(affine(&tables, "192.0.2.1", 101, second), kept);
    }

    #[test]
    fn a_scope_is_read_as_it_was_written(offset: u32, count in 0u32..1 << 24) {
        let scope = Scope::forward(offset, count);
        prop_assert_eq!((scope.offset(), scope.count(), scope.verdict()), (offset, count, super::Verdict::Forward));
    }
}
