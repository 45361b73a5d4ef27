//! What is followed comes to what would be planned from everything.

use std::cell::Cell;

use fairlead_objects::names::NameRules;
use fairlead_objects::{Action, Kind, Phase};
use proptest::test_runner::TestRunner;

use super::*;
use crate::compile::policy::World;
use crate::compile::policy::coverage;
use crate::compile::policy::testing::{
    Told, any_history_elsewhere, any_history_here, block, cnp, does, named_by, tell,
};
use crate::model::{Dirty, Model};
use crate::network::Network;

/// A model that knows this cluster, and what has changed.
pub(super) fn model_of(cluster: &Cluster) -> (Model, Dirty) {
    let mut model = Model::new("n1");
    cluster.tell(&Cluster::default(), &mut model);
    Kind::ALL.into_iter().for_each(|kind| model.take(fairlead_objects::Event::Synced(kind)));
    let dirty = model.take_dirty();
    (model, dirty)
}

/// What changes in a model that knew a cluster when it knows another.
pub(super) fn told(model: &mut Model, before: &Cluster, after: &Cluster) -> Dirty {
    after.tell(before, model);
    model.take_dirty()
}

/// Plans everything, and applies it.
pub(super) fn whole(state: &mut State, model: &Model) {
    let world = World::of(model, &Network { ifindex: 2, ..Network::default() });
    let plan = state.plan(&Draft::new(&world)).unwrap();
    plan.ops.iter().for_each(|op| state.applied(op));
}

pub(super) fn remembering() -> State {
    State::default().remembering()
}

/// What tables say, whatever ids classes and sets have: addresses and prefixes by what each pod's sets make of them, and pods by
/// what their sets are made of. Of prefixes those that `wanted` has: sets that judge nobody any more may name others.
fn meaning(content: &Content, wanted: &Content) -> impl PartialEq + std::fmt::Debug + use<> {
    let words = content.peer.pods.iter().map(|(slot, pod)| (*slot, PodWord(pod.word)));
    let words: Vec<_> = words.flat_map(|(slot, word)| [(slot, 0, word.ingress()), (slot, 1, word.egress())]).collect();
    let rules = |class| words.iter().map(|(.., set)| content.rules(*set, class)).collect::<Vec<_>>();
    let peer = |peer: &Peer| (rules(peer.class), peer.slot, peer.node, peer.flags);
    let peers: BTreeMap<_, _> = content.peer.peers.iter().map(|(addr, p)| (*addr, peer(p))).collect();
    let cidrs = content.peer.cidrs.iter().filter(|(key, _)| wanted.peer.cidrs.contains_key(*key));
    let cidrs: BTreeMap<_, _> = cidrs.map(|(key, p)| (*key, peer(p))).collect();
    let set = |set| {
        let meta = PolicySet { id: 0, ..content.policy.sets.get(&PolicySet::index(set)).copied().unwrap_or_default() };
        let ports = content.policy.ports.iter().filter(|(key, _)| key.set == set);
        let ports: BTreeMap<_, _> =
            ports.map(|(key, row)| ((key.proto, key.port.number(), key.page), row.bits)).collect();
        let ranges = content.policy.ranges.iter().filter(|(key, _)| key.set == set);
        let ranges: BTreeMap<_, _> =
            ranges.map(|(key, row)| ((key.proto, key.port.number(), key.prefix_len, key.page), row.bits)).collect();
        (set == policy::ALLOW_ALL, meta, ports, ranges)
    };
    let judged: Vec<_> = words.iter().map(|(slot, direction, id)| (*slot, *direction, set(*id))).collect();
    let pod = |(slot, pod): (&u16, &Pod)| (*slot, PodWord(pod.word).epoch(), Pod { word: 0, ..*pod });
    let pods: Vec<_> = content.peer.pods.iter().map(pod).collect();
    (peers, cidrs, judged, pods, content.peer.nodes.clone())
}

/// Elements by table.
fn sizes(content: &Content) -> impl PartialEq + std::fmt::Debug + use<> {
    (content.sizes(), content.classes().len())
}

/// How many steps were followed, how many of these brought a set, and how many were planned from everything.
fn followed(histories: impl Strategy<Value = Vec<Cluster>>, cases: u32) -> [usize; 3] {
    let counts = [Cell::new(0), Cell::new(0), Cell::new(0)];
    let [followed, brought, planned] = &counts;
    let config = ProptestConfig { cases, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&histories, |history| {
        let (mut model, _) = model_of(&history[0]);
        let mut state = remembering();
        whole(&mut state, &model);
        for step in history.windows(2) {
            let names = names_of(&model);
            let dirty = told(&mut model, &step[0], &step[1]);
            let old = state.content().clone();
            let mut everything = State::adopt(Capacity::default(), old.clone());
            whole(&mut everything, &model);
            let Some(plan) = state.follow(&model, &dirty) else {
                planned.set(planned.get() + 1);
                whole(&mut state, &model);
                continue;
            };
            followed.set(followed.get() + 1);
            // What pods are told by DNS is not followed, so their server has nothing new to know.
            prop_assert!(names.clients.is_empty() && names == names_of(&model));
            let brings = plan.ops.iter().any(|op| matches!(op, Op::PolicySet { .. }));
            brought.set(brought.get() + usize::from(brings));
            assert!(plan.cut_off.is_empty() && plan.left_out.is_empty());
            let contents = contents(&old, &plan.ops);
            let new = contents.last().unwrap();
            let wanted = everything.content();
            prop_assert_eq!(meaning(new, wanted), meaning(wanted, wanted), "{:?}", plan.ops);
            for flow in lasting(&step[0], &step[1]) {
                let (before, after) = (answer(&old, &flow), answer(new, &flow));
                for (n, content) in contents.iter().enumerate() {
                    let now = answer(content, &flow);
                    prop_assert!(now == before || now == after, "{:?} after {} of {:?}", flow, n, plan.ops);
                    // An answer that is remembered under the last epoch is the new one.
                    if n >= plan.judged() || epoch(content, flow.0.slot) != epoch(&old, flow.0.slot) {
                        prop_assert_eq!(now, after, "{:?} after {} of {:?}", flow, n, plan.ops);
                    }
                }
                if before != after {
                    prop_assert_ne!(epoch(&old, flow.0.slot), epoch(new, flow.0.slot));
                }
            }
            let in_force = step[1].in_force();
            for flow in flows(&in_force, PORTS) {
                let wanted = model_answer(&in_force, &flow);
                for content in &contents[plan.judged()..] {
                    prop_assert_eq!(answer(content, &flow), wanted, "{:?} in {:?}", flow, plan.ops);
                }
            }
            plan.ops.iter().for_each(|op| state.applied(op));
            prop_assert_eq!(state.content(), new);
            if !state.has_unused_sets() {
                prop_assert_eq!(sizes(new), sizes(everything.content()), "{:?}", plan.ops);
            }
        }
        Ok(())
    });
    result.unwrap();
    counts.map(Cell::into_inner)
}

fn names_of(model: &Model) -> NameRules {
    coverage(&World::of(model, &Network::default()))
}

fn model_answer(cluster: &Cluster, (local, direction, flow): &(LocalPod, Direction, Flow)) -> bool {
    model(cluster, local, *direction, *flow).0
}

#[test]
fn p80_what_is_followed_is_what_everything_comes_to() {
    let [followed, _, planned] = followed(any_history_elsewhere(6), 24);
    assert!(followed > 2 * planned, "{followed} followed, {planned} planned");
}

#[test]
fn p81_what_is_followed_of_any_history_is_what_everything_comes_to() {
    let [followed, brought, planned] = followed(any_history_here(6), 24);
    assert!(followed > planned && brought > 0, "{followed} followed, {brought} of them with a set, {planned} planned");
}

/// Two nodes, with pods here of which x/a lets y's pods labelled `app=b` in.
fn two_nodes() -> Cluster {
    let from = rule(&[pods_of("ns=y", "app=b")], &[tcp(80)]);
    Cluster::new().pod("x/a", 1, 10, "app=a").pod("x/other", 1, 11, "app=other").pod("y/b", 2, 12, "app=b").policy(
        "x/p",
        "app=a",
        Some(&[from]),
        None,
    )
}

/// A cluster, its tables, and a model that knows it.
struct Node {
    cluster: Cluster,
    model: Model,
    state: State,
}

impl Node {
    fn new(cluster: Cluster) -> Self {
        let (model, _) = model_of(&cluster);
        let mut state = remembering();
        whole(&mut state, &model);
        Self { cluster, model, state }
    }

    /// What is done about a change, if it is followed.
    fn becomes(&mut self, next: Cluster) -> Option<Vec<Op>> {
        let dirty = told(&mut self.model, &self.cluster, &next);
        self.cluster = next;
        let plan = self.state.follow(&self.model, &dirty);
        match &plan {
            Some(plan) => plan.ops.iter().for_each(|op| self.state.applied(op)),
            None => whole(&mut self.state, &self.model),
        }
        plan.map(|plan| plan.ops)
    }

    fn lets_in(&self, peer: &str) -> bool {
        ask(self.state.content(), 10, Direction::Ingress, Flow { peer: ip(peer), proto: 6, port: 80 }).0
    }
}

#[test]
fn p80_a_pod_elsewhere_that_nothing_asks_about_costs_its_addresses_alone() {
    let mut node = Node::new(two_nodes());
    let with = two_nodes().pod("z/new", 2, 40, "app=b");
    let ops = node.becomes(with).unwrap();
    assert!(matches!(ops[..], [Op::Peer { value: Some(_), .. }, Op::Peer { value: Some(_), .. }]), "{ops:?}");
    let ops = node.becomes(two_nodes()).unwrap();
    assert!(matches!(ops[..], [Op::Peer { value: None, .. }, Op::Peer { value: None, .. }]), "{ops:?}");
    let unscheduled = two_nodes().pod("z/new", 2, 40, "app=b").with("z/new", |pod| pod.ips.clear());
    assert_eq!(node.becomes(unscheduled), Some(vec![]));
}

#[test]
fn p80_a_pod_elsewhere_that_a_policy_selects_is_let_in_and_those_it_concerns_are_asked_again() {
    let mut node = Node::new(two_nodes());
    assert!(!node.lets_in("10.244.2.40"));
    let ops = node.becomes(two_nodes().pod("y/new", 2, 40, "app=b")).unwrap();
    assert!(node.lets_in("10.244.2.40"));
    let words: Vec<_> = ops.iter().filter(|op| matches!(op, Op::PodWord { .. })).collect();
    assert!(matches!(words[..], [Op::PodWord { slot: 10, .. }]), "{ops:?}");
    // The last of a class takes it along.
    let without = node.cluster.clone().with("y/b", |pod| pod.labels = labels("app=c"));
    assert!(!node.becomes(without).unwrap().contains(&Op::Barrier), "another has the class");
    let none = node.cluster.clone().with("y/new", |pod| pod.phase = Phase::Succeeded);
    let ops = node.becomes(none).unwrap();
    assert!(!node.lets_in("10.244.2.40") && ops.contains(&Op::Barrier), "{ops:?}");
    assert_eq!(node.state.content().classes().len(), 1);
    node.becomes(two_nodes()).unwrap();
    assert!(node.lets_in("10.244.2.12") && !node.lets_in("10.244.2.40"));
}

#[test]
fn p80_an_address_that_two_pods_elsewhere_name_is_the_others_when_one_goes() {
    let mut node = Node::new(two_nodes());
    let same = |pod: &mut fairlead_objects::Pod| pod.ips = vec![ip("10.244.2.12")];
    // The one that is not being deleted has it, then the first by name.
    let both = two_nodes().pod("y/a", 2, 40, "app=c").with("y/a", same);
    assert!(node.becomes(both.clone()).is_some() && !node.lets_in("10.244.2.12"));
    let leaving = both.clone().with("y/a", |pod| pod.terminating = true);
    assert!(node.becomes(leaving).is_some() && node.lets_in("10.244.2.12"));
    assert!(node.becomes(both).is_some() && !node.lets_in("10.244.2.12"));
    assert!(node.becomes(two_nodes()).is_some() && node.lets_in("10.244.2.12"));
    // That of an attached pod is nobody else's.
    let own = two_nodes().pod("y/a", 2, 40, "app=b").with("y/a", |pod| pod.ips = vec![ip("10.244.1.11")]);
    assert_eq!(node.becomes(own), Some(vec![]));
}

#[test]
fn p80_a_number_that_a_ports_name_gets_is_another_rule_and_one_that_it_has_is_none() {
    use crate::compile::policy::testing::{declared, named};
    use fairlead_objects::Protocol;
    let to = rule(&[pods_of("", "app=b")], &[named(Protocol::Tcp, "web")]);
    let web =
        |port| move |pod: &mut fairlead_objects::Pod| pod.container_ports = vec![declared("web", port, Protocol::Tcp)];
    let cluster = two_nodes().policy("x/e", "app=a", None, Some(&[to])).with("y/b", web(80));
    let mut node = Node::new(cluster.clone());
    let goes = |node: &Node, port| {
        ask(node.state.content(), 10, Direction::Egress, Flow { peer: ip("10.244.2.40"), proto: 6, port }).0
    };
    let same = cluster.clone().pod("y/new", 2, 40, "app=b").with("y/new", web(80));
    assert!(node.becomes(same.clone()).is_some() && goes(&node, 80));
    assert!(node.becomes(same.with("y/new", web(81))).is_none() && goes(&node, 81) && !goes(&node, 80));
    let other = cluster.pod("y/new", 2, 40, "app=c").with("y/new", web(82));
    assert!(node.becomes(other.clone()).is_none(), "81 is none any more");
    assert!(node.becomes(other.with("y/new", web(83))).is_some() && !goes(&node, 83), "it is no peer");
}

#[test]
fn p80_policies_and_namespaces_without_pods_here_change_nothing() {
    let mut node = Node::new(two_nodes());
    let from = rule(&[], &[]);
    let with = two_nodes().policy("y/p", "", Some(std::slice::from_ref(&from)), Some(std::slice::from_ref(&from)));
    assert_eq!(node.becomes(with), Some(vec![]));
    let mut with = two_nodes();
    with.namespaces.push(fairlead_objects::Namespace { name: "w".into(), labels: labels("ns=y") });
    assert_eq!(node.becomes(with.clone()), Some(vec![]));
    // A namespace that comes with its pods.
    node.becomes(two_nodes());
    let pods = with.pod("w/new", 2, 40, "app=b");
    assert!(node.becomes(pods.clone()).is_some() && node.lets_in("10.244.2.40"));
    let mut other = pods;
    other.namespaces.last_mut().unwrap().labels = labels("ns=w");
    assert!(node.becomes(other).is_none() && !node.lets_in("10.244.2.40"));
    assert!(node.becomes(two_nodes().policy("x/q", "", Some(&[from]), None)).is_none());
}

#[test]
fn p80_p81_what_pods_are_told_by_dns_is_not_followed() {
    let names = |cluster: Cluster, of: &str| {
        let others = does(Action::Deny, &[block("0.0.0.0/0", &[]), block("::/0", &[])], &[]);
        let egress = [does(Action::Accept, &[named_by(&["a.example.org"])], &[]), others];
        let mut cluster = cluster;
        cluster.cluster_policies = vec![cnp("Admin/1/names", of, &[], &egress)];
        cluster
    };
    let reaches = |node: &Node, slot| {
        ask(node.state.content(), slot, Direction::Egress, Flow { peer: ip("192.0.2.1"), proto: 6, port: 443 }).0
    };
    // One that selects pods elsewhere alone is no matter.
    let mut node = Node::new(names(two_nodes(), "ns=y"));
    assert!(node.becomes(names(two_nodes().pod("y/new", 2, 40, "app=b"), "ns=y")).is_some());
    // With the first pod here, everything is planned, and so it is while the pod is here.
    let here = names(two_nodes().pod("y/here", 1, 15, "app=b"), "ns=y");
    assert!(node.becomes(here.clone()).is_none());
    let mut told = here.clone();
    let place = told.local.iter().position(|local| local.slot == 15).unwrap();
    let (changed, adds) = tell(&mut told, &Told::Learn(place, 0, ip("192.0.2.1")));
    node.model.names_mut().clone_from(&told.names);
    let ops = node.state.tell(&told.names, &changed, adds).ops;
    ops.iter().for_each(|op| node.state.applied(op));
    node.cluster = told.clone();
    assert!(reaches(&node, 15));
    assert!(node.becomes(told.clone().pod("z/new", 2, 41, "app=b")).is_none() && reaches(&node, 15));
    assert!(node.becomes(told).is_none() && reaches(&node, 15));
    // When it has gone, the next change finds that nobody asks.
    assert!(node.becomes(names(two_nodes(), "ns=y")).is_none());
    assert!(node.becomes(names(two_nodes().pod("z/new", 2, 41, "app=b"), "ns=y")).is_some());
}
