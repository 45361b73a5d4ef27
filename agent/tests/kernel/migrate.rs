//! Tables that an agent of another version has pinned.

use std::path::Path;

use fairlead_agent::bpf::Migration;
use fairlead_agent::layout::{Converter, Field};
use fairlead_datapath::catalog::Kind as TableKind;
use fairlead_datapath::config::Config;
use fairlead_datapath::flow::{End, Flow, FlowFlags, FlowKey, Owned, PodFlows};
use fairlead_datapath::{Tuple, WirePort};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::*;

fn own(table: TableId) -> Layout {
    let info = table.info();
    Layout::parse(recorded(info.name, info.version.unwrap()).unwrap()).unwrap()
}

fn pin(map: &Map, path: &Path) {
    aya::maps::MapData::from_fd(map.as_fd().try_clone_to_owned().unwrap()).unwrap().pin(path).unwrap();
}

/// Pins what a table has as an agent with this layout would have, in its place. `described`: as one that knows of that.
fn relayout(pins: &PinDir, table: TableId, layout: &Layout, described: bool) {
    let old = Map::open(&pins.table(table).unwrap()).unwrap();
    let kinds =
        [TableKind::Hash, TableKind::LruHash, TableKind::Array, TableKind::PerCpuArray, TableKind::SocketStorage];
    let kind = kinds.into_iter().find(|kind| kind.as_str() == layout.kind).unwrap();
    let [key_size, value_size] = layout.ends().map(|end| u32::try_from(end).unwrap());
    let Layout { elements, flags, .. } = *layout;
    let shape = MapShape { map_type: kind.map_type(), key_size, value_size, max_entries: elements, flags };
    let new = Map::create("other", shape).unwrap();
    let blank = (vec![0; key_size as usize], vec![0; value_size as usize]);
    let converter = Converter::new(&own(table), layout, blank).unwrap();
    let parts = old.value_bytes() / (table.info().value_size.next_multiple_of(8) as usize).max(1);
    old.for_each(|key, value| {
        let new_key = converter.key(key).unwrap();
        if kind == TableKind::PerCpuArray {
            let mut values = Vec::new();
            value.chunks_exact(value.len() / parts).for_each(|value| values.extend(converter.value(value).unwrap()));
            drop(new.update(&new_key, &values, 1));
        } else {
            new.update(&new_key, &converter.value(value).unwrap(), 1).unwrap();
        }
    })
    .unwrap();
    pin(&new, &pins.map(&format!("{}@{}", layout.name, layout.version)));
    if described {
        describe(pins, layout);
    }
    std::fs::remove_file(pins.table(table).unwrap()).unwrap();
}

/// Describes a table as its agent would have.
fn describe(pins: &PinDir, layout: &Layout) {
    let text = layout.to_string();
    let shape = MapShape { map_type: 2, key_size: 4, value_size: text.len() as u32, max_entries: 1, flags: 0 };
    let map = Map::create("text", shape).unwrap();
    map.update(&[0; 4], text.as_bytes(), 1).unwrap();
    pin(&map, &pins.map(&format!("layout:{}@{}", layout.name, layout.version)));
}

/// A layout of the next version, in which every field of a value has another place, the value has a field more, and the first bit of
/// a set is another.
fn next(table: TableId, elements: u32) -> Layout {
    let mut layout = own(table);
    layout.version += 1;
    layout.elements = elements;
    let mut offset = 8;
    for field in layout.value.iter_mut().rev() {
        offset = usize::next_multiple_of(offset, field.size.next_power_of_two().min(8));
        field.offset = offset;
        offset += field.size;
        if let Some((_, mask)) = field.bits.first_mut() {
            *mask = 1 << 20;
        }
    }
    layout.value.push(Field { name: "value.new".to_owned(), offset: 0, size: 8, bits: Vec::new() });
    layout
}

fn flow(n: u16, slot: u16) -> (FlowKey, Flow) {
    let tuple = Tuple {
        src: peer(n.into()),
        dst: peer(1 << 20),
        sport: WirePort::new(n),
        dport: WirePort::new(80),
        ..Tuple::NONE
    };
    let (key, _) = FlowKey::of(&tuple, 6);
    let mut flow = Flow {
        flags: FlowFlags::OPENER_IS_A | FlowFlags::NEAR,
        opener: End { slot, node: 3 },
        other: tuple,
        state: Owned::new(7),
        seen: u64::from(n),
        ..Flow::new()
    };
    flow.seal(key.tag());
    (key, flow)
}

fn put(tables: &Tables, table: TableId, flows: &[(FlowKey, Flow)]) {
    for (key, flow) in flows {
        tables.map(table).unwrap().update(key.as_bytes(), flow.as_bytes(), 1).unwrap();
    }
}

fn get(tables: &Tables, table: TableId) -> Vec<(Vec<u8>, Flow)> {
    let mut found = Vec::new();
    let each = |key: &[u8], value: &[u8]| found.push((key.to_vec(), Flow::read_from_bytes(value).unwrap()));
    tables.map(table).unwrap().for_each(each).unwrap();
    found.sort_by_key(|(_, flow)| flow.seen);
    found
}

fn said(flows: &[(FlowKey, Flow)]) -> Vec<(Vec<u8>, Flow)> {
    flows.iter().map(|(key, flow)| (key.as_bytes().to_vec(), *flow)).collect()
}

fn of(migrated: &[Migration], table: TableId) -> &Migration {
    migrated.iter().find(|migration| migration.table == table.info().name).unwrap()
}

/// The names of the programs at a pod's hooks: links first, then filters.
fn hooked(link: &str) -> Vec<u32> {
    use aya::programs::TcAttachType::{Egress, Ingress};
    [Ingress, Egress].map(|way| programs_at(link, way)).concat()
}

#[test]
fn c52_tables_of_another_version_are_read_into_new_ones() {
    in_namespaces("migrate::c52_tables_of_another_version_are_read_into_new_ones", |dir| {
        ip("link add flab index 1000007 type veth peer name eth0");
        let (pins, object) = open(dir);
        let first = load(&object, &pins).unwrap();
        assert_eq!(first.migrated, []);
        let (established, others): (Vec<_>, Vec<_>) =
            ((0..3000).map(|n| flow(n, 7)).collect(), (4000..4100).map(|n| flow(n, u16::MAX)).collect());
        put(&first.tables, TableId::EstablishedFlows, &established);
        put(&first.tables, TableId::OtherFlows, &others);
        let config = Config { seed: 77, max_flows: 5, ..Config::default() };
        first.tables.map(TableId::Settings).unwrap().update(&[0; 4], config.as_bytes(), 1).unwrap();
        let drops = first.tables.map(TableId::Drops).unwrap();
        let counts: Vec<u8> = (1..=drops.value_bytes() as u64 / 8).flat_map(u64::to_ne_bytes).collect();
        drops.update(&3_u32.to_ne_bytes(), &counts, 1).unwrap();
        let mut hooks = Hooks::new(first.ebpf, pins.clone());
        hooks.attach_pod("flab", 1_000_007).unwrap();
        let before = hooked("flab");
        drop((hooks, first.tables));

        // An agent of the next version ran; this one is older.
        relayout(&pins, TableId::EstablishedFlows, &next(TableId::EstablishedFlows, 600_000), true);
        relayout(&pins, TableId::OtherFlows, &next(TableId::OtherFlows, 1000), true);
        relayout(&pins, TableId::Settings, &next(TableId::Settings, 1), true);
        relayout(&pins, TableId::Drops, &Layout::parse(recorded("DROPS", 1).unwrap()).unwrap(), false);
        let second = load(&object, &pins).unwrap();
        assert!(second.adopted);
        assert_eq!(get(&second.tables, TableId::EstablishedFlows), said(&established));
        assert_eq!(get(&second.tables, TableId::OtherFlows), said(&others));
        let found = second.tables.map(TableId::Settings).unwrap().get(&[0; 4]).unwrap().unwrap();
        assert_eq!(Config::read_from_bytes(&found).unwrap(), config);
        assert_eq!(second.tables.map(TableId::Drops).unwrap().get(&3_u32.to_ne_bytes()).unwrap().unwrap(), counts);
        let whole = |table: TableId, from: u32, elements: u64| Migration {
            table: table.info().name,
            from,
            to: table.info().version.unwrap(),
            elements,
            no_room: 0,
            unreadable: 0,
            lost: None,
        };
        let version = TableId::EstablishedFlows.info().version.unwrap();
        assert_eq!(
            *of(&second.migrated, TableId::EstablishedFlows),
            whole(TableId::EstablishedFlows, version + 1, 3000)
        );
        assert_eq!(*of(&second.migrated, TableId::OtherFlows), whole(TableId::OtherFlows, version + 1, 100));
        assert_eq!(*of(&second.migrated, TableId::Drops), whole(TableId::Drops, 1, 1));
        assert_eq!(second.migrated.len(), 4);
        // Each hook has the new program and nothing else, though nobody has attached anything yet.
        let after = hooked("flab");
        assert_eq!(after.len(), 2);
        assert!(after.iter().all(|id| !before.contains(id)), "{before:?} {after:?}");
        let mut hooks = Hooks::new(second.ebpf, pins.clone());
        hooks.attach_pod("flab", 1_000_007).unwrap();
        assert_eq!(hooked("flab"), after, "they are the agent's own");
        drop((hooks, second.tables));

        // Nothing is left of the other versions, and every table is described.
        let mut wanted: Vec<_> = TableId::ALL.iter().filter_map(|id| id.info().pin()).collect();
        wanted.sort();
        let mut pinned: Vec<_> = names(&dir.join("maps"));
        pinned.retain(|name| !name.starts_with("layout:"));
        assert_eq!(pinned, wanted);
        let described: Vec<_> = wanted.iter().map(|pin| format!("layout:{pin}")).collect();
        assert_eq!(
            names(&dir.join("maps")).into_iter().filter(|n| n.starts_with("layout:")).collect::<Vec<_>>(),
            described
        );
        assert_eq!(load(&object, &pins).unwrap().migrated, []);
    });
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn c52_filters_get_the_new_programs_as_well() {
    in_namespaces("migrate::c52_filters_get_the_new_programs_as_well", |dir| {
        ip("link add flab index 1000007 type veth peer name eth0");
        let shown = |way: &str| {
            let shown = Command::new("tc").args(["filter", "show", "dev", "flab", way]).output().unwrap();
            let shown = String::from_utf8(shown.stdout).unwrap();
            let line = shown.lines().find(|line| line.contains("handle 0x1 ") && !line.contains("guard")).unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |word: &str| words.iter().skip_while(|w| **w != word).nth(1).map(|w| (*w).to_owned());
            (after("0x1").unwrap(), after("id").unwrap())
        };
        let (pins, object) = open(dir);
        let first = load(&object, &pins).unwrap();
        let mut hooks = Hooks::without_tcx(first.ebpf, pins.clone());
        hooks.attach_pod("flab", 1_000_007).unwrap();
        let before = ["ingress", "egress"].map(shown);
        drop((hooks, first.tables));
        relayout(&pins, TableId::OtherFlows, &next(TableId::OtherFlows, 1000), true);
        let second = load(&object, &pins).unwrap();
        let after = ["ingress", "egress"].map(shown);
        let program = second.ebpf.program("from_pod").unwrap().info().unwrap().id();
        assert_eq!(after[0], ("from_pod".to_owned(), program.to_string()));
        assert_eq!((&*after[1].0, after[1].1 != before[1].1), ("to_pod", true), "{before:?} {after:?}");
    });
}

#[test]
fn c52_an_agent_that_ends_while_it_reads_begins_again_and_one_that_has_read_is_done() {
    in_namespaces("migrate::c52_an_agent_that_ends_while_it_reads_begins_again_and_one_that_has_read_is_done", |dir| {
        let (pins, object) = open(dir);
        let flows: Vec<_> = (0..50).map(|n| flow(n, 7)).collect();
        let table = TableId::EstablishedFlows;
        let own_pin = pins.table(table).unwrap();
        let full = pins.map(&format!("new:{}", table.info().pin().unwrap()));
        put(&load(&object, &pins).unwrap().tables, table, &flows);
        // It ended before it had read all.
        let half = Map::create("half", table.info().into()).unwrap();
        half.update(flows[0].0.as_bytes(), flows[0].1.as_bytes(), 1).unwrap();
        relayout(&pins, table, &next(table, 1000), true);
        pin(&half, &full);
        assert_eq!(get(&load(&object, &pins).unwrap().tables, table), said(&flows));
        // It ended when the old pin was gone, with or without its own.
        std::fs::rename(&own_pin, &full).unwrap();
        let loaded = load(&object, &pins).unwrap();
        assert_eq!((get(&loaded.tables, table), loaded.migrated), (said(&flows), vec![]));
        pin(&Map::open(&own_pin).unwrap(), &full);
        assert_eq!(get(&load(&object, &pins).unwrap().tables, table), said(&flows));
        // What nothing uses goes, so that nobody takes it for the flows there are.
        pin(&half, &pins.map(&format!("{table}@5")));
        assert_eq!(get(&load(&object, &pins).unwrap().tables, table), said(&flows));
        assert_eq!(names(&dir.join("maps")).iter().filter(|name| name.starts_with("CT_EST")).count(), 1);
        // So does a table that only another release has.
        pin(&half, &pins.map("MORE@1"));
        assert_eq!(get(&load(&object, &pins).unwrap().tables, table), said(&flows));
        assert!(!pins.map("MORE@1").exists());
        // An older agent finds one that a newer left there.
        relayout(&pins, table, &next(table, 1000), true);
        let newer = format!("{table}@{}", table.info().version.unwrap() + 1);
        std::fs::rename(pins.map(&newer), pins.map(&format!("new:{newer}"))).unwrap();
        let loaded = load(&object, &pins).unwrap();
        assert_eq!((get(&loaded.tables, table), loaded.migrated.len()), (said(&flows), 1));
    });
}

#[test]
fn c53_what_is_left_out_is_said_and_counted_no_more() {
    in_namespaces("migrate::c53_what_is_left_out_is_said_and_counted_no_more", |dir| {
        let (pins, object) = open(dir);
        let first = load(&object, &pins).unwrap().tables;
        let flows: Vec<_> = (0..20).map(|n| flow(n, if n < 5 { 7 } else { 8 })).collect();
        put(&first, TableId::EstablishedFlows, &flows);
        let counts = |tables: &Tables, index: u16| {
            let found = tables.map(TableId::FlowCounts).unwrap().get(&u32::from(index).to_ne_bytes()).unwrap().unwrap();
            u64::from_ne_bytes(*found.first_chunk().unwrap())
        };
        for (index, count) in [(7_u32, 5_u64), (8, 15), (u32::from(PodFlows::EVERYBODY), 20)] {
            let mut value = [0; 40];
            value[..8].copy_from_slice(&count.to_ne_bytes());
            first.map(TableId::FlowCounts).unwrap().update(&index.to_ne_bytes(), &value, 1).unwrap();
        }
        drop(first);
        // A number that this version has no room for, in two of the flows.
        let mut layout = next(TableId::EstablishedFlows, 1000);
        let end = layout.ends()[1];
        let slot = layout.value.iter_mut().find(|field| field.name == "value.opener.slot").unwrap();
        (slot.offset, slot.size) = (end, 4);
        relayout(&pins, TableId::EstablishedFlows, &layout, true);
        let other = Map::open(&pins.map(&format!("{}@{}", layout.name, layout.version))).unwrap();
        for (key, _) in &flows[..2] {
            let mut value = other.get(key.as_bytes()).unwrap().unwrap();
            value[end..].copy_from_slice(&70_000_u32.to_ne_bytes());
            other.update(key.as_bytes(), &value, 1).unwrap();
        }
        drop(other);
        // A table that has more than there is room for.
        let table = TableId::Uplinks;
        let mut larger = own(table);
        (larger.version, larger.elements) = (larger.version + 1, 20_000);
        relayout(&pins, table, &larger, true);
        let many = Map::open(&pins.map(&format!("{}@{}", larger.name, larger.version))).unwrap();
        let keys: Vec<u8> = (1..=17_000_u32).flat_map(u32::to_ne_bytes).collect();
        many.update(&keys, &vec![1; 17_000 * 40], 17_000).unwrap();
        let second = load(&object, &pins).unwrap();
        assert_eq!(get(&second.tables, TableId::EstablishedFlows), said(&flows[2..]));
        let left = of(&second.migrated, TableId::EstablishedFlows);
        assert_eq!((left.elements, left.no_room, left.unreadable), (18, 0, 2));
        let left = of(&second.migrated, table);
        assert_eq!((left.elements, left.no_room, left.unreadable), (16_384, 616, 0));
        let all = [7, 8, PodFlows::EVERYBODY].map(|index| counts(&second.tables, index));
        assert_eq!(all, [3, 15, 18]);
    });
}

#[test]
fn c53_a_smaller_table_keeps_what_was_used_last() {
    in_namespaces("migrate::c53_a_smaller_table_keeps_what_was_used_last", |dir| {
        let (pins, object) = open(dir);
        drop(load(&object, &pins).unwrap());
        let table = TableId::Affinities;
        let room = table.info().elements;
        let mut larger = own(table);
        (larger.version, larger.elements) = (larger.version + 1, room * 2);
        relayout(&pins, table, &larger, true);
        let many = Map::open(&pins.map(&format!("{}@{}", larger.name, larger.version))).unwrap();
        let seen = larger.value.iter().find(|field| field.name == "value.seen").unwrap().offset;
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for n in 0..room + 5000 {
            keys.extend([n, n].map(u32::to_ne_bytes).concat());
            let mut value = vec![0; table.info().value_size as usize];
            value[seen..seen + 4].copy_from_slice(&(n + 1).to_ne_bytes());
            values.extend(value);
        }
        many.update(&keys, &values, (room + 5000) as usize).unwrap();
        let mut there = 0_u64;
        many.for_each(|_, _| there += 1).unwrap();
        let loaded = load(&object, &pins).unwrap();
        let left = of(&loaded.migrated, table);
        assert_eq!((left.elements + left.no_room, left.no_room), (there, there - u64::from(room)));
    });
}

#[test]
fn c53_a_table_that_may_begin_empty_does_and_says_what_is_lost() {
    in_namespaces("migrate::c53_a_table_that_may_begin_empty_does_and_says_what_is_lost", |dir| {
        let (pins, object) = open(dir);
        drop(load(&object, &pins).unwrap());
        let table = TableId::Affinities;
        let path = pins.table(table).unwrap();
        std::fs::rename(&path, pins.map(&format!("{table}@99"))).unwrap();
        let loaded = load(&object, &pins).unwrap();
        let lost = of(&loaded.migrated, table).lost.clone().unwrap();
        assert!(lost.contains("another endpoint, since nothing says what its fields are"), "{lost}");
        assert!(path.exists() && !pins.map(&format!("{table}@99")).exists());
    });
}
