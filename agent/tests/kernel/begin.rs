//! Filters of pods: what they begin with, what somebody removes of them, and what stands in their way.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fairlead_agent::bpf::{Hooks, Loaded, PinDir, Sentry, load, remove_filters};
use fairlead_agent::repair::{Kind, Looked};
use fairlead_agent::wiring::Netlink;

use super::{in_namespaces, ip, open, programs_at, tc};

/// The index of a pod's interface.
const POD: u32 = 1_000_007;

/// How long it may take until something is put back that the kernel tells of.
const TOLD: Duration = Duration::from_secs(2);

fn make_pod() {
    ip(&format!("link add flab index {POD} type veth peer name eth0"));
    ip("link set flab up");
    ip("link set eth0 up");
}

fn begin(dir: &std::path::Path) -> (PinDir, Loaded) {
    make_pod();
    let (pins, object) = open(dir);
    let loaded = load(&object, &pins).unwrap();
    (pins, loaded)
}

/// The filters of a direction that are programs, in their order: priority and name.
fn filters(link: &str, way: &str) -> Vec<String> {
    let shown = Command::new("tc").args(["filter", "show", "dev", link, way]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let with_handle = shown.lines().filter(|line| line.contains(" handle "));
    let named = with_handle.map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |word: &str| words.iter().skip_while(|other| **other != word).nth(1).copied().unwrap_or_default();
        let name = words.iter().skip_while(|other| **other != "handle").nth(2).copied().unwrap_or_default();
        format!("{} {name}", after("pref"))
    });
    named.collect()
}

const WHOLE: [[&str; 2]; 2] = [["50 from_pod", "60 fairlead_guard"], ["50 to_pod", "60 fairlead_guard"]];
const GUARDED: [[&str; 1]; 2] = [["60 fairlead_guard"]; 2];

#[track_caller]
fn wait_for<const N: usize>(wanted: [[&str; N]; 2], what: &str) {
    wait(what, || {
        let found = ["ingress", "egress"].map(|way| filters("flab", way));
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

#[track_caller]
fn wait(what: &str, attempt: impl Fn() -> Result<(), String>) {
    let end = Instant::now() + TOLD;
    while let Err(last) = attempt() {
        assert!(Instant::now() < end, "{what}: {last}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Compares what is attached with what should be.
fn look(hooks: &mut Hooks, loaded: &fairlead_agent::bpf::Tables) -> Looked {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let filters = runtime.block_on(async { Netlink::open().unwrap().filters(&[POD].into()).await.unwrap() });
    hooks.look(loaded, &filters)
}

fn is_up() -> bool {
    let shown = Command::new("ip").args(["link", "show", "flab"]).output().unwrap();
    String::from_utf8(shown.stdout).unwrap().contains(",UP")
}

#[test]
fn c48_no_single_deletion_in_a_pods_first_second_lasts() {
    in_namespaces("begin::c48_no_single_deletion_in_a_pods_first_second_lasts", |dir| {
        let (pins, loaded) = begin(dir);
        let mut hooks = Hooks::new(loaded.ebpf, pins);
        let succeeded = Arc::new(AtomicBool::new(false));
        let is_succeeded = Arc::clone(&succeeded);
        let _sentry = hooks.watch_filters(move || is_succeeded.load(Ordering::Relaxed)).unwrap();
        let pods = hooks.begin_with_filters(|_| true).unwrap();
        pods.attach(POD).unwrap();
        wait_for(WHOLE, "a pod begins");
        for harm in ["qdisc del dev flab clsact", "filter del dev flab ingress", "filter del dev flab egress"] {
            tc(harm);
            wait_for(WHOLE, harm);
        }
        // With links it is the guards that are missed.
        hooks.attach_pod("flab", POD).unwrap();
        for harm in ["qdisc del dev flab clsact", "filter del dev flab egress pref 60"] {
            tc(harm);
            wait_for(GUARDED, harm);
        }
        let looked = look(&mut hooks, &loaded.tables);
        assert_eq!(looked.broken, []);
        let told: Vec<_> = looked.repaired.iter().map(|repair| (repair.kind, &*repair.what)).collect();
        assert_eq!(told, [(Kind::Program, "the filters at flab, which had been removed")]);
    });
}

#[test]
fn c48_a_pod_whose_programs_cannot_be_put_back_is_closed_until_they_can() {
    in_namespaces("begin::c48_a_pod_whose_programs_cannot_be_put_back_is_closed_until_they_can", |dir| {
        let (pins, loaded) = begin(dir);
        let mut hooks = Hooks::without_tcx(loaded.ebpf, pins);
        let succeeded = Arc::new(AtomicBool::new(true));
        let is_succeeded = Arc::clone(&succeeded);
        let sentry: Sentry = hooks.watch_filters(move || is_succeeded.load(Ordering::Relaxed)).unwrap();
        hooks.begin_with_filters(|_| true).unwrap().attach(POD).unwrap();
        hooks.begun("flab", POD, Instant::now());
        // Another agent has taken over: what is missing is that one's.
        tc("qdisc del dev flab clsact");
        tc("qdisc add dev flab ingress");
        succeeded.store(false, Ordering::Relaxed);
        foreign_filter("flab", 60, 2);
        tc("filter del dev flab ingress pref 60");
        wait("the pod is closed", || if sentry.is_closed(POD) && !is_up() { Ok(()) } else { Err("open".to_owned()) });
        let looked = look(&mut hooks, &loaded.tables);
        assert!(looked.broken.iter().any(|broken| broken.slot == Some(7) && broken.what.contains("is down")));
        assert!(looked.broken.iter().all(|broken| broken.what.contains("tc qdisc del dev")), "{looked:?}");
        assert!(sentry.is_closed(POD));
        tc("qdisc del dev flab ingress");
        wait_for(WHOLE, "what was in the way is gone");
        let looked = look(&mut hooks, &loaded.tables);
        assert_eq!(looked.broken, []);
        assert!(!sentry.is_closed(POD), "its link may be up again");
    });
}

#[test]
fn c48_a_qdisc_in_the_place_of_clsact_is_named_and_no_program_gets_to_the_wrong_side() {
    in_namespaces("begin::c48_a_qdisc_in_the_place_of_clsact_is_named_and_no_program_gets_to_the_wrong_side", |dir| {
        let (pins, loaded) = begin(dir);
        tc("qdisc add dev flab ingress");
        let mut hooks = Hooks::new(loaded.ebpf, pins);
        let pods = hooks.begin_with_filters(|_| true).unwrap();
        for error in [pods.attach(POD).unwrap_err().to_string(), hooks.attach_pod("flab", POD).unwrap_err().to_string()]
        {
            assert!(error.contains("`ingress` qdisc") && error.contains("tc qdisc del dev"), "{error}");
        }
        assert_eq!(filters("flab", "ingress"), ["60 fairlead_guard"], "what comes in has its guard");
        // Its programs need no qdisc.
        for way in [aya::programs::TcAttachType::Ingress, aya::programs::TcAttachType::Egress] {
            assert_eq!(programs_at("flab", way).len(), 1);
        }
        let looked = look(&mut hooks, &loaded.tables);
        let broken: Vec<_> = looked.broken.iter().map(|broken| &*broken.what).collect();
        assert!(matches!(&*broken, [what] if what.contains("tc qdisc del dev")), "{broken:?}");
        tc("qdisc del dev flab ingress");
        assert_eq!(look(&mut hooks, &loaded.tables).broken, []);
        wait_for(GUARDED, "what was in the way is gone");
    });
}

/// Somebody else's filter, which lets everything pass.
fn foreign_filter(link: &str, priority: u16, handle: u32) {
    let place = format!("filter add dev {link} ingress pref {priority} handle {handle} bpf da bytecode");
    let program = "1,6 0 0 0,";
    let status = Command::new("tc").args(place.split(' ')).arg(program).status().unwrap();
    assert!(status.success(), "tc {place} {program}");
}

#[test]
fn filters_are_removed_by_their_place_and_name_and_others_stay() {
    in_namespaces("begin::filters_are_removed_by_their_place_and_name_and_others_stay", |dir| {
        let (pins, loaded) = begin(dir);
        ip("link add other type veth peer name eth1");
        let mut hooks = Hooks::without_tcx(loaded.ebpf, pins);
        let other = nix::net::if_::if_nametoindex("other").unwrap();
        let eth1 = nix::net::if_::if_nametoindex("eth1").unwrap();
        tc("qdisc add dev eth1 clsact");
        foreign_filter("eth1", 50, 1);
        let all = |link: &str| ["ingress", "egress"].map(|way| filters(link, way).len());
        for (link, index) in [("other", other), ("flab", POD)] {
            hooks.attach_uplink(link, index, false).unwrap();
            assert_eq!(all(link), [1, 1], "{link}");
        }
        hooks.detach_other_uplinks(&[("flab", POD)]);
        assert_eq!([all("other"), all("flab"), all("eth1")], [[0, 0], [1, 1], [1, 0]]);
        hooks.detach_uplink("flab", POD);
        hooks.detach_uplink("eth1", eth1);
        assert_eq!([all("flab"), all("eth1")], [[0, 0], [1, 0]]);
        hooks.attach_pod("flab", POD).unwrap();
        hooks.attach_uplink("other", other, true).unwrap();
        assert_eq!(["ingress", "egress"].map(|way| filters("flab", way)), WHOLE);
        remove_filters();
        assert_eq!([all("flab"), all("other"), all("eth1")], [[0, 0], [0, 0], [1, 0]]);
        // What is not there is no fault.
        remove_filters();
    });
}

#[test]
fn c48_a_filter_that_a_killed_agent_has_left_behind_a_link_is_found_and_removed() {
    in_namespaces("begin::c48_a_filter_that_a_killed_agent_has_left_behind_a_link_is_found_and_removed", |dir| {
        let (pins, loaded) = begin(dir);
        let mut hooks = Hooks::new(loaded.ebpf, pins);
        let pods = hooks.begin_with_filters(|_| true).unwrap();
        hooks.attach_pod("flab", POD).unwrap();
        pods.attach(POD).unwrap();
        assert_eq!(["ingress", "egress"].map(|way| filters("flab", way)), WHOLE);
        assert_eq!(look(&mut hooks, &loaded.tables), Looked::default(), "nobody has undone anything");
        assert_eq!(["ingress", "egress"].map(|way| filters("flab", way)), GUARDED);
    });
}

#[test]
fn c48_two_who_make_a_pods_links_at_once_make_one_of_each() {
    in_namespaces("begin::c48_two_who_make_a_pods_links_at_once_make_one_of_each", |dir| {
        let (pins, object) = open(dir);
        let loaded = load(&object, &pins).unwrap();
        let mut hooks = Hooks::new(loaded.ebpf, pins.clone());
        let (done, made) = std::sync::mpsc::channel();
        let pods = hooks.begin_with_filters(move |linked| done.send(linked).is_ok()).unwrap();
        for number in 0..4 {
            let (index, link) = (POD + number, format!("fl{number}"));
            ip(&format!("link add {link} index {index} type veth peer name eth{number}"));
            pods.attach(index).unwrap();
            hooks.begun(&link, index, Instant::now());
            let pin = format!("tcx_out_{link}");
            wait("the other one has begun", || match pins.links().unwrap() {
                there if there.contains(&pin) => Ok(()),
                there => Err(format!("{there:?}")),
            });
            hooks.attach_pod(&link, index).unwrap();
            let linked = made.recv_timeout(TOLD).unwrap();
            assert!(format!("{linked:?}").contains("outcome: Ok("), "{linked:?}");
            hooks.linked(linked);
            // What is held open and has lost its pin is not made a second time.
            for way in ["in", "out"] {
                std::fs::remove_file(dir.join("links").join(format!("tcx_{way}_{link}"))).unwrap();
            }
            hooks.attach_pod(&link, index).unwrap();
            assert!(pins.links().unwrap().contains(&pin));
            for way in [aya::programs::TcAttachType::Ingress, aya::programs::TcAttachType::Egress] {
                assert_eq!(programs_at(&link, way).len(), 1, "{link}");
            }
        }
    });
}
