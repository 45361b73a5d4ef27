//! Tables that an agent of another version has pinned.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use fairlead_agent::bpf::{Migration, XdpUplink};
use fairlead_agent::layout::{Converter, Field};
use fairlead_agent::repair::Filters;
use fairlead_agent::xdp::Xdp;
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

const AS_AGENT: &str = "FAIRLEAD_KERNEL_TEST_AGENT";

/// What [`as_agent`] runs.
#[test]
fn loads_as_an_agent() {
    let Ok(what) = std::env::var(AS_AGENT) else { return };
    let (pins, object) = open(Path::new("/sys/fs/bpf/fairlead"));
    let loaded = if what == "tcx" { load(&object, &pins) } else { load_without_tcx(&object, &pins) };
    let loaded = loaded.unwrap_or_else(|error| panic!("refused: {error}"));
    assert!(!loaded.migrated.is_empty());
}

/// Loads in another process, which has the capabilities of an agent and no others, and ends. Whether it could.
fn as_agent(what: &str) -> Result<(), String> {
    run_as_agent(what, "-all,+net_admin,+net_broadcast,+bpf,+perfmon")
}

fn run_as_agent(what: &str, capabilities: &str) -> Result<(), String> {
    let exe = std::env::current_exe().unwrap();
    let ran = Command::new("setpriv")
        .args(["--inh-caps=-all", &format!("--bounding-set={capabilities}")])
        .arg(exe)
        .args(["--exact", "migrate::loads_as_an_agent", "--nocapture", "--test-threads=1"])
        .env(AS_AGENT, what)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("1 passed") || said.contains("refused:"), "{said}");
    if ran.status.success() { Ok(()) } else { Err(said) }
}

/// What is at the filters of an interface: priority, name and program.
fn filters(link: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for way in ["ingress", "egress"] {
        let shown = Command::new("tc").args(["filter", "show", "dev", link, way]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        for line in shown.lines().filter(|line| line.contains("handle 0x1 ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |word: &str| words.iter().skip_while(|w| **w != word).nth(1).map(|w| (*w).to_owned()).unwrap();
            found.push((after("pref"), after("0x1"), after("id")));
        }
    }
    found
}

/// Keeps a pin that is the first to go after the pause has begun from being removed, until this is dropped.
struct Held(PathBuf);

fn hold(pins: &PinDir) -> Held {
    let pin = pins.table(TableId::FlowCounts).unwrap();
    assert!(Command::new("mount").arg("--bind").arg(&pin).arg(&pin).status().unwrap().success());
    Held(pin)
}

impl Drop for Held {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg(&self.0).status().unwrap().success());
    }
}

/// Every interface that has programs, and the pods' first.
const LINKS: [(&str, u32); 6] = [
    ("flab", 1_000_007),
    ("flac", 1_000_008),
    ("foreign", 77),
    ("eth7", 78),
    ("fairlead.vxlan", 999_999),
    ("fairlead.svc", 999_998),
];

/// An agent that has programs at every kind of interface: also of a device without Ethernet headers.
fn attach_all(loaded: fairlead_agent::bpf::Loaded, pins: &PinDir, tcx: bool) {
    for (n, (link, ifindex)) in LINKS.into_iter().enumerate() {
        ip(&format!("link add {link} index {ifindex} type veth peer name peer{n}"));
    }
    ip("tuntap add bare mode tun");
    let side = [77_u32.to_ne_bytes(), 9_u32.to_ne_bytes()].concat();
    loaded.tables.map(TableId::Foreign).unwrap().update(&77_u32.to_ne_bytes(), &side, 1).unwrap();
    let mut hooks =
        if tcx { Hooks::new(loaded.ebpf, pins.clone()) } else { Hooks::without_tcx(loaded.ebpf, pins.clone()) };
    hooks.attach_pod("flab", 1_000_007).unwrap();
    hooks.attach_pod("flac", 1_000_008).unwrap();
    hooks.attach_foreign("foreign", 77).unwrap();
    hooks.attach_uplink("eth7", 78, false).unwrap();
    hooks.attach_uplink("bare", nix::net::if_::if_nametoindex("bare").unwrap(), true).unwrap();
    hooks.attach_overlay("fairlead.vxlan", 999_999).unwrap();
    hooks.attach_services("fairlead.svc", 999_998).unwrap();
}

fn all_links() -> impl Iterator<Item = &'static str> {
    LINKS.into_iter().map(|(link, _)| link).chain(["bare"])
}

/// The names of the programs at an interface's tcx hooks, with their ids.
fn names_at(link: &str) -> Vec<(String, u32)> {
    use aya::programs::TcAttachType::{Egress, Ingress};
    let of = |way| aya::programs::SchedClassifier::query_tcx(link, way).unwrap().1;
    let all = [Ingress, Egress].map(of);
    all.iter().flatten().map(|program| (program.name_as_str().unwrap().to_owned(), program.id())).collect()
}

/// Has an agent find a table that can't be put in the place of the old one: the pause ends, and everything is as it was. The next one
/// takes over. What was there before and after.
fn fails_and_takes_over<S: PartialEq + std::fmt::Debug>(
    dir: &Path,
    pins: &PinDir,
    hooks: &str,
    state: impl Fn() -> S,
) -> [S; 2] {
    let before = state();
    let table = TableId::OtherFlows;
    relayout(pins, table, &next(table, 1000), true);
    let held = hold(pins);
    let said = as_agent(hooks).unwrap_err();
    assert!(said.contains("can't remove the pin") && said.contains("POD_FLOWS"), "{said}");
    assert_eq!(state(), before);
    let maps = names(&dir.join("maps"));
    let [old, new] = [1, 0].map(|up| format!("{table}@{}", table.info().version.unwrap() + up));
    assert!(maps.contains(&old) && !maps.contains(&new), "{maps:?}");
    drop(held);
    as_agent(hooks).unwrap();
    [before, state()]
}

/// Programs are known by what their interfaces are: the kernel shows no agent whose they are.
#[test]
fn c52_an_agent_with_its_capabilities_alone_replaces_every_program_or_none() {
    in_namespaces("migrate::c52_an_agent_with_its_capabilities_alone_replaces_every_program_or_none", |dir| {
        let (pins, object) = open(dir);
        attach_all(load(&object, &pins).unwrap(), &pins, true);
        let state = || all_links().map(|link| (link, names_at(link), filters(link))).collect::<Vec<_>>();
        let [before, after] = fails_and_takes_over(dir, &pins, "tcx", state);
        for ((link, before, _), (_, after, _)) in before.iter().zip(&after) {
            let names = |all: &[(String, u32)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            assert_eq!(names(before), names(after), "{link}");
            assert!(!before.is_empty(), "{link}");
            assert!(after.iter().all(|program| !before.contains(program)), "{link}: {before:?} {after:?}");
        }
    });
}

/// An XDP program has none in front of it: it is gone as soon as tables are read, and no agent can put it back.
#[test]
fn c52_no_xdp_program_of_an_agent_before_sees_a_packet_after_a_takeover_has_begun() {
    let test = "migrate::c52_no_xdp_program_of_an_agent_before_sees_a_packet_after_a_takeover_has_begun";
    in_namespaces(test, |dir| {
        let (pins, object) = open(dir);
        attach_all(load(&object, &pins).unwrap(), &pins, true);
        let mut hooks = Hooks::new(load(&object, &pins).unwrap().ebpf, pins.clone()).with_xdp(Xdp::Native);
        hooks.set_xdp_uplinks(vec![uplink("eth7", 78)]);
        drop(hooks);
        // Before, when the agent has failed, and when the next has taken over.
        let seen = RefCell::new(Vec::new());
        fails_and_takes_over(dir, &pins, "tcx", || seen.borrow_mut().push(xdp_at("eth7").unwrap()));
        let (names, ids): (Vec<_>, Vec<_>) = seen.into_inner().into_iter().unzip();
        assert_eq!(names, ["xdp_uplink", "xdp_pass", "xdp_uplink"]);
        assert_ne!(ids[2], ids[0]);
    });
}

#[test]
fn s82_the_link_of_an_uplink_that_is_renamed_or_not_yet_known_stays() {
    in_namespaces("migrate::s82_the_link_of_an_uplink_that_is_renamed_or_not_yet_known_stays", |dir| {
        let (pins, object) = open(dir);
        ip("link add eth7 index 78 type veth peer name peer7");
        ip("link add eth8 index 79 type veth peer name peer8");
        let hooks = || Hooks::new(load(&object, &pins).unwrap().ebpf, pins.clone()).with_xdp(Xdp::Native);
        let is_there = |hooks: &Hooks| hooks.xdp().iter().all(|(_, obstacle)| obstacle.is_none());
        let links = || {
            let xdp = pins.links().unwrap().into_iter().filter(|name| name.starts_with("xdp_"));
            xdp.map(|name| (link_id(&pins.link(&name)), name)).collect::<BTreeSet<_>>()
        };
        let mut first = hooks();
        first.set_xdp_uplinks(vec![uplink("eth7", 78), uplink("eth8", 79)]);
        first.detach_other_xdp();
        assert!(is_there(&first), "{:?}", first.xdp());
        let before = links();
        drop(first);
        // While no agent runs, and while one does.
        let mut names = ["eth7", "lan7", "wan7"].into_iter();
        let mut name = names.next().unwrap();
        for next in names {
            let mut running = hooks();
            running.set_xdp_uplinks(vec![uplink(name, 78)]);
            ip(&format!("link set {name} name {next}"));
            let filters = Filters { as_of: Instant::now(), interfaces: BTreeSet::new(), programs: BTreeMap::new() };
            running.look(&load(&object, &pins).unwrap().tables, &filters);
            running.set_xdp_uplinks(vec![uplink(next, 78)]);
            running.set_xdp_uplinks(vec![uplink(next, 78), uplink("eth8", 79)]);
            running.detach_other_xdp();
            assert!(is_there(&running), "{:?}", running.xdp());
            drop(running);
            let renamed = |(id, name): &(u32, String)| (*id, name.replace("eth7", next));
            assert_eq!(links(), before.iter().map(renamed).collect());
            name = next;
        }
        ip("link set wan7 name eth7");
        let mut last = hooks();
        last.set_xdp_uplinks(vec![uplink("eth7", 78)]);
        assert_eq!(links(), before, "another may still be found");
        last.detach_other_xdp();
        assert_eq!(links().len(), 1);
        // A VLAN device stands on it now: the program can't tell of which VLAN a packet is.
        last.set_xdp_uplinks(vec![XdpUplink { has_vlans: true, ..uplink("eth7", 78) }]);
        assert_eq!((links().len(), xdp_at("eth7")), (0, None));
    });
}

fn uplink(name: &str, ifindex: u32) -> XdpUplink {
    XdpUplink { ifindex, name: name.to_owned(), mtu: 1500, has_vlans: false }
}

fn link_id(pin: &Path) -> u32 {
    aya::programs::links::FdLink::from(aya::programs::links::PinnedLink::from_pin(pin).unwrap()).info().unwrap().id()
}

/// The name of the program at an interface's driver, and its id.
fn xdp_at(link: &str) -> Option<(String, u32)> {
    let shown = Command::new("ip").args(["-j", "link", "show", link]).output().unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let id = shown[0]["xdp"]["prog"]["id"].as_u64()?;
    let program = aya::programs::loaded_programs().flatten().find(|program| u64::from(program.id()) == id).unwrap();
    Some((program.name_as_str().unwrap().to_owned(), program.id()))
}

#[test]
fn c52_before_tcx_every_filter_is_replaced_or_none_and_a_pause_ends_with_the_next_agent() {
    let test = "migrate::c52_before_tcx_every_filter_is_replaced_or_none_and_a_pause_ends_with_the_next_agent";
    in_namespaces(test, |dir| {
        let (pins, object) = open(dir);
        attach_all(load(&object, &pins).unwrap(), &pins, false);
        let state = || all_links().map(|link| (link, filters(link))).collect::<Vec<_>>();
        let [before, after] = fails_and_takes_over(dir, &pins, "filters", state);
        for ((link, before), (_, after)) in before.iter().zip(&after) {
            let names = |all: &[(String, String, String)]| {
                all.iter().map(|(pref, name, _)| (pref.clone(), name.clone())).collect::<Vec<_>>()
            };
            assert_eq!(names(before), names(after), "{link}");
            // Guards are replaced when programs are attached.
            let programs = || after.iter().filter(|(pref, ..)| pref == "50");
            assert!(programs().count() > 0 && programs().all(|program| !before.contains(program)), "{link}");
        }
        // An agent was killed in the pause.
        leave_in_a_pause(load_without_tcx(&object, &pins).unwrap().ebpf);
        assert_ne!(state(), after);
        drop(load_without_tcx(&object, &pins).unwrap());
        assert_eq!(state(), after);
    });
}

/// Leaves guards where a pause puts them.
fn leave_in_a_pause(mut ebpf: aya::Ebpf) {
    use aya::programs::SchedClassifier;
    use aya::programs::tc::{NlOptions, TcAttachOptions, TcAttachType};
    let guard: &mut SchedClassifier = ebpf.program_mut("fairlead_guard").unwrap().try_into().unwrap();
    for link in all_links() {
        for way in [TcAttachType::Ingress, TcAttachType::Egress] {
            let options =
                TcAttachOptions::Netlink(NlOptions { priority: 40, handle: 1.into(), ..NlOptions::default() });
            guard.attach_with_options(link, way, options).unwrap();
        }
    }
    // They are detached with it.
    std::mem::forget(ebpf);
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

/// Counters are right for the flows that there are, whatever the table before said and however large it was.
#[test]
fn c53_what_is_counted_of_flows_is_counted_again() {
    in_namespaces("migrate::c53_what_is_counted_of_flows_is_counted_again", |dir| {
        let (pins, object) = open(dir);
        let first = load(&object, &pins).unwrap().tables;
        let flows: Vec<_> = (0..20).map(|n| flow(n, if n < 5 { 7 } else { 8 })).collect();
        put(&first, TableId::EstablishedFlows, &flows);
        let count = |tables: &Tables, table: TableId, index: u32| {
            let found = tables.map(table).unwrap().get(&index.to_ne_bytes()).unwrap().unwrap();
            u64::from_ne_bytes(*found.first_chunk().unwrap())
        };
        let all = |tables: &Tables| {
            [7, 8, 9, u32::from(PodFlows::EVERYBODY)].map(|index| count(tables, TableId::FlowCounts, index))
        };
        let spoil = |tables: &Tables| {
            let (mut value, index) = ([0; 40], 9_u32.to_ne_bytes());
            value[..8].copy_from_slice(&77_u64.to_ne_bytes());
            tables.map(TableId::FlowCounts).unwrap().update(&index, &value, 1).unwrap();
            tables.map(TableId::PortShares).unwrap().update(&index, &value[..8], 1).unwrap();
        };
        spoil(&first);
        drop(first);
        // Of another size: places in it are others.
        for table in [TableId::FlowCounts, TableId::PortShares] {
            relayout(&pins, table, &next(table, table.info().elements + 64), true);
        }
        let second = load(&object, &pins).unwrap();
        assert_eq!(all(&second.tables), [5, 15, 0, 20]);
        assert_eq!(count(&second.tables, TableId::PortShares, 9), 0);
        assert_eq!(second.migrated.len(), 2);
        spoil(&second.tables);
        drop(second);
        // This agent's own, of flows that another has: it may have ended between the two.
        relayout(&pins, TableId::EstablishedFlows, &next(TableId::EstablishedFlows, 1000), true);
        let third = load(&object, &pins).unwrap();
        assert_eq!((all(&third.tables), third.migrated.len()), ([5, 15, 0, 20], 1));
        assert_eq!(count(&third.tables, TableId::PortShares, 9), 0);
        assert_eq!(get(&third.tables, TableId::EstablishedFlows), said(&flows));
        assert!(names(&dir.join("maps")).iter().all(|name| !name.starts_with("new:")));
    });
}

#[test]
fn c53_a_table_is_described_before_the_kernel_has_seen_the_programs() {
    in_namespaces("migrate::c53_a_table_is_described_before_the_kernel_has_seen_the_programs", |dir| {
        let (pins, _) = open(dir);
        let said = run_as_agent("tcx", "-all,+net_admin,+bpf").unwrap_err();
        let tables = pins.maps().unwrap();
        assert!(tables.len() > 20, "{tables:?}\n{said}");
        for pin in tables {
            assert!(pins.map(&format!("layout:{pin}")).exists(), "{pin}");
        }
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
        // The kernel keeps most of them.
        let seen_in = |map: &Map, place: usize| {
            let mut all = Vec::new();
            let each =
                |_: &[u8], value: &[u8]| all.push(u32::from_ne_bytes(value[place..place + 4].try_into().unwrap()));
            map.for_each(each).unwrap();
            all.sort_unstable();
            all
        };
        let there = seen_in(&many, seen);
        let loaded = load(&object, &pins).unwrap();
        let left = of(&loaded.migrated, table);
        let too_many = there.len() - room as usize;
        assert_eq!((left.elements + left.no_room, left.no_room), (there.len() as u64, too_many as u64));
        let seen = own(table).value.iter().find(|field| field.name == "value.seen").unwrap().offset;
        let kept = seen_in(loaded.tables.map(table).unwrap(), seen);
        assert!(kept.first() >= there.get(too_many), "{:?} is older than {:?}", kept.first(), there.get(too_many));
        // A table of this kind drops some before it is full.
        assert!(kept.len() > room as usize * 99 / 100, "{} of {room}", kept.len());
        assert_eq!(kept.last(), there.last());
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
