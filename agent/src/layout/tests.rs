use std::collections::{BTreeMap, BTreeSet};

use fairlead_datapath::catalog::{TableId, recorded};
use fairlead_datapath::flow::{End, Flow, FlowFlags, FlowKey, Owned, Table};
use fairlead_datapath::testing::{Counted, Flows, What};
use fairlead_datapath::{Addr, Tuple, WirePort};
use proptest::collection::vec;
use proptest::prelude::*;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{Converter, Counts, Field, Layout, oldest, recount};

/// What a side has of each field that there may be, in its order: which, how many bytes, and bytes of nothing before it.
type Side = Vec<(usize, usize, usize)>;

fn layout(version: u32, key: &Side, value: &Side) -> Layout {
    let fields = |part: &str, side: &Side| {
        let mut end = 0;
        let fields = side.iter().map(|(which, size, gap)| {
            let field = Field { name: format!("{part}.f{which}"), offset: end + gap, size: *size, bits: Vec::new() };
            end = field.offset + size;
            field
        });
        fields.collect()
    };
    let (key, value) = (fields("key", key), fields("value", value));
    Layout { name: "T".to_owned(), version, kind: "hash".to_owned(), elements: 1, flags: 0, key, value }
}

/// Some of eight fields, in any order. A field has the same size everywhere.
fn side() -> impl Strategy<Value = Side> {
    let size = |which: usize| [1, 2, 4, 8, 16, 4, 8, 3][which];
    let order = Just((0..8).collect::<Vec<usize>>()).prop_shuffle();
    (order, 1..8_usize, vec(0..3_usize, 8)).prop_map(move |(order, count, gaps)| {
        order.into_iter().take(count).zip(gaps).map(|(which, gap)| (which, size(which), gap)).collect()
    })
}

fn ends(layout: &Layout) -> (Vec<u8>, Vec<u8>) {
    let [key, value] = layout.ends();
    (vec![0xee; key], vec![0xee; value])
}

/// The naive model: what an element says, by name.
fn said(fields: &[Field], bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    fields.iter().map(|field| (field.name.clone(), bytes[field.offset..field.offset + field.size].to_vec())).collect()
}

proptest! {
    #[test]
    fn there_and_back_keeps_what_both_know_and_the_rest_has_its_default(
        sides in [side(), side(), side()],
        bytes in vec(any::<u8>(), 256),
    ) {
        let [key, one, other] = &sides;
        let (one, other) = (layout(1, key, one), layout(2, key, other));
        let there = Converter::new(&one, &other, ends(&other)).unwrap();
        let back = Converter::new(&other, &one, ends(&one)).unwrap();
        let [key_end, value_end] = one.ends();
        let (key, value) = (&bytes[..key_end], &bytes[bytes.len() - value_end..]);
        let (new_key, new_value) = there.convert(key, value).unwrap();
        prop_assert_eq!(said(&other.key, &new_key), said(&one.key, key));
        let (before, after) = (said(&one.value, value), said(&other.value, &new_value));
        for field in &other.value {
            let default = vec![0xee; field.size];
            prop_assert_eq!(&after[&field.name], before.get(&field.name).unwrap_or(&default), "{}", field.name);
        }
        let (old_key, old_value) = back.convert(&new_key, &new_value).unwrap();
        prop_assert_eq!(said(&one.key, &old_key), said(&one.key, key));
        for (name, bytes) in said(&one.value, &old_value) {
            let known = after.contains_key(&name);
            prop_assert_eq!(&bytes, if known { &before[&name] } else { &vec![0xee; bytes.len()][..] }, "{}", name);
        }
    }

    #[test]
    fn bits_move_by_name_and_those_without_a_name_stay(
        places in (Just((0..32_u32).collect::<Vec<_>>()).prop_shuffle(), Just((0..32_u32).collect::<Vec<_>>()).prop_shuffle()),
        word in any::<u32>(),
    ) {
        // Eight names each, of which six are on both sides, in any places of the lower half.
        let set = |from: usize, order: &[u32]| -> Vec<(String, u64)> {
            let low: Vec<_> = order.iter().filter(|place| **place < 16).take(8).collect();
            low.iter().enumerate().map(|(n, place)| (format!("B{}", n + from), 1 << **place)).collect()
        };
        let (mut one, mut other) = (layout(1, &vec![(0, 1, 0)], &vec![(2, 4, 0)]), layout(2, &vec![(0, 1, 0)], &vec![(2, 4, 4)]));
        (one.value[0].bits, other.value[0].bits) = (set(0, &places.0), set(2, &places.1));
        let has = |layout: &Layout, word: u32| -> BTreeSet<String> {
            let bits = layout.value[0].bits.iter().filter(|(_, mask)| u64::from(word) & mask != 0);
            bits.map(|(name, _)| name.clone()).collect()
        };
        let there = Converter::new(&one, &other, ends(&other)).unwrap();
        let value = there.value(word.as_bytes()).unwrap();
        let moved = u32::read_from_bytes(&value[4..8]).unwrap();
        let both: BTreeSet<_> = (2..8).map(|n| format!("B{n}")).collect();
        let expected: BTreeSet<_> = has(&one, word).intersection(&both).cloned().collect();
        prop_assert_eq!(has(&other, moved), expected);
        prop_assert_eq!(moved & 0xffff_0000, word & 0xffff_0000);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[A-Z]{1,3} v[0-9]{1,3}: hash, [0-9]{1,4} elements, flags [0-9](\n {2,4}(key|value)(\\.[a-z])?[@:][ 0-9+x=A-F]{0,12}){0,5}") {
        if let Ok(layout) = Layout::parse(&text) {
            prop_assert_eq!(Layout::parse(&layout.to_string()), Ok(layout.clone()));
            let _any = Converter::new(&layout, &layout, (vec![0; 8], vec![0; 8])).ok().and_then(|c| c.convert(&[0; 8], &[0; 8]));
        }
    }

    #[test]
    fn flows_that_are_counted_again_are_counted_as_before(
        made in vec((0..3_u16, 0..3_u16, 0..4_u8, any::<u16>(), any::<bool>(), any::<[bool; 4]>()), 0..30),
    ) {
        let (flows, mut counts) = (Flows::default(), Counts::default());
        for (opener, responder, client, sport, established, [near, far, port, held]) in made {
            let slot = |slot| if slot == 0 { u16::MAX } else { slot };
            let bit = |is, flag| if is { flag } else { 0 };
            let flags = bit(near, FlowFlags::NEAR) | bit(far, FlowFlags::FAR) | bit(port, FlowFlags::PORT) | bit(held, FlowFlags::HELD);
            let end = |slot| End { slot, node: u16::MAX };
            let (opener, responder) = (end(slot(opener)), end(slot(responder)));
            let src = Addr { hi: 0xfd, lo: u64::from(client) << 56 };
            let tuple = Tuple { src, dst: Addr { hi: 0xfd, lo: 9 }, sport: WirePort::new(sport), dport: WirePort::new(80), ..Tuple::NONE };
            let key = FlowKey::of(&tuple, 6).0;
            let table = if established { Table::Established } else { Table::Any };
            if flows.keys(table).contains(&key) {
                continue;
            }
            let mut flow = Flow { flags, opener, responder, other: tuple, ..Flow::new() };
            flow.seal(key.tag());
            fairlead_datapath::flow::Tables::insert_flow(&flows, table, &key, &flow, true).unwrap();
            recount(&mut counts, 7, table, &key, &flow);
        }
        let kinds = [What::Established, What::Accepted, What::Outgoing, What::Incoming];
        let pod = |index: u16| match index {
            fairlead_datapath::flow::PodFlows::NOBODY => Flows::NOBODY,
            fairlead_datapath::flow::PodFlows::EVERYBODY => Flows::NOBODY + 1,
            slot => usize::from(slot),
        };
        let pods = counts.pods.iter().flat_map(|(index, counts)| kinds.map(|what| Counted::Flows(pod(*index), what)).into_iter().zip(*counts));
        let shares = counts.shares.iter().map(|(index, count)| (Counted::Share(*index), *count));
        let counted: BTreeMap<_, _> = pods.chain(shares).filter(|(_, count)| *count > 0).collect();
        prop_assert_eq!(counted.into_iter().collect::<Vec<_>>(), flows.recounted(7));
    }
}

#[test]
fn numbers_grow_and_shrink_while_they_fit() {
    let of = |size| layout(1, &vec![(0, 1, 0)], &vec![(1, size, 0)]);
    let convert = |from, to, value: &[u8]| {
        let converter = Converter::new(&of(from), &of(to), ends(&of(to))).unwrap();
        converter.convert(&[1], value).map(|(_, value)| value)
    };
    assert_eq!(convert(2, 4, &[1, 2]), Some(vec![1, 2, 0, 0]));
    assert_eq!(convert(4, 2, &[1, 2, 0, 0]), Some(vec![1, 2]));
    assert_eq!(convert(4, 2, &[1, 2, 0, 1]), None);
    assert_eq!(convert(4, 2, &[1, 2]), None, "shorter than its layout says");
}

#[test]
fn what_is_no_layout_or_has_no_key_in_common_is_said() {
    for (text, why) in [
        ("", "no line of a layout"),
        ("T v1: hash, 1 elements", "no line of a layout"),
        ("T v1: hash, 1 elements, flags 0\n  key@0", "no line of a layout"),
        ("T v1: hash, 1 elements, flags 0\n  other@0+4", "no line of a layout"),
        ("T v1: hash, 1 elements, flags 0\n  key@0+4\n    value.x: A=0x1", "no line of a layout"),
        ("T v1: hash, 1 elements, flags 0\n  key.a@0+4\n  key.b@2+4", "overlap"),
        ("T v1: hash, 1 elements, flags 0\n  key.a@0+4\n  key.a@4+4", "one name"),
    ] {
        let error = Layout::parse(text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
    let other = |which| layout(1, &vec![(which, 4, 0)], &vec![(2, 4, 0)]);
    let error = Converter::new(&other(0), &other(1), (vec![0; 4], vec![0; 4])).unwrap_err();
    assert!(error.contains("no field in common"), "{error}");
}

/// The layout that a table has today, or had.
fn of(table: TableId, version: u32) -> Layout {
    Layout::parse(recorded(table.info().name, version).unwrap()).unwrap()
}

#[test]
fn every_version_that_is_read_can_be_read() {
    let mut read = 0;
    for table in TableId::ALL {
        let info = table.info();
        let Some(own) = info.version else { continue };
        let to = of(*table, own);
        let [key, value] = to.ends();
        let kind_has_size = info.key_size > 0;
        assert!(!kind_has_size || (key, value) <= (info.key_size as usize, info.value_size as usize), "{to}");
        assert_eq!(Layout::parse(&to.to_string()).unwrap(), to);
        for version in oldest(*table)..own {
            let from = of(*table, version);
            if from.kind == to.kind && kind_has_size && super::loss(*table).is_none() {
                Converter::new(&from, &to, Converter::blank(*table)).unwrap_or_else(|why| panic!("{from}: {why}"));
                read += 1;
            }
        }
    }
    assert!(read >= 15, "{read} are too few to be all");
}

#[test]
fn c52_a_flow_goes_to_the_version_before_and_comes_back_with_what_that_knows() {
    let table = TableId::EstablishedFlows;
    let (now, before) = (of(table, 6), of(table, 5));
    let down = Converter::new(&now, &before, (vec![0; 40], vec![0; 152])).unwrap();
    let up = Converter::new(&before, &now, Converter::blank(table)).unwrap();
    let tuple = Tuple {
        src: Addr { hi: 1, lo: 2 },
        dst: Addr { hi: 3, lo: 4 },
        sport: WirePort::new(5),
        dport: WirePort::new(6),
        ..Tuple::NONE
    };
    let key = FlowKey::of(&tuple, 6).0;
    let mut flow = Flow {
        flags: FlowFlags::NEAR | FlowFlags::OUTSIDE,
        opener: End { slot: 7, node: 8 },
        backend: 9,
        service: 10,
        opened: 11,
        isn: 12,
        other: tuple,
        state: Owned::new(13),
        acked: Owned::new(14),
        aside: Owned::new(15),
        errors: Owned::new(16),
        seen: 17,
        ..Flow::new()
    };
    flow.seal(key.tag());
    let (old_key, old) = down.convert(key.as_bytes(), flow.as_bytes()).unwrap();
    assert_eq!((old_key.len(), old.len()), (40, 152));
    let (new_key, mut new) = up.convert(&old_key, &old).unwrap();
    Converter::seal(table, &new_key, &mut new).unwrap();
    let found = Flow::read_from_bytes(&new).unwrap();
    assert_eq!(new_key, key.as_bytes());
    assert!(found.is_of(key.tag()));
    // What the version before does not know has its default.
    flow.aside.value = 0;
    assert_eq!(found, flow);
}
