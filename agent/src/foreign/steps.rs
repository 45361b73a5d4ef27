//! What has to be done, a pure function of the pods, the interfaces, and what was done before.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fairlead_cni::protocol::SLOTS;
use fairlead_objects::ObjectKey;

use super::ForeignPod;
use crate::wiring::{Side, Veths};

/// A pod of this node, as its object has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The uid that it runs under.
    pub uid: String,
    /// Its addresses, at least one.
    pub ips: Vec<IpAddr>,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The pod of a slot has no interface any more, or is another by now.
    Release(ForeignPod),
    /// A pod's interface was found.
    Attach(ForeignPod),
    /// A pod has none that can be told: what it sends and gets is not looked at.
    Missing(Wanted, String),
}

/// What has to be done, releases first. `others`: slots of pods that Fairlead has wired.
///
/// An interface stays its pod's for as long as the node has it, also when the pod's object is gone: what is still running in it is
/// closed then. And it is nobody else's, whatever addresses its owner gives itself.
#[must_use]
pub fn steps(wanted: &[Wanted], veths: &Veths, known: &[ForeignPod], others: &BTreeSet<u16>) -> Vec<Step> {
    let stays = |pod: &ForeignPod| {
        let is_there = veths.names.get(&pod.ifindex) == Some(&pod.link);
        let moved = wanted.iter().any(|new| is(new, pod) && new.ips != pod.ips);
        is_there && !moved && !others.contains(&pod.slot)
    };
    let (kept, gone): (Vec<&ForeignPod>, Vec<&ForeignPod>) = known.iter().partition(|pod| stays(pod));
    let mut steps: Vec<Step> = gone.into_iter().cloned().map(Step::Release).collect();
    let mut slots: BTreeSet<u16> = kept.iter().map(|pod| pod.slot).chain(others.iter().copied()).collect();
    let mut taken: BTreeSet<u32> = kept.iter().map(|pod| pod.ifindex).collect();
    for pod in wanted.iter().filter(|pod| !kept.iter().any(|known| is(pod, known))) {
        let shares = |other: &&Wanted| {
            (&other.key, &other.uid) != (&pod.key, &pod.uid) && other.ips.iter().any(|ip| pod.ips.contains(ip))
        };
        if let Some(other) = wanted.iter().find(shares) {
            let why = format!("pod {} has an address of it, too", other.key);
            steps.push(Step::Missing(pod.clone(), why));
            continue;
        }
        let has_all = |side: &&Side| pod.ips.iter().all(|ip| side.ips.contains(ip));
        let free = veths.sides.iter().filter(|side| !taken.contains(&side.ifindex));
        let found: Vec<&Side> = free.filter(has_all).collect();
        let step = match (&found[..], (0..SLOTS).find(|slot| !slots.contains(slot))) {
            ([side], Some(slot)) => {
                slots.insert(slot);
                taken.insert(side.ifindex);
                Step::Attach(ForeignPod {
                    slot,
                    ifindex: side.ifindex,
                    link: side.link.clone(),
                    key: pod.key.clone(),
                    uid: pod.uid.clone(),
                    ips: pod.ips.clone(),
                    pod_mac: side.pod_mac,
                    host_mac: side.host_mac,
                })
            }
            ([_], None) => Step::Missing(pod.clone(), format!("all {SLOTS} slots are taken")),
            ([], _) => Step::Missing(
                pod.clone(),
                "no veth of this node leads to its addresses: pods on other kinds of interface (macvlan, ipvlan, SR-IOV) \
                 can't be looked after"
                    .to_owned(),
            ),
            (several, _) => {
                let links: Vec<&str> = several.iter().map(|side| side.link.as_str()).collect();
                Step::Missing(pod.clone(), format!("several interfaces lead to its addresses: {}", links.join(", ")))
            }
        };
        steps.push(step);
    }
    steps
}

/// Whether an interface was found for this pod before.
fn is(pod: &Wanted, known: &ForeignPod) -> bool {
    pod.key == known.key && pod.uid == known.uid
}

#[cfg(test)]
mod tests {
    use fairlead_cni::Mac;
    use proptest::prelude::*;

    use super::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 244, 1, n])
    }

    fn pod(n: u8, ips: &[u8]) -> Wanted {
        Wanted {
            key: ObjectKey::new("shop", format!("web-{n}").as_str()),
            uid: n.to_string(),
            ips: ips.iter().map(|n| ip(*n)).collect(),
        }
    }

    fn side(ifindex: u32, ips: &[u8]) -> Side {
        Side {
            ifindex,
            link: format!("veth{ifindex}"),
            host_mac: Mac([2; 6]),
            pod_mac: Mac([4; 6]),
            ips: ips.iter().map(|n| ip(*n)).collect(),
        }
    }

    /// What has to be done where every veth leads to a pod, and no pod is Fairlead's.
    fn due(wanted: &[Wanted], sides: &[Side], known: &[ForeignPod]) -> Vec<Step> {
        steps(wanted, &veths(sides), known, &BTreeSet::new())
    }

    fn veths(sides: &[Side]) -> Veths {
        let names = sides.iter().map(|side| (side.ifindex, side.link.clone())).collect();
        Veths { names, sides: sides.to_vec() }
    }

    /// Carries steps out.
    fn apply(known: &mut Vec<ForeignPod>, steps: Vec<Step>) -> Vec<Wanted> {
        let mut missing = Vec::new();
        for step in steps {
            match step {
                Step::Release(gone) => known.retain(|pod| *pod != gone),
                Step::Attach(new) => known.push(new),
                Step::Missing(pod, _) => missing.push(pod),
            }
        }
        missing
    }

    fn found(known: &[ForeignPod]) -> Vec<(u16, u32, &str)> {
        known.iter().map(|pod| (pod.slot, pod.ifindex, pod.key.name.as_str())).collect()
    }

    #[test]
    fn c54_a_pod_is_found_by_the_addresses_of_its_side_and_stays_with_its_interface() {
        let mut known = Vec::new();
        let (pods, sides) = ([pod(1, &[11]), pod(2, &[12])], [side(7, &[12]), side(9, &[11]), side(10, &[99])]);
        assert_eq!(apply(&mut known, due(&pods, &sides, &[])), []);
        assert_eq!(found(&known), [(0, 9, "web-1"), (1, 7, "web-2")]);
        assert_eq!(due(&pods, &sides, &known), [], "nothing is left to do");
        // Another that gives itself the address of a pod gains nothing by it, and takes nothing from the pod.
        let posing = [side(7, &[12, 11]), side(9, &[11])];
        assert_eq!(due(&pods, &posing, &known), []);
        // The object goes before the interface: until then the pod stays, and is closed.
        assert_eq!(due(&pods[1..], &sides, &known), []);
        let todo = due(&pods[1..], &sides[..1], &known);
        apply(&mut known, todo);
        assert_eq!(found(&known), [(1, 7, "web-2")]);
    }

    #[test]
    fn c54_a_pod_whose_sandbox_is_made_again_is_looked_for_again() {
        let mut known = Vec::new();
        apply(&mut known, due(&[pod(1, &[11])], &[side(9, &[11])], &[]));
        let left = apply(&mut known.clone(), due(&[pod(1, &[13])], &[side(9, &[11])], &known));
        assert_eq!(left, [pod(1, &[13])], "the old interface is not its own any more, and there is no new one");
        let todo = due(&[pod(1, &[13])], &[side(12, &[13])], &known);
        apply(&mut known, todo);
        assert_eq!(found(&known), [(0, 12, "web-1")]);
    }

    #[test]
    fn c54_an_interface_stays_its_pods_whatever_is_done_at_the_other_end() {
        let mut known = Vec::new();
        apply(&mut known, due(&[pod(1, &[11])], &[side(9, &[11])], &[]));
        // Nothing can be seen of the other end any more; the node still has the interface.
        let hidden = Veths { sides: Vec::new(), ..veths(&[side(9, &[])]) };
        assert_eq!(steps(&[pod(1, &[11])], &hidden, &known, &BTreeSet::new()), []);
        // One of another name is another.
        let renamed = Veths { names: [(9, "other".to_owned())].into(), sides: Vec::new() };
        let left = steps(&[], &renamed, &known, &BTreeSet::new());
        assert_eq!(left, [Step::Release(known[0].clone())]);
    }

    #[test]
    fn c54_slots_of_pods_that_fairlead_has_wired_are_not_given() {
        let mut known = Vec::new();
        let sides = veths(&[side(9, &[11])]);
        apply(&mut known, steps(&[pod(1, &[11])], &sides, &[], &[0, 1, 3].into()));
        assert_eq!(found(&known), [(2, 9, "web-1")]);
        let left = steps(&[pod(1, &[11])], &sides, &known, &[2].into());
        apply(&mut known, left);
        assert_eq!(found(&known), [(0, 9, "web-1")]);
    }

    #[test]
    fn c57_an_address_of_two_pods_is_neithers() {
        let left = due(&[pod(1, &[11]), pod(2, &[11])], &[side(9, &[11])], &[]);
        let named = |step: &Step| matches!(step, Step::Missing(_, why) if why.contains("has an address of it, too"));
        assert!(left.len() == 2 && left.iter().all(named), "{left:?}");
    }

    #[test]
    fn c57_a_pod_that_cannot_be_told_is_named_with_the_reason() {
        for (sides, said) in [
            (vec![], "no veth"),
            (vec![side(3, &[11])], "no veth"),
            (vec![side(3, &[11, 12]), side(4, &[12, 11])], "several interfaces lead to its addresses: veth3, veth4"),
        ] {
            let steps = due(&[pod(1, &[11, 12])], &sides, &[]);
            assert!(matches!(&steps[..], [Step::Missing(_, why)] if why.contains(said)), "{steps:?}");
        }
    }

    proptest! {
            #[test]
            fn c54_no_interface_and_no_slot_is_two_pods_at_any_time(
                rounds in prop::collection::vec(
                    (
                        prop::collection::btree_map(0..5_u8, prop::collection::btree_set(10..16_u8, 1..3), 0..5),
                        prop::collection::btree_map(1..7_u32, prop::collection::btree_set(10..16_u8, 0..3), 0..6),
                    ),
                    1..6,
                )
            ) {
                let mut known: Vec<ForeignPod> = Vec::new();
                for (pods, sides) in rounds {
                    let list = |set: &BTreeSet<u8>| set.iter().copied().collect::<Vec<_>>();
                    let pods: Vec<_> = pods.iter().map(|(n, ips)| pod(*n, &list(ips))).collect();
                    let sides: Vec<_> = sides.iter().map(|(at, ips)| side(*at, &list(ips))).collect();
                    let before = known.clone();
                    let todo = due(&pods, &sides, &known);
                    let mut missing = apply(&mut known, todo);
                    // One that is found may leave another's the only one.
                    for _ in &pods {
                        let todo = due(&pods, &sides, &known);
                        missing = apply(&mut known, todo);
                    }
                    let slots: BTreeSet<u16> = known.iter().map(|pod| pod.slot).collect();
                    let links: BTreeSet<u32> = known.iter().map(|pod| pod.ifindex).collect();
                    prop_assert_eq!((slots.len(), links.len()), (known.len(), known.len()));
                    for pod in &known {
                        prop_assert!(sides.iter().any(|side| side.ifindex == pod.ifindex));
                        // Who has an interface keeps it, unless he has moved.
                        let old = before.iter().find(|old| old.ifindex == pod.ifindex);
                        let moved = |old: &ForeignPod| pods.iter().any(|new| is(new, old) && new.ips != old.ips);
                        prop_assert!(old.is_none_or(|old| old == pod || moved(old)));
                    }
                    // Each pod has one, or is named.
                    for pod in &pods {
                        prop_assert!(missing.contains(pod) != known.iter().any(|known| is(pod, known)));
                    }
    let todo = due(&pods, &sides, &known);
                    prop_assert!(todo.iter().all(|step| matches!(step, Step::Missing(..))), "{:?}", todo);
                }
            }
        }
}
