//! The object in a real kernel: loaded, pinned, adopted, replaced. Needs root; everything happens in namespaces of a child
//! process, which take it with them.

mod begin;
mod migrate;

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use fairlead_agent::apply::apply;
use fairlead_agent::bpf::{BpfError, Hooks, Map, MapShape, ObjectFile, PinDir, Tables, load, load_without_tcx};
use fairlead_agent::layout::Layout;
use fairlead_agent::plan::Op;
use fairlead_agent::repair::{Kind, Looked};
use fairlead_agent::state::counts_of;
use fairlead_agent::wiring::Netlink;
use fairlead_datapath::Addr;
use fairlead_datapath::catalog::{TableId, recorded};
use fairlead_datapath::drop::{DropReason, MAX_DROP_REASONS};
use fairlead_datapath::peer::{Peer, Pod};

const CHILD: &str = "FAIRLEAD_KERNEL_TEST";

/// Runs the test's body in a child with namespaces of its own and a bpf file system on /sys/fs/bpf.
fn in_namespaces(test: &str, body: impl FnOnce(&Path)) {
    if std::env::var_os(CHILD).is_some() {
        return body(Path::new("/sys/fs/bpf/fairlead"));
    }
    let script = "mount -t tmpfs none /sys/fs/bpf 2>/dev/null || true; mount -t bpf bpf /sys/fs/bpf && \
                  ip link set lo up && exec \"$0\" --exact \"$1\" --nocapture --test-threads=1";
    let exe = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .args(["--mount", "--net", "--propagation", "private", "sh", "-c", script])
        .arg(exe)
        .arg(test)
        .env(CHILD, "1")
        .status()
        .unwrap();
    assert!(status.success(), "the child failed; this test needs root");
}

fn ip(args: &str) {
    assert!(Command::new("ip").args(args.split(' ')).status().unwrap().success(), "ip {args}");
}

fn tc(args: &str) {
    assert!(Command::new("tc").args(args.split(' ')).status().unwrap().success(), "tc {args}");
}

fn open(dir: &Path) -> (PinDir, ObjectFile) {
    (PinDir::open(dir).unwrap(), ObjectFile::find().unwrap())
}

/// The ids of the programs at an interface's hook.
fn programs_at(link: &str, way: aya::programs::TcAttachType) -> Vec<u32> {
    let (_, programs) = aya::programs::SchedClassifier::query_tcx(link, way).unwrap();
    programs.iter().map(aya::programs::ProgramInfo::id).collect()
}

fn peer(n: u64) -> Addr {
    Addr { hi: 0xfd, lo: n }
}

/// What programs have counted of a pod goes when a new pod has its slot.
#[test]
fn drops_of_a_pod_are_counted_from_zero() {
    in_namespaces("drops_of_a_pod_are_counted_from_zero", |dir| {
        let (pins, object) = open(dir);
        let tables = load(&object, &pins).unwrap().tables;
        let mut counts = [0_u64; MAX_DROP_REASONS as usize];
        (counts[DropReason::Vlan as usize], counts[DropReason::IngressPolicy as usize]) = (7, 9);
        let map = tables.map(TableId::DropsOfPods).unwrap();
        for slot in [4_u32, 5] {
            let bytes: Vec<u8> = counts.iter().flat_map(|count| count.to_ne_bytes()).collect();
            map.update(&slot.to_ne_bytes(), &bytes, 1).unwrap();
        }
        let both = [(DropReason::IngressPolicy, 9), (DropReason::Vlan, 7)];
        assert_eq!(counts_of(&tables, 4), both);
        apply(&mut &tables, &[Op::Pod { slot: 4, value: Pod::NONE }]).unwrap();
        assert_eq!((counts_of(&tables, 4), counts_of(&tables, 5)), (vec![], both.to_vec()));
    });
}

#[test]
fn maps_are_adopted_and_links_updated() {
    in_namespaces("maps_are_adopted_and_links_updated", |dir| {
        ip("link add flab type veth peer name eth0");
        let index = nix::net::if_::if_nametoindex("flab").unwrap();
        let (pins, object) = open(dir);
        let first = load(&object, &pins).unwrap();
        assert!(!first.adopted);
        let plan: Vec<_> = (0..5000).map(|n| Op::Peer { addr: peer(n), value: Some(Peer::WORLD) }).collect();
        apply(&mut &first.tables, &plan).unwrap();
        apply(&mut &first.tables, &[Op::Barrier]).unwrap();
        let mut hooks = Hooks::new(first.ebpf, pins.clone());
        hooks.attach_pod("flab", index).unwrap();
        let before = programs_at("flab", aya::programs::TcAttachType::Ingress);
        assert_eq!(before.len(), 1);
        // What a killed agent leaves behind.
        drop(hooks);
        drop(first.tables);
        assert_eq!(programs_at("flab", aya::programs::TcAttachType::Ingress), before);

        let second = load(&object, &pins).unwrap();
        assert!(second.adopted);
        let mut found = 0;
        second.tables.map(TableId::Peers).unwrap().for_each(|_, _| found += 1).unwrap();
        assert_eq!(found, 5000);
        let mut hooks = Hooks::new(second.ebpf, pins);
        hooks.attach_pod("flab", index).unwrap();
        for way in [aya::programs::TcAttachType::Ingress, aya::programs::TcAttachType::Egress] {
            let after = programs_at("flab", way);
            assert_eq!(after.len(), 1, "replaced, not added");
            assert_ne!(after, before);
        }
        assert_eq!(hooks.links().unwrap().len(), 2);
        assert_eq!(hooks.remove_orphans().unwrap(), 0);
        ip("link del flab");
        assert_eq!(hooks.remove_orphans().unwrap(), 2);
        // The same name again is another interface.
        ip("link add flab type veth peer name eth0");
        hooks.attach_pod("flab", nix::net::if_::if_nametoindex("flab").unwrap()).unwrap();
        assert_eq!(programs_at("flab", aya::programs::TcAttachType::Ingress).len(), 1);
        drop(hooks);
        PinDir::remove(dir).unwrap();
        assert!(!dir.exists());
        // The kernel detaches in a work queue.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while !programs_at("flab", aya::programs::TcAttachType::Ingress).is_empty() {
            assert!(std::time::Instant::now() < deadline, "still attached without a pin");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    });
}

/// What somebody does to what is attached and pinned: its name, and the kinds of repair that follow.
type Harm = (&'static str, fn(&Path), &'static [Kind]);

#[test]
fn s73_an_uplink_that_gets_another_name_keeps_one_program_in_each_direction() {
    use aya::programs::TcAttachType::{Egress, Ingress};
    in_namespaces("s73_an_uplink_that_gets_another_name_keeps_one_program_in_each_direction", |dir| {
        for line in ["link add eth1 type veth peer name far1", "link add eth2 type veth peer name far2"] {
            ip(line);
        }
        let [one, two] = ["eth1", "eth2"].map(|name| nix::net::if_::if_nametoindex(name).unwrap());
        let (pins, object) = open(dir);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let netlink = runtime.block_on(async { Netlink::open().unwrap() });
        let first = load(&object, &pins).unwrap();
        let mut hooks = Hooks::new(first.ebpf, pins.clone());
        hooks.attach_uplink("eth1", one, false).unwrap();
        hooks.attach_uplink("eth2", two, false).unwrap();
        let before = [Ingress, Egress].map(|way| programs_at("eth1", way));
        let check = |hooks: &Hooks, names: [&str; 2], expected: Option<&[Vec<u32>; 2]>| {
            for name in names {
                let now = [Ingress, Egress].map(|way| programs_at(name, way));
                assert!(now.iter().all(|programs| programs.len() == 1), "{name}: {now:?}");
                assert!(expected.is_none_or(|expected| *expected == now), "{name}: {now:?}");
            }
            assert_eq!(hooks.links().unwrap().len(), 4, "{:?}", hooks.links());
        };
        ip("link set eth1 name lan0");
        // Whoever looks after programs may see it before the uplinks are listed again.
        let filters = runtime.block_on(netlink.filters(&[one, two].into())).unwrap();
        assert_eq!(hooks.look(&first.tables, &filters), Looked::default());
        hooks.detach_uplink("eth1", one);
        hooks.attach_uplink("lan0", one, false).unwrap();
        check(&hooks, ["lan0", "eth2"], Some(&before));

        // An agent that was not there meanwhile: of two, one has the name of the other.
        drop(hooks);
        drop(first.tables);
        for line in ["link set lan0 name other", "link set eth2 name lan0", "link set other name eth2"] {
            ip(line);
        }
        let second = load(&object, &pins).unwrap();
        let mut hooks = Hooks::new(second.ebpf, pins);
        hooks.detach_other_uplinks(&[("eth2", one), ("lan0", two)]);
        hooks.attach_uplink("eth2", one, false).unwrap();
        hooks.attach_uplink("lan0", two, false).unwrap();
        check(&hooks, ["eth2", "lan0"], None);
        assert_ne!(programs_at("eth2", Ingress), before[0]);
        // What is an uplink no more has no program.
        hooks.detach_other_uplinks(&[("eth2", one)]);
        assert!(programs_at("lan0", Ingress).is_empty() && programs_at("lan0", Egress).is_empty());
        assert_eq!(programs_at("eth2", Ingress).len(), 1);
    });
}

fn remove_below(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

fn detach_links(dir: &Path) {
    for entry in std::fs::read_dir(dir.join("links")).unwrap() {
        fairlead_agent::bpf::detach(&entry.unwrap().path()).unwrap();
    }
}

#[test]
fn what_is_detached_or_unpinned_is_attached_and_pinned_again() {
    in_namespaces("what_is_detached_or_unpinned_is_attached_and_pinned_again", |dir| {
        ip("link add flab index 1000007 type veth peer name eth0");
        let (pins, object) = open(dir);
        let loaded = load(&object, &pins).unwrap();
        let tables = loaded.tables;
        let mut hooks = Hooks::new(loaded.ebpf, pins.clone());
        hooks.attach_pod("flab", 1_000_007).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let netlink = runtime.block_on(async { Netlink::open().unwrap() });
        let interfaces = [1_000_007].into();
        let mut look = || {
            let filters = runtime.block_on(netlink.filters(&interfaces)).unwrap();
            hooks.look(&tables, &filters)
        };
        assert_eq!(look(), Looked::default(), "nothing is to be done at first");
        let harms: [Harm; 8] = [
            ("the guards are removed", |_| tc("qdisc del dev flab clsact"), &[Kind::Program]),
            ("a guard is removed", |_| tc("filter del dev flab egress"), &[Kind::Program]),
            (
                "programs and guards are removed",
                |dir| {
                    detach_links(dir);
                    tc("qdisc del dev flab clsact");
                },
                &[Kind::Program],
            ),
            ("links are detached", detach_links, &[Kind::Program]),
            ("pins of links are removed", |dir| remove_below(&dir.join("links")), &[Kind::Pin]),
            ("pins of tables are removed", |dir| remove_below(&dir.join("maps")), &[Kind::Pin]),
            ("the directory is removed", |dir| std::fs::remove_dir_all(dir).unwrap(), &[Kind::Bpffs, Kind::Pin]),
            (
                "the file system is unmounted",
                |_| assert!(Command::new("umount").arg("/sys/fs/bpf").status().unwrap().success()),
                &[Kind::Bpffs, Kind::Pin],
            ),
        ];
        for (what, harm, kinds) in harms {
            let all = || [pins.maps().unwrap(), pins.links().unwrap()].map(BTreeSet::from_iter);
            let before = all();
            harm(dir);
            let looked = look();
            assert_eq!(looked.broken, [], "{what}");
            let found: BTreeSet<_> = looked.repaired.iter().map(|repair| repair.kind).collect();
            assert_eq!(found, kinds.iter().copied().collect(), "{what}: {looked:?}");
            assert_eq!(all(), before, "{what}");
            for way in [aya::programs::TcAttachType::Ingress, aya::programs::TcAttachType::Egress] {
                assert_eq!(programs_at("flab", way).len(), 1, "{what}");
            }
            for way in ["ingress", "egress"] {
                let shown = Command::new("tc").args(["filter", "show", "dev", "flab", way]).output().unwrap();
                let shown = String::from_utf8(shown.stdout).unwrap();
                assert_eq!(shown.matches("handle 0x1 fairlead_guard").count(), 1, "{what}: {shown}");
            }
            assert_eq!(look(), Looked::default(), "{what}: once is enough");
        }
        // A pod that goes takes its programs with it.
        ip("link del flab");
        assert_eq!(look(), Looked::default());
        // What was pinned again is what an agent that follows finds.
        drop((hooks, tables));
        assert!(load(&object, &pins).unwrap().adopted);
    });
}

#[test]
fn c34_pins_are_roots_alone() {
    in_namespaces("c34_pins_are_roots_alone", |dir| {
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let refused = |wrong: &str, path: &Path| {
            let error = PinDir::open(dir).unwrap_err();
            assert!(matches!(&error, BpfError::NotOurs { path: at, .. } if at == path), "{error}");
            let text = error.to_string();
            assert!(text.contains(wrong) && text.contains("rm -r"), "{text}");
        };
        // Where others mounted the file system everybody may make directories.
        std::fs::create_dir(dir).unwrap();
        chown(dir, Some(65_534), None).unwrap();
        refused("owned by user 65534", dir);
        chown(dir, Some(0), None).unwrap();
        std::fs::set_permissions(dir, Permissions::from_mode(0o770)).unwrap();
        refused("mode 770", dir);
        std::fs::remove_dir(dir).unwrap();
        symlink("/tmp", dir).unwrap();
        refused("is not a directory", dir);
        std::fs::remove_file(dir).unwrap();
        PinDir::open(dir).unwrap();
        for path in [dir.to_owned(), dir.join("maps"), dir.join("links")] {
            assert_eq!(mode(&path), 0o700, "{}", path.display());
        }
        chown(dir.join("links"), Some(65_534), None).unwrap();
        refused("owned by user 65534", &dir.join("links"));
        // What is mounted here is for nobody else.
        let bpffs = dir.parent().unwrap();
        assert!(Command::new("umount").arg(bpffs).status().unwrap().success());
        PinDir::open(dir).unwrap();
        assert_eq!(mode(bpffs), 0o700);
    });
}

#[test]
fn batches_write_read_and_delete() {
    in_namespaces("batches_write_read_and_delete", |dir| {
        let (pins, object) = open(dir);
        let tables = load(&object, &pins).unwrap().tables;
        let put = |n| Op::Peer { addr: peer(n), value: Some(Peer { class: n as u32, ..Peer::WORLD }) };
        let delete = |n| Op::Peer { addr: peer(n), value: None };
        apply(&mut &tables, &(0..3000).map(put).collect::<Vec<_>>()).unwrap();
        // Every third is not there (any more): that is no error, and no other is left out.
        apply(&mut &tables, &(0..3000).step_by(3).map(delete).collect::<Vec<_>>()).unwrap();
        apply(&mut &tables, &(0..2999).map(delete).collect::<Vec<_>>()).unwrap();
        let mut left = Vec::new();
        tables.map(TableId::Peers).unwrap().for_each(|key, _| left.push(key.to_vec())).unwrap();
        assert_eq!(left, [zerocopy::IntoBytes::as_bytes(&peer(2999)).to_vec()]);

        let word = |tables: &Tables| {
            let pod = tables.map(TableId::Pods).unwrap().get(&7_u32.to_ne_bytes()).unwrap().unwrap();
            u64::from_ne_bytes(*pod.first_chunk().unwrap())
        };
        apply(&mut &tables, &[Op::PodWord { slot: 7, word: 0x1234_5678_9abc_def0 }]).unwrap();
        assert_eq!(word(&tables), 0x1234_5678_9abc_def0);
        let error = apply(&mut &tables, &[Op::PodWord { slot: u16::MAX, word: 1 }]).unwrap_err();
        assert!(error.to_string().contains(TableId::Pods.info().name), "{error}");
    });
}

/// Pins a map as a table of an agent before, and says what becomes of the load.
fn refused(pin: &str, shape: MapShape, dir: &Path) -> String {
    let (pins, object) = open(dir);
    let other = Map::create("other", shape).unwrap();
    let path: PathBuf = pins.map(pin);
    aya::maps::MapData::from_fd(other.as_fd().try_clone_to_owned().unwrap()).unwrap().pin(&path).unwrap();
    let error = load(&object, &pins).unwrap_err();
    assert!(matches!(&error, BpfError::Incompatible { path: at, .. } if *at == path), "{error}");
    std::fs::remove_file(&path).unwrap();
    error.to_string()
}

#[test]
fn c53_a_pinned_table_that_can_not_be_read_is_refused() {
    in_namespaces("c53_a_pinned_table_that_can_not_be_read_is_refused", |dir| {
        let info = TableId::Peers.info();
        let (shape, version) = (MapShape::from(info), info.version.unwrap());
        let (name, pin) = (info.name, info.pin().unwrap());
        let larger = MapShape { value_size: shape.value_size + 8, ..shape };
        for (pin, shape) in [(pin, larger), (format!("{name}@{}", version + 1), shape), (format!("{name}@what"), shape)]
        {
            let text = refused(&pin, shape, dir);
            assert!(text.contains("fairlead uninstall") && text.contains(&format!("layout {version}")), "{text}");
        }
        // A version that was, and that is not what it was.
        let text = refused(&format!("{name}@1"), MapShape { max_entries: 7, ..shape }, dir);
        assert!(text.contains("not what its layout says"), "{text}");
        // One that means something else by its fields.
        let flows = TableId::EstablishedFlows;
        let (layout, shape) = (recorded(flows.info().name, 4).unwrap(), MapShape::from(flows.info()));
        let [key_size, value_size] = Layout::parse(layout).unwrap().ends().map(|end| u32::try_from(end).unwrap());
        let text = refused(&format!("{flows}@4"), MapShape { key_size, value_size, ..shape }, dir);
        assert!(text.contains("versions before 5 are not read"), "{text}");
    });
}

#[test]
fn what_is_memory_of_the_programs_is_pinned_nowhere() {
    in_namespaces("what_is_memory_of_the_programs_is_pinned_nowhere", |dir| {
        let (pins, object) = open(dir);
        load(&object, &pins).unwrap();
        let mut wanted: Vec<_> = TableId::ALL.iter().filter_map(|id| id.info().pin()).collect();
        let mut found = pins.maps().unwrap();
        wanted.sort();
        found.sort();
        assert_eq!(found, wanted);
    });
}
