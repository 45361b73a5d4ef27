//! Comparisons against the plainest kernel: what is done leads to what is wanted, and nothing else changes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fairlead_cni::Mac;
use proptest::prelude::*;

use super::*;

fn ip(n: u8) -> IpAddr {
    match n % 2 {
        0 => IpAddr::from([10, 244, 1, n]),
        _ => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)]),
    }
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

fn pods() -> impl Strategy<Value = Vec<WantPod>> {
    let mtu = prop::option::of(1400..1402_u32);
    let pod = (0..4_u8, 0..4_u8, prop::collection::btree_set(0..6_u8, 0..3), mtu);
    prop::collection::btree_map(0..5_u16, pod, 0..5).prop_map(|pods| {
        let pod = |(slot, (host, pod, ips, mtu)): (u16, (u8, u8, std::collections::BTreeSet<u8>, _))| WantPod {
            slot,
            host_mac: mac(host),
            pod_mac: mac(pod),
            ips: ips.into_iter().map(ip).collect(),
            mtu,
        };
        pods.into_iter().map(pod).collect()
    })
}

fn have() -> impl Strategy<Value = HavePods> {
    let settings = prop::collection::btree_map(prop::sample::select(&Setting::ALL[..]), 0..3, 0..=4);
    let device = (0..5_u8, 1400..1402_u32, any::<bool>());
    let link = (any::<bool>(), prop::option::of(0..4_u8), prop::option::of(0..4_u8), settings, device);
    let links = prop::collection::btree_map(0..7_u16, link, 0..7);
    let routes = prop::collection::btree_set((0..7_u16, 0..6_u8), 0..16);
    let neighbours = prop::collection::btree_map((0..7_u16, 0..6_u8), 0..4_u8, 0..16);
    (links, routes, neighbours).prop_map(|(links, routes, neighbours)| {
        let index = |slot: u16| 1_000_000 + u32::from(slot);
        let mut named = BTreeMap::new();
        for (slot, (up, address, peer, settings, (name, mtu, is_port))) in links {
            let (address, peer_mac) = (address.map(mac), peer.map(mac));
            // The name of one of these pods, its own or not, or none's.
            let name = format!("fl00000000{name:02x}");
            let link = HaveLink { name, up, mtu, is_port, mac: address, peer_mac, settings };
            named.insert(index(slot), link);
        }
        let links = named;
        // Of an interface that is not there the kernel has nothing.
        let there = |slot: &u16| links.contains_key(&index(*slot));
        let routes = routes.iter().filter(|(slot, _)| there(slot)).map(|&(slot, n)| (index(slot), ip(n))).collect();
        let neighbours = neighbours.iter().filter(|((slot, _), _)| there(slot));
        let neighbours = neighbours.map(|(&(slot, n), &m)| ((index(slot), ip(n)), mac(m))).collect();
        HavePods { links, routes, neighbours }
    })
}

/// What the kernel makes of a step. It refuses a route at a link that is down.
fn apply(want: &[WantPod], have: &mut HavePods, step: Step) {
    match step {
        Step::Release(at) => have.links.get_mut(&at).unwrap().is_port = false,
        Step::Mtu(at, mtu) => have.links.get_mut(&at).unwrap().mtu = mtu,
        Step::Rename(at) => {
            have.links.get_mut(&at).unwrap().name = want.iter().find(|pod| pod.ifindex() == at).unwrap().name();
        }
        Step::Mac(at, mac) => have.links.get_mut(&at).unwrap().mac = Some(mac),
        Step::Set(at, setting) => drop(have.links.get_mut(&at).unwrap().settings.insert(setting, setting.value())),
        Step::Up(at) => have.links.get_mut(&at).unwrap().up = true,
        Step::Neighbour(at, ip, mac) => drop(have.neighbours.insert((at, ip), mac)),
        Step::Route(at, ip) => {
            assert!(have.links[&at].up, "a route at a link that is down");
            have.routes.insert((at, ip));
        }
        Step::Unroute(at, ip) => assert!(have.routes.remove(&(at, ip)), "a route that is not there"),
    }
}

/// Whether a pod is wired, asked one thing after the other.
fn is_wired(pod: &WantPod, have: &HavePods) -> bool {
    let at = pod.ifindex();
    let Some(link) = have.links.get(&at) else { return true };
    let settings = link.settings.iter().all(|(setting, value)| match setting {
        Setting::ForwardingV4 | Setting::ForwardingV6 => *value >= 1,
        Setting::RpFilter => *value == 0 || *value > 1,
        Setting::DisableIpv6 => *value == 0 || pod.ips.iter().all(IpAddr::is_ipv4),
    });
    let mut routed: Vec<_> = have.routes.iter().filter(|(index, _)| *index == at).map(|(_, ip)| *ip).collect();
    let mut wanted = pod.ips.clone();
    routed.sort();
    wanted.sort();
    let pod_mac = link.peer_mac.unwrap_or(pod.pod_mac);
    let known = pod.ips.iter().all(|ip| have.neighbours.get(&(at, *ip)) == Some(&pod_mac));
    let is_right = !link.is_port && link.name == pod.name() && pod.mtu.is_none_or(|mtu| mtu <= link.mtu);
    is_right && link.up && link.mac == Some(pod.host_mac) && settings && routed == wanted && known
}

#[test]
fn many_repairs_of_one_kind_are_told_in_one_line() {
    let mut looked = Looked::default();
    for n in 1..=6 {
        looked.note(Kind::Pin, None, format!("pin {n}"), Ok::<_, String>(()));
    }
    looked.note(Kind::Bpffs, None, "the file system".to_owned(), Ok::<_, String>(()));
    looked.note(Kind::Route, Some(3), "a route".to_owned(), Err("no such device"));
    let texts: Vec<_> = looked.summary().into_iter().map(|repair| (repair.kind, repair.what)).collect();
    let pins = "pin 1; pin 2; pin 3; pin 4; and 2 more";
    assert_eq!(texts, [(Kind::Bpffs, "the file system".to_owned()), (Kind::Pin, pins.to_owned())]);
    assert_eq!(looked.broken, [Broken { slot: Some(3), what: "a route: no such device".to_owned() }]);
}

proptest! {
    #[test]
    fn what_is_done_wires_every_pod_and_changes_nothing_else(want in pods(), have in have()) {
        let steps = compare_pods(&want, &have);
        prop_assert_eq!(steps.is_empty(), want.iter().all(|pod| is_wired(pod, &have)), "{:?}", steps);
        let mut after = have.clone();
        for step in steps {
            apply(&want, &mut after, step);
        }
        for pod in &want {
            prop_assert!(is_wired(pod, &after), "{:?} in {:?}", pod, after);
        }
        prop_assert_eq!(compare_pods(&want, &after), vec![]);
        let foreign = |at: u32| want.iter().all(|pod| pod.ifindex() != at);
        let mut others = have.clone();
        let mut left = after.clone();
        for pods in [&mut others, &mut left] {
            pods.links.retain(|at, _| foreign(*at));
            pods.routes.retain(|(at, _)| foreign(*at));
            pods.neighbours.retain(|(at, _), _| foreign(*at));
        }
        prop_assert_eq!(others, left);
        for (key, mac) in have.neighbours {
            let ours = want.iter().any(|pod| pod.ifindex() == key.0 && pod.ips.contains(&key.1));
            prop_assert!(ours || after.neighbours.get(&key) == Some(&mac), "a neighbour of others");
        }
    }

    #[test]
    fn every_hook_gets_its_program_its_guard_after_it_and_its_pin(
        want in prop::collection::btree_map(0..6_u8, (1..4_u32, any::<bool>(), any::<bool>()), 0..6),
        have in prop::collection::btree_map(
            0..8_u8, (prop::option::of(1..4_u32), any::<bool>(), any::<bool>(), any::<bool>()), 0..8,
        ),
    ) {
        let hook = |(key, (program, by_link, is_guard))| (key, WantHook { program, by_link, is_guard });
        let want: BTreeMap<u8, WantHook> = want.into_iter().map(hook).collect();
        let mut have: BTreeMap<u8, HaveHook> =
            have.into_iter().map(|(key, (program, pinned, behind, leftover))| {
                (key, HaveHook { program, pinned, behind, leftover })
            }).collect();
        let is_right = |key: &u8, want: &WantHook, have: &BTreeMap<u8, HaveHook>| {
            let by_link = |have: &HaveHook| !want.by_link || (have.pinned && !have.behind && !have.leftover);
            have.get(key).is_some_and(|have| have.program == Some(want.program) && by_link(have))
        };
        let before = have.clone();
        // What is behind a link that had to be repaired is the next look's.
        for _ in 0..2 {
            let mut guarded = false;
            for (key, step) in compare_hooks(&want, &have) {
                prop_assert!(!is_right(&key, &want[&key], &have), "nothing is done twice or in vain");
                let place = have.entry(key).or_default();
                let attached = HaveHook { program: Some(want[&key].program), pinned: want[&key].by_link, ..HaveHook::default() };
                if !matches!(step, HookStep::Attach | HookStep::Guard) {
                    prop_assert_eq!(place.program, attached.program);
                }
                match step {
                    HookStep::Attach => {
                        prop_assert!(!guarded && !want[&key].is_guard);
                        *place = attached;
                    }
                    HookStep::Guard => {
                        guarded = true;
                        *place = attached;
                    }
                    HookStep::First => {
                        prop_assert!(want[&key].by_link && place.behind);
                        *place = HaveHook { pinned: true, behind: false, ..*place };
                    }
                    HookStep::Pin => place.pinned = true,
                    HookStep::Clear => {
                        prop_assert!(place.leftover && place.pinned && !place.behind);
                        place.leftover = false;
                    }
                }
            }
        }
        for (key, want) in &want {
            prop_assert!(is_right(key, want, &have));
        }
        for (key, old) in before {
            prop_assert!(want.contains_key(&key) || have[&key] == old, "a hook that nobody wants anything of");
        }
    }
}

#[test]
fn a_pod_is_wired_when_nothing_but_its_mac_differs() {
    let at = 1_000_001;
    let have = HavePods { neighbours: BTreeMap::from([((at, ip(2)), mac(1))]), ..HavePods::default() };
    let other = Step::Neighbour(at, ip(2), mac(2));
    for (steps, wired) in [
        (vec![], true),
        (vec![other], true),
        (vec![other, Step::Neighbour(at, ip(3), mac(2))], false),
        (vec![other, Step::Route(at, ip(2))], false),
        (vec![Step::Up(at)], false),
    ] {
        assert_eq!(is_wired_but_for_the_mac(&steps, &have), wired, "{steps:?}");
    }
}

#[test]
fn what_a_pod_did_itself_is_told_from_what_others_undid() {
    let at = 1_000_001;
    let have = HavePods { neighbours: BTreeMap::from([((at, ip(2)), mac(1))]), ..HavePods::default() };
    for (step, before, follows) in [
        (Step::Neighbour(at, ip(2), mac(2)), mac(1), true),
        // Somebody gave the neighbour another address than the pod has had all the time.
        (Step::Neighbour(at, ip(2), mac(2)), mac(2), false),
        (Step::Neighbour(at, ip(2), mac(3)), mac(2), false),
        // It is missing.
        (Step::Neighbour(at, ip(3), mac(2)), mac(1), false),
        (Step::Mac(at, mac(2)), mac(1), false),
    ] {
        assert_eq!(follows_the_pod(step, &have, before), follows, "{step:?}");
    }
}
