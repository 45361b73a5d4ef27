use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Tables in memory, of which every state that a packet may meet is looked at.
#[derive(Debug, Default)]
struct Memory {
    names: BTreeMap<DnsName, DnsFacts>,
    zone: DnsZone,
    room: usize,
    puts: usize,
    /// The number of the element that has no memory.
    fails: usize,
    /// What a packet must not be told at any time.
    seen: Vec<(DnsZone, BTreeMap<DnsName, DnsFacts>)>,
}

fn full() -> BpfError {
    let source = io::Error::from_raw_os_error(libc::E2BIG);
    BpfError::Map { what: "update", map: "DNS_NAMES".to_owned(), source, remedy: "" }
}

impl Memory {
    fn note(&mut self) {
        self.seen.push((self.zone, self.names.clone()));
    }
}

impl Store for &RefCell<Memory> {
    fn put(&mut self, names: &[(DnsName, DnsFacts)]) -> Result<(), BpfError> {
        for (name, facts) in names {
            let mut memory = self.borrow_mut();
            // Also what is there may not be replaced: the kernel needs memory for that.
            let is_there = memory.names.contains_key(name);
            memory.puts += 1;
            if (!is_there && memory.names.len() >= memory.room) || (is_there && memory.puts == memory.fails) {
                return Err(full());
            }
            memory.names.insert(*name, *facts);
            memory.note();
        }
        Ok(())
    }

    fn remove(&mut self, names: &[DnsName]) -> Result<(), BpfError> {
        for name in names {
            let mut memory = self.borrow_mut();
            memory.names.remove(name);
            memory.note();
        }
        Ok(())
    }

    fn has(&self, name: &DnsName) -> Result<bool, BpfError> {
        Ok(self.borrow().names.contains_key(name))
    }

    fn all(&self) -> Result<Vec<(DnsName, u32)>, BpfError> {
        Ok(self.borrow().names.iter().map(|(name, facts)| (*name, facts.session)).collect())
    }

    fn zone(&self) -> Result<DnsZone, BpfError> {
        Ok(self.borrow().zone)
    }

    fn set_zone(&mut self, zone: &DnsZone) -> Result<(), BpfError> {
        let mut memory = self.borrow_mut();
        memory.zone = *zone;
        memory.note();
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), BpfError> {
        assert_eq!(self.borrow().zone.until, 0, "what is waited for is that nothing is answered");
        Ok(())
    }
}

/// A node whose pod in slot 5 is the server.
struct Here {
    now: Cell<u64>,
    slot: Option<u16>,
    audits: bool,
    rule: Option<&'static str>,
}

impl Here {
    fn new() -> Self {
        Self { now: Cell::new(50_000), slot: Some(5), audits: false, rule: None }
    }
}

impl Node for Here {
    fn now(&self) -> u64 {
        self.now.get()
    }

    fn slot_of(&self, addresses: &[IpAddr]) -> Option<u16> {
        assert_eq!(addresses, begin().addresses);
        self.slot
    }

    fn audits(&self) -> bool {
        self.audits
    }

    fn rule_about(&self, zone: &str) -> Option<String> {
        assert_eq!(zone, "cluster.local");
        self.rule.map(str::to_owned)
    }
}

fn begin() -> Begin {
    Begin {
        version: VERSION,
        addresses: vec!["10.244.0.9".parse().unwrap()],
        port: 53,
        zone: "cluster.local.".to_owned(),
        ttl: 5,
        soa_ttl: 5,
        recursion: true,
    }
}

fn text(n: u8) -> String {
    format!("s{n}.shop.svc.cluster.local.")
}

fn name(n: u8, address: u8) -> Name {
    Name { name: text(n), v4: Said::One([10, 96, 0, address].into()), v6: Said::None }
}

fn holds(at: u64) -> Line {
    Line::Holds(Holds { serial: 7, complete: true, at })
}

fn memory(room: usize) -> RefCell<Memory> {
    RefCell::new(Memory { room, ..Memory::default() })
}

#[test]
fn the_lease_is_of_what_the_server_has_said_and_ends_by_itself() {
    let (tables, mut here) = (memory(100), Here::new());
    let mut writer = Writer::new(&tables).unwrap();
    for line in [Line::Begin(begin()), Line::Names(vec![name(1, 1), name(2, 2)])] {
        assert_eq!(writer.take(line, &here).unwrap(), None);
        assert_eq!(tables.borrow().zone.until, 0);
    }
    let outcome = writer.take(holds(50_000), &here).unwrap().unwrap();
    assert_eq!(outcome, Outcome { until: 53_000, names: 2, why_not: None });
    let zone = tables.borrow().zone;
    assert_eq!((zone.until, zone.server, zone.serial, zone.length), (53, 5, 7, 15));
    assert_eq!(zone.flags, ZoneFlags::COMPLETE | ZoneFlags::RECURSION);
    // What was said long ago, or is said to be said later than now, lasts no longer for that.
    assert_eq!(writer.take(holds(49_000), &here).unwrap().unwrap().until, 52_000);
    assert_eq!(writer.take(holds(90_000), &here).unwrap().unwrap().until, 53_000);
    here.audits = true;
    writer.look(&here).unwrap();
    assert_ne!(tables.borrow().zone.flags & ZoneFlags::FLOWS, 0);
    here.rule = Some("*.cluster.local");
    assert!(writer.look(&here).unwrap().why_not.unwrap().contains("*.cluster.local"));
    assert_eq!(tables.borrow().zone.until, 0);
    (here.rule, here.slot) = (None, None);
    assert!(writer.look(&here).unwrap().why_not.unwrap().contains("not a pod"));
    here.slot = Some(5);
    assert_eq!(writer.look(&here).unwrap().why_not, None);
    assert_ne!(tables.borrow().zone.until, 0);
    here.now.set(60_000);
    assert!(writer.look(&here).unwrap().why_not.unwrap().contains("no longer"));
    here.now.set(50_000);
    writer.take(Line::Silent("it is about to end".to_owned()), &here).unwrap();
    assert_eq!(tables.borrow().zone.until, 0);
}

#[test]
fn a_server_that_is_not_understood_is_not_followed() {
    for (wrong, says) in [
        (Line::Begin(Begin { version: 9, ..begin() }), "one release"),
        (Line::Begin(Begin { zone: "x".repeat(64), ..begin() }), "not a name"),
        (Line::Begin(Begin { zone: "abcdefg.".repeat(9), ..begin() }), "not a name"),
        (Line::Names(vec![Name { name: "a..b".to_owned(), ..name(1, 1) }]), "not a name"),
    ] {
        let (tables, here) = (memory(100), Here::new());
        let mut writer = Writer::new(&tables).unwrap();
        assert!(matches!(writer.take(holds(0), &here), Err(WriterError::Order)));
        assert!(matches!(writer.take(Line::Names(vec![]), &here), Err(WriterError::Order)));
        writer.take(Line::Begin(begin()), &here).unwrap();
        writer.take(holds(50_000), &here).unwrap();
        assert_ne!(tables.borrow().zone.until, 0);
        let error = writer.take(wrong, &here).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert_eq!(tables.borrow().zone.until, 0);
        assert!(matches!(writer.take(holds(50_000), &here), Err(WriterError::Order)));
    }
}

#[test]
fn what_an_agent_before_has_left_ends_and_goes() {
    let (tables, here) = (memory(100), Here::new());
    let mut writer = Writer::new(&tables).unwrap();
    for line in [Line::Begin(begin()), Line::Names(vec![name(1, 1)]), holds(50_000)] {
        writer.take(line, &here).unwrap();
    }
    let mut next = Writer::new(&tables).unwrap();
    assert_eq!(tables.borrow().zone.until, 0);
    for line in [Line::Begin(begin()), Line::Names(vec![name(2, 2)]), holds(50_000)] {
        next.take(line, &here).unwrap();
    }
    let keys: Vec<DnsName> = tables.borrow().names.keys().copied().collect();
    assert_eq!(keys, [key(&text(2)).unwrap().unwrap()]);
    next.clear().unwrap();
    assert_eq!((tables.borrow().zone.until, tables.borrow().names.len()), (0, 0));
}

#[test]
fn names_that_are_too_long_to_be_asked_for_are_left_out() {
    let (tables, here) = (memory(100), Here::new());
    let mut writer = Writer::new(&tables).unwrap();
    writer.take(Line::Begin(begin()), &here).unwrap();
    let long = Name { name: format!("{0}.{0}.{0}.svc.cluster.local.", "a".repeat(63)), ..name(1, 1) };
    writer.take(Line::Names(vec![long]), &here).unwrap();
    let outcome = writer.take(holds(50_000), &here).unwrap().unwrap();
    assert_eq!((outcome.names, outcome.why_not, tables.borrow().names.len()), (0, None, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Set(Vec<(u8, u8)>),
    Gone(Vec<u8>),
    Anew,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => vec((0_u8..8, 1_u8..4), 1..5).prop_map(Step::Set),
        3 => vec(0_u8..8, 1..4).prop_map(Step::Gone),
        1 => Just(Step::Anew),
    ]
}

proptest! {
    /// While there is a lease, no packet is told an address that the server did not say last or before this line, and none that a
    /// name does not exist that was there before and is there after it: whatever the table has room for.
    #[test]
    fn at_no_moment_is_anything_said_that_the_server_would_not_say(
        steps in vec(any_step(), 1..12), room in 0_usize..10, fails in 0_usize..12,
    ) {
        let (tables, here) = (memory(room), Here::new());
        tables.borrow_mut().fails = fails;
        let mut writer = Writer::new(&tables).unwrap();
        let mut server: BTreeMap<u8, u8> = BTreeMap::new();
        writer.take(Line::Begin(begin()), &here).unwrap();
        writer.take(holds(50_000), &here).unwrap();
        for step in steps {
            let before = server.clone();
            tables.borrow_mut().seen.clear();
            let mut lines = Vec::new();
            match step {
                Step::Set(names) => {
                    // A server says each name once.
                    server.extend(names.iter().copied());
                    let set: BTreeMap<u8, u8> = names.iter().map(|(n, _)| (*n, server[n])).collect();
                    lines.push(Line::Names(set.into_iter().map(|(n, address)| name(n, address)).collect()));
                }
                Step::Gone(names) => {
                    names.iter().for_each(|n| drop(server.remove(n)));
                    lines.push(Line::Gone(names.iter().map(|n| text(*n)).collect()));
                }
                Step::Anew => {
                    lines.push(Line::Begin(begin()));
                    lines.push(Line::Names(server.iter().map(|(n, address)| name(*n, *address)).collect()));
                }
            }
            lines.push(holds(50_000));
            let mut outcome = None;
            for line in lines {
                outcome = writer.take(line, &here).unwrap();
            }
            for (zone, names) in &tables.borrow().seen {
                if zone.until == 0 {
                    continue;
                }
                for n in 0..8 {
                    let key = key(&text(n)).unwrap().unwrap();
                    match names.get(&key) {
                        Some(facts) => {
                            prop_assert!(facts.is_of(key.tag()));
                            let [.., address] = facts.v4.octets();
                            prop_assert!([before.get(&n), server.get(&n)].contains(&Some(&address)), "{} is {}", n, address);
                        }
                        None if zone.flags & ZoneFlags::COMPLETE != 0 => {
                            prop_assert!(!before.contains_key(&n) || !server.contains_key(&n), "{} is denied", n);
                        }
                        None => {}
                    }
                }
            }
            let outcome = outcome.unwrap();
            prop_assert_eq!(outcome.names, tables.borrow().names.len());
            prop_assert!(outcome.until > 0);
            let complete = tables.borrow().zone.flags & ZoneFlags::COMPLETE != 0;
            prop_assert!(!complete || tables.borrow().names.len() == server.len());
            prop_assert_eq!(complete, outcome.why_not.is_none());
        }
    }
}
