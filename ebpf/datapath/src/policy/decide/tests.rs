use std::vec;
use std::vec::Vec;

use super::super::HostTables;
use super::*;
use crate::WirePort;

const SET: u32 = 0x2_0005;

fn row(tag: u32, rules: &[u16]) -> Row {
    let mut row = Row::default();
    for rule in rules {
        row.bits[usize::from(rule / 64)] |= 1 << (rule % 64);
    }
    row.sealed(tag)
}

/// A set with rules 3 (every peer, TCP 80), 70 (class 9, every protocol), 255 (class 9, TCP).
fn tables() -> HostTables {
    let mut t = HostTables::default();
    t.sets.insert(PolicySet::index(SET), PolicySet { id: SET, pages: 1, ..PolicySet::default() });
    for (class, rules) in [(0, &[3][..]), (9, &[3, 70, 255])] {
        let key = PeerKey { set: SET, class, page: 0 };
        t.peers.insert(key, row(key.tag(), rules));
    }
    let ports = [(0, 0, &[70][..]), (6, 0, &[70, 255]), (17, 0, &[70]), (132, 0, &[70]), (6, 80, &[3, 70, 255])];
    for (proto, port, rules) in ports {
        let key = PortKey { set: SET, port: WirePort::new(port), proto, page: 0 };
        t.ports.insert(key, row(key.tag(), rules));
    }
    t
}

fn ask(t: &HostTables, class: u32, proto: u8, port: u16) -> (Outcome, u16) {
    let Decision { outcome, bit } = decide(t, SET, class, proto, WirePort::new(port), false, &mut 0);
    (outcome, bit)
}

#[test]
fn the_lowest_common_rule_decides() {
    let t = tables();
    assert_eq!(ask(&t, 9, 6, 80), (Outcome::Allow, 3));
    assert_eq!(ask(&t, 9, 6, 81), (Outcome::Allow, 70));
    assert_eq!(ask(&t, 7, 6, 80), (Outcome::Allow, 3));
    assert_eq!(ask(&t, 7, 6, 81), (Outcome::Isolated, NO_BIT));
    assert_eq!(ask(&t, 0, 17, 80), (Outcome::Isolated, NO_BIT));
}

#[test]
fn p10_p37_other_protocols_meet_rules_without_ports_only() {
    let t = tables();
    for proto in [1, 58, 47, 0] {
        assert_eq!(ask(&t, 9, proto, 80), (Outcome::Allow, 70));
        assert_eq!(ask(&t, 0, proto, 80), (Outcome::Isolated, NO_BIT));
    }
}

#[test]
fn p20_sctp_is_not_tcp() {
    assert_eq!(ask(&tables(), 0, 132, 80), (Outcome::Isolated, NO_BIT));
}

#[test]
fn an_unknown_port_meets_rules_for_every_port_of_the_protocol() {
    let mut t = tables();
    let key = PortKey { set: SET, port: ANY_PORT, proto: 6, page: 0 };
    t.ports.insert(key, Row::new([0, 0, 0, 1 << 63]).sealed(key.tag()));
    assert_eq!(ask(&t, 9, 6, 0), (Outcome::Allow, 255));
    assert_eq!(ask(&t, 0, 6, 0), (Outcome::Isolated, NO_BIT));
}

#[test]
fn p40_no_policy_yet_denies_and_none_allows() {
    let t = HostTables::default();
    assert_eq!(decide(&t, DENY_ALL, 0, 6, WirePort::new(80), false, &mut 0).outcome, Outcome::Pending);
    assert!(decide(&t, ALLOW_ALL, 0, 6, WirePort::new(80), false, &mut 0).allow());
}

#[test]
fn what_is_missing_or_anothers_denies() {
    for key in [
        PortKey { set: SET, port: ANY_PORT, proto: 6, page: 0 },
        PortKey { set: SET, port: WirePort::new(80), proto: 6, page: 0 },
    ] {
        let mut t = tables();
        t.ports.get_mut(&key).unwrap().tag ^= 1;
        assert_eq!(ask(&t, 9, 6, if key.port == ANY_PORT { 81 } else { 80 }).0, Outcome::Race);
    }
    let mut t = tables();
    t.ports.clear();
    assert_eq!(ask(&t, 9, 6, 80).0, Outcome::Missing);
    let mut t = tables();
    t.peers.clear();
    assert_eq!(ask(&t, 9, 6, 80).0, Outcome::Missing);
    let mut t = tables();
    t.peers.get_mut(&PeerKey { set: SET, class: 9, page: 0 }).unwrap().tag ^= 1;
    assert_eq!(ask(&t, 9, 6, 80).0, Outcome::Race);
    let mut t = tables();
    t.sets.get_mut(&PolicySet::index(SET)).unwrap().id ^= MAX_SETS_BIT;
    assert_eq!(ask(&t, 9, 6, 80).0, Outcome::Missing);
    let mut t = tables();
    t.sets.get_mut(&PolicySet::index(SET)).unwrap().flags = 0x8000;
    assert_eq!(ask(&t, 9, 6, 80).0, Outcome::Missing);
}

/// A bit of a set's id that is not part of its index.
const MAX_SETS_BIT: u32 = 1 << 19;

#[test]
fn p22_blocks_of_ports_stand_between_a_port_and_its_protocol() {
    let mut t = tables();
    t.sets.get_mut(&PolicySet::index(SET)).unwrap().flags = SetFlags::RANGES;
    let all = RangeKey { prefix_len: 64, set: SET, page: 0, proto: 6, port: WirePort::new(8080) };
    t.ranges.insert(RangeKey::block(&all, 12), row(all.tag(), &[3]));
    for (port, allowed) in [(8079, true), (8080, true), (8063, false), (8064, true), (8096, false)] {
        let expected = allowed && port / 16 == 8080 / 16;
        assert_eq!(ask(&t, 0, 6, port).0 == Outcome::Allow, expected, "{port}");
    }
}

#[test]
fn rules_beyond_the_first_page_are_found_in_order() {
    let mut t = tables();
    t.sets.get_mut(&PolicySet::index(SET)).unwrap().pages = MAX_PAGES;
    for page in 1..MAX_PAGES {
        let rules: &[u16] = if page == MAX_PAGES - 1 { &[255] } else { &[] };
        let key = PeerKey { set: SET, class: 0, page: page.into() };
        t.peers.insert(key, row(key.tag(), rules));
        let key = PortKey { set: SET, port: ANY_PORT, proto: 17, page: page as u8 };
        t.ports.insert(key, row(key.tag(), rules));
    }
    assert_eq!(ask(&t, 0, 17, 53), (Outcome::Allow, MAX_PAGES * PAGE_BITS - 1));
    assert_eq!(ask(&t, 9, 17, 53), (Outcome::Allow, 70));
}

/// A set whose rules every peer and port meets: those of the Admin tier, each with its action, then those of the other tier,
/// of Baseline if `open`. Beyond that what each class meets.
fn tiered(admin: &[(u16, u64)], other: &[(u16, u64)], open: bool) -> HostTables {
    let mut t = HostTables::default();
    let flags = if open { SetFlags::OPEN } else { 0 };
    let set = PolicySet { id: SET, pages: 2, flags, admin_pages: 1, ..PolicySet::default() };
    t.sets.insert(PolicySet::index(SET), set);
    for (page, rules) in [(0_u8, admin), (1, other)] {
        let bits: Vec<u16> = rules
            .iter()
            .flat_map(|(bit, action)| match *action {
                ACCEPT => vec![*bit],
                DENY => vec![*bit + 1],
                _ => vec![*bit, *bit + 1],
            })
            .collect();
        let key = PeerKey { set: SET, class: 0, page: page.into() };
        t.peers.insert(key, row(key.tag(), &bits));
        let key = PortKey { set: SET, port: ANY_PORT, proto: 6, page };
        t.ports.insert(key, Row::new([u64::MAX; 4]).sealed(key.tag()));
    }
    t
}

#[test]
fn p54_the_first_rule_of_the_admin_tier_decides_before_any_other() {
    let accepted = tiered(&[(4, ACCEPT), (6, DENY)], &[], false);
    assert_eq!(ask(&accepted, 0, 6, 80), (Outcome::Allow, 4));
    let denied = tiered(&[(4, DENY), (6, ACCEPT)], &[(0, ACCEPT)], false);
    assert_eq!(ask(&denied, 0, 6, 80), (Outcome::Denied, 5));
    // At the edges of words and of the page.
    for bit in [0, 62, 64, 126, 128, 190, 192, 254] {
        assert_eq!(ask(&tiered(&[(bit, ACCEPT)], &[], false), 0, 6, 80), (Outcome::Allow, bit));
        assert_eq!(ask(&tiered(&[(bit, DENY)], &[], false), 0, 6, 80), (Outcome::Denied, bit + 1));
        assert_eq!(ask(&tiered(&[(bit, PASS)], &[], false), 0, 6, 80), (Outcome::Isolated, NO_BIT));
        assert_eq!(ask(&tiered(&[(bit, PASS)], &[], true), 0, 6, 80), (Outcome::Allow, NO_BIT));
    }
}

#[test]
fn p55_what_is_passed_meets_the_next_tier_and_no_other_rule_of_its_own() {
    let pass = &[(4, PASS), (6, DENY)];
    // A rule of a NetworkPolicy is one bit, whichever.
    assert_eq!(ask(&tiered(pass, &[(7, ACCEPT)], false), 0, 6, 80), (Outcome::Allow, 256 + 7));
    assert_eq!(ask(&tiered(pass, &[], false), 0, 6, 80), (Outcome::Isolated, NO_BIT));
    assert_eq!(ask(&tiered(pass, &[(8, DENY)], true), 0, 6, 80), (Outcome::Denied, 256 + 9));
    assert_eq!(ask(&tiered(pass, &[(8, ACCEPT), (10, DENY)], true), 0, 6, 80), (Outcome::Allow, 256 + 8));
    // There is no tier after Baseline.
    assert_eq!(ask(&tiered(pass, &[(8, PASS), (10, DENY)], true), 0, 6, 80), (Outcome::Allow, 256 + 8));
    assert_eq!(ask(&tiered(pass, &[], true), 0, 6, 80), (Outcome::Allow, NO_BIT));
    // Pages of the Admin tier after the one in which it was passed are left out.
    let mut two = tiered(pass, &[(0, DENY)], true);
    two.sets.get_mut(&PolicySet::index(SET)).unwrap().admin_pages = 2;
    assert_eq!(ask(&two, 0, 6, 80), (Outcome::Allow, NO_BIT));
}

#[test]
fn p71_the_rule_that_passed_it_on_is_named_besides_the_one_that_decides() {
    let passed = |t: &HostTables| {
        let mut passed = u32::MAX;
        let _verdict = decide(t, SET, 0, 6, WirePort::new(80), false, &mut passed);
        passed
    };
    assert_eq!(passed(&tiered(&[(4, PASS), (6, DENY)], &[(7, ACCEPT)], false)), 4);
    assert_eq!(passed(&tiered(&[(4, PASS)], &[], true)), 4);
    // Behind Baseline is nothing to pass it on to: there it decides.
    for other in [tiered(&[(4, ACCEPT)], &[], false), tiered(&[(4, DENY)], &[], false), tiered(&[], &[(8, PASS)], true)]
    {
        assert_eq!(passed(&other), u32::MAX);
    }
}

#[test]
fn p32_p61_a_pod_that_reaches_itself_through_a_service_meets_the_tiers_of_the_cluster_alone() {
    let own = |t: &HostTables| decide(t, SET, 0, 6, WirePort::new(80), true, &mut 0).outcome;
    assert_eq!(own(&tables()), Outcome::Allow);
    assert_eq!(own(&tiered(&[], &[], false)), Outcome::Allow);
    assert_eq!(own(&tiered(&[(0, PASS)], &[], false)), Outcome::Allow);
    assert_eq!(own(&tiered(&[(0, DENY)], &[(0, ACCEPT)], false)), Outcome::Denied);
    assert_eq!(own(&tiered(&[], &[(0, DENY)], true)), Outcome::Denied);
    assert_eq!(
        decide(&HostTables::default(), DENY_ALL, 0, 6, WirePort::new(80), true, &mut 0).outcome,
        Outcome::Pending
    );
}
