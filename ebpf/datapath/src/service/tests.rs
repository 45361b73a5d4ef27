//! One service in the tables, and every answer that it can give.

use std::cell::Cell;
use std::net::IpAddr;
use std::vec::Vec;

use proptest::prelude::*;

use super::{
    Backend, BackendState, Chosen, From, Frontend, FrontendKey, HostTables, Scope, Selection, Tables, flow_is_stale,
    select,
};
use crate::Addr;

const TCP: u8 = 6;
const SERVICE: u32 = 7;
const OFFSET: u32 = 64;

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn key() -> FrontendKey {
    FrontendKey::new(addr("10.96.0.1"), 443u16.to_be(), TCP)
}

fn frontend(internal: Scope, external: Scope) -> Frontend {
    Frontend { tag: key().tag(), service: SERVICE, internal, external, affinity_seconds: 0, flags: 0 }
}

fn backend(id: u32) -> Backend {
    Backend {
        addr: Addr::from_v4_wire(id),
        port: (id as u16).to_be(),
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
    select(tables, key().addr, key().port, key().proto, from, random)
}

fn choice(id: u32) -> Selection {
    let Backend { addr, port, service, .. } = backend(id);
    Selection::Forward(Chosen { id, generation: id + 100, service, addr, port })
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
        |t| t.frontends.get_mut(&key()).unwrap().service += 1,
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
    let other = Frontend { tag: !key().tag(), ..frontend(Scope::REJECT, Scope::REJECT) };
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
    assert!(!flow_is_stale(&tables, 1, 101));
    assert!(flow_is_stale(&tables, 1, 100), "the id was given out again since");
    tables.write_backend_state(1, BackendState::new(101, false).0);
    assert!(flow_is_stale(&tables, 1, 101));
    assert!(flow_is_stale(&tables, u32::MAX, 0), "beyond the table");
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
    fn a_scope_is_read_as_it_was_written(offset: u32, count in 0u32..1 << 24) {
        let scope = Scope::forward(offset, count);
        prop_assert_eq!((scope.offset(), scope.count(), scope.verdict()), (offset, count, super::Verdict::Forward));
    }
}
