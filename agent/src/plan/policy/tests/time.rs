//! How long a change takes when policies are large. `cargo test -p fairlead-agent --lib policy::tests::time -- --ignored
//! --nocapture` prints it.

use std::time::{Duration, Instant};

use fairlead_objects::{Event, Kind, Object};

use super::follow::{model_of, remembering, whole};
use crate::compile::policy::Draft;
use crate::compile::policy::testing::{Cluster, block, labels, pods, pods_of, rule, tcp};
use crate::plan::Op;

/// Blocks that fill `CIDRS` but for what nodes need.
const BLOCKS: u32 = 16_300;

/// A namespace with so many pods, and a policy for all of them with so many blocks.
fn cluster(pods: u16, rules: u32, blocks: u32) -> Cluster {
    let nth = |n: u32| block(&format!("100.{}.{}.0/24", n >> 8, n & 255), &[]);
    let of =
        |rule_number: u32| (0..blocks / rules).map(|n| nth(rule_number * (blocks / rules) + n)).collect::<Vec<_>>();
    let rules: Vec<_> = (0..rules).map(|n| rule(&of(n), &[tcp(80)])).collect();
    let cluster = Cluster::grid().policy("x/p", "", Some(&rules), Some(&rules));
    (0..pods).fold(cluster, |cluster, n| cluster.pod(&format!("x/p{n}"), 1, 40 + n, "pod=p"))
}

/// What comes of something, and how long it takes.
fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let done = what();
    (done, begin.elapsed())
}

/// What a pod of another namespace waits for.
fn add_a_pod(pods: u16, rules: u32) -> [Duration; 4] {
    let before = cluster(pods, rules, BLOCKS);
    let mut state = before.tables();
    let after = before.pod("y/new", 1, 30, "pod=new");
    let world = after.world();
    let (draft, drafted) = timed(|| Draft::new(&world));
    let (plan, planned) = timed(|| state.plan(&draft).unwrap());
    assert!(plan.cut_off.is_empty() && plan.ops.len() < 10, "{}", plan.ops.len());
    let all: Vec<_> = (0..draft.count()).collect();
    let (wanted, finished) = timed(|| draft.finish(&all));
    let (_, targeted) =
        timed(|| super::super::change::target(state.content(), &wanted, &state.capacity, &state.former).unwrap());
    [drafted, planned, finished, targeted]
}

#[test]
#[ignore = "prints how long it takes"]
fn a_pod_that_is_added_beside_16_300_blocks() {
    for (pods, rules) in [(1, 1), (1, 100), (50, 1), (50, 100)] {
        let [draft, plan, finish, target] = add_a_pod(pods, rules);
        println!("{pods} pods, {rules} rules: draft {draft:?}, plan {plan:?} (finish {finish:?}, target {target:?})");
    }
}

/// What a pod waits for that is added, and how many operations it takes: without a policy, with that of others, and with one of
/// its own that is new on the node.
fn added(before: &Cluster, pod: &str, pod_labels: &str) -> (usize, Duration) {
    let (mut model, _) = model_of(before);
    let mut state = remembering();
    whole(&mut state, &model);
    let after = before.clone().pod(pod, 1, 30, pod_labels);
    model.take(Event::Applied(Object::Pod(after.pods.last().unwrap().clone())));
    model.attach(after.local.last().unwrap().clone());
    let dirty = model.take_dirty();
    let (plan, took) = timed(|| state.follow(&model, &dirty).unwrap());
    (plan.ops.len(), took)
}

#[test]
#[ignore = "prints how long it takes"]
fn a_pod_that_is_added_waits_for_its_own_sets() {
    let own = rule(&[pods("app=db"), block("203.0.113.0/24", &[])], &[tcp(80)]);
    let blocks = cluster(50, 100, BLOCKS - 100).policy("y/own", "app=new", Some(std::slice::from_ref(&own)), None);
    let large = elsewhere(250, 5_000).policy("y/own", "app=new", Some(&[own]), None);
    for (what, cluster) in [("16 200 blocks", &blocks), ("50 000 pods and 5 000 policies", &large)] {
        for (which, pod, labels) in [
            ("a pod without policies", "z/new", "app=new"),
            ("a pod like others", "x/new", "pod=a"),
            ("a pod with a policy of its own", "y/new", "app=new"),
        ] {
            println!("{what}: {which}: {:?}", added(cluster, pod, labels));
        }
    }
}

/// Pods of so many other nodes, two hundred on each, with policies of which none selects a pod of this node.
fn elsewhere(nodes: u8, policies: u32) -> Cluster {
    let mut cluster = Cluster::grid();
    for n in 3..nodes + 3 {
        let template = cluster.nodes[1].clone();
        let pod_cidrs = [format!("10.244.{n}.0/24"), format!("fd00:10:244:{n}::/64")];
        cluster.nodes.push(fairlead_objects::Node {
            name: format!("n{n}"),
            internal_ips: vec![std::net::IpAddr::from([172, 18, 0, n])],
            pod_cidrs: pod_cidrs.map(|cidr| cidr.parse().unwrap()).into(),
            ..template
        });
        cluster = (0..200).fold(cluster, |cluster, number| {
            cluster.pod(&format!("far/p{n}-{number}"), n, number + 2, &format!("app=a{}", number % 50))
        });
    }
    let from = rule(&[pods("app=a1")], &[tcp(80)]);
    (0..policies).fold(cluster, |cluster, n| {
        cluster.policy(&format!("far/p{n}"), &format!("app=a{}", n % 50), Some(std::slice::from_ref(&from)), None)
    })
}

#[test]
#[ignore = "prints how long it takes"]
fn a_pod_that_comes_elsewhere_among_50_000_and_5_000_policies() {
    let before = elsewhere(250, 5_000);
    let mut state = before.tables();
    let after = before.pod("far/new", 3, 240, "app=a7");
    let world = after.world();
    let (draft, drafted) = timed(|| Draft::new(&world));
    let (plan, planned) = timed(|| state.plan(&draft).unwrap());
    assert_eq!(plan.ops.len(), 2, "its addresses, and nothing else: {:?}", plan.ops);
    let (wanted, finished) = timed(|| draft.finish(&[]));
    let (before, capacity, former) = (state.content(), &state.capacity, &state.former);
    let ((target, ..), targeted) = timed(|| super::super::change::target(before, &wanted, capacity, former).unwrap());
    let (_, ordered) = timed(|| super::super::change::operations(before, &target, capacity).unwrap());
    println!("draft {drafted:?}, plan {planned:?} (finish {finished:?}, target {targeted:?}, operations {ordered:?})");
}

/// What it takes to take note of a change, to plan and to apply it in memory, many times: the median, and the longest.
fn followed(before: &Cluster, after: &[Cluster]) -> [Duration; 2] {
    let (mut model, _) = model_of(before);
    let mut state = remembering();
    whole(&mut state, &model);
    let mut times = Vec::new();
    for next in after {
        for object in [next.pods.last(), None] {
            let pod = next.pods.last().unwrap();
            let event = match object {
                Some(pod) => Event::Applied(Object::Pod(pod.clone())),
                None => Event::Deleted(Kind::Pod, pod.key.clone()),
            };
            let (ops, took) = timed(|| {
                model.take(event);
                let dirty = model.take_dirty();
                let ops = state.follow(&model, &dirty).unwrap().ops;
                ops.iter().for_each(|op| state.applied(op));
                ops
            });
            assert!(ops.iter().filter(|op| matches!(op, Op::Peer { .. })).count() == 2, "{ops:?}");
            times.push(took);
        }
    }
    times.sort_unstable();
    [times[times.len() / 2], times[times.len() - 1]]
}

#[test]
#[ignore = "prints how long it takes"]
fn a_pod_that_comes_or_goes_elsewhere_is_followed_among_50_000_and_5_000_policies() {
    let mut before = elsewhere(250, 5_000);
    before.namespaces.push(fairlead_objects::Namespace { name: "far".into(), labels: labels("ns=far") });
    let new = |n: u16, label: &str| Cluster::new().pod(&format!("far/new{n}"), 3, 203 + n, label);
    let after: Vec<_> = (0..50).map(|n| new(n, "app=a7")).collect();
    println!("nothing concerned: {:?}", followed(&before, &after));
    let from = |label: &str| rule(&[pods_of("ns=far", label)], &[tcp(80)]);
    let one = before.clone().policy("x/p", "pod=a", Some(&[from("app=a7")]), None);
    println!("a set concerned: {:?}", followed(&one, &after));
    let other = before.policy("x/p", "pod=a", Some(&[from("app=new")]), None);
    let after: Vec<_> = (0..50).map(|n| new(n, "app=new")).collect();
    println!("a set concerned, a class that comes and goes: {:?}", followed(&other, &after));
}

#[test]
fn blocks_that_the_same_rules_name_are_one_class() {
    let rows = |blocks| {
        let content = cluster(1, 2, blocks).tables().content().clone();
        (content.policy.peers.len(), content.classes().len(), content.peer.cidrs.len())
    };
    let (few, many) = (rows(10), rows(400));
    assert_eq!((few.0, few.1), (many.0, many.1), "rows and classes follow the rules");
    assert_eq!(many.2 - few.2, 390, "prefixes follow the blocks");
}
