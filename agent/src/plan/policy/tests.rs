//! Nothing but the old answer and the new one, at any moment.

use std::cell::Cell;
use std::collections::BTreeMap;

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::peer::{self, CidrKey, NodeHop, Peer, Pod, PodWord};
use fairlead_datapath::policy::{self, PeerKey, PolicySet, PortKey, RangeKey, Row, decide};
use fairlead_datapath::{Addr, WirePort};
use fairlead_objects::ObjectKey;
use proptest::prelude::*;

mod capacity;
mod follow;
mod nodes;
mod time;
mod told;

use super::*;
use crate::compile::policy::Direction;
use crate::compile::policy::reference::Flow;
use crate::compile::policy::testing::{
    self, Cluster, advance, any_history, ask, flows, ip, labels, model, pods, pods_of, rule, tcp,
};
use crate::model::LocalPod;

const PORTS: &[(u8, u16)] = &[(6, 80), (6, 100), (17, 53), (1, 0)];

fn plan(state: &mut State, cluster: &Cluster) -> Vec<Op> {
    let Plan { ops, cut_off, left_out } = testing::plan(state, cluster);
    assert!(cut_off.is_empty() && left_out.is_empty(), "{cut_off:?} {left_out:?}");
    ops
}

/// Judgements for pods that are there before and after: who comes or goes has no old or no new answer.
fn lasting(before: &Cluster, after: &Cluster) -> Vec<(LocalPod, Direction, Flow)> {
    let both = Cluster {
        pods: before.pods.iter().chain(&after.pods).cloned().collect(),
        local: before.local.iter().filter(|local| after.local.contains(local)).cloned().collect(),
        nodes: before.nodes.clone(),
        ..Cluster::default()
    };
    flows(&both, PORTS)
}

fn answer(content: &Content, (local, direction, flow): &(LocalPod, Direction, Flow)) -> bool {
    ask(content, local.slot, *direction, *flow).0
}

fn epoch(content: &Content, slot: u16) -> u32 {
    PodWord(content.peer.pods.get(&slot).map_or(0, |pod| pod.word)).epoch()
}

/// The content before the plan and after each of its operations.
fn contents(first: &Content, ops: &[Op]) -> Vec<Content> {
    let mut contents = vec![first.clone()];
    for op in ops {
        let mut next = contents[contents.len() - 1].clone();
        next.apply(op);
        contents.push(next);
    }
    contents
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn every_prefix_of_a_plan_gives_the_old_answer_or_the_new_one(history in any_history(2)) {
        let mut state = history[0].tables();
        for step in history.windows(2) {
            let old = state.content().clone();
            let ops = plan(&mut state, &step[1]);
            let contents = contents(&old, &ops);
            let new = contents.last().unwrap();
            for flow in lasting(&step[0], &step[1]) {
                let (before, after) = (answer(&old, &flow), answer(new, &flow));
                prop_assert_eq!(after, model(&step[1], &flow.0, flow.1, flow.2).0);
                for (n, content) in contents.iter().enumerate() {
                    let now = answer(content, &flow);
                    prop_assert!(now == before || now == after, "{:?} after {} of {:?}", flow, n, ops);
                }
                // P39: an answer that changed is asked for again.
                if before != after {
                    prop_assert_ne!(epoch(&old, flow.0.slot), epoch(new, flow.0.slot));
                }
            }
            for op in &ops {
                state.applied(op);
            }
            prop_assert_eq!(state.content(), new);
        }
    }

    #[test]
    fn pods_are_judged_as_wanted_before_the_plan_is_at_its_end(history in any_history(2)) {
        let mut state = history[0].tables();
        for step in history.windows(2) {
            let old = state.content().clone();
            let whole = testing::plan(&mut state, &step[1]);
            let contents = contents(&old, &whole.ops);
            // Who is new is judged too: that is what its ADD waits for.
            for flow in flows(&step[1], PORTS) {
                let wanted = model(&step[1], &flow.0, flow.1, flow.2).0;
                for content in &contents[whole.judged()..] {
                    prop_assert_eq!(answer(content, &flow), wanted, "{:?} in {:?}", flow, whole.ops);
                }
            }
            whole.ops.iter().for_each(|op| state.applied(op));
        }
    }

    #[test]
    fn a_restart_finds_its_tables_as_it_would_write_them(history in any_history(2)) {
        let mut state = history[0].tables();
        advance(&mut state, &history[1]);
        advance(&mut state, &history[2]);
        let mut adopted = State::adopt(Capacity::default(), state.content().clone());
        prop_assert_eq!(plan(&mut adopted, &history[2]), vec![]);
        prop_assert_eq!(adopted.sets.keys().copied().collect::<Vec<_>>(),
            adopted.content.sets().into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_left_behind(history in any_history(2)) {
        let mut state = history[0].tables();
        advance(&mut state, &history[1]);
        advance(&mut state, &history[2]);
        let (content, fresh) = (state.content(), history[2].tables());
        prop_assert_eq!(content.policy.peers.len(), fresh.content().policy.peers.len());
        prop_assert_eq!(content.policy.ports.len(), fresh.content().policy.ports.len());
        prop_assert_eq!(content.policy.ranges.len(), fresh.content().policy.ranges.len());
        prop_assert_eq!(content.policy.sets.len(), fresh.content().policy.sets.len());
        prop_assert_eq!(content.peer.peers.len(), fresh.content().peer.peers.len());
        prop_assert_eq!(content.peer.cidrs.len(), fresh.content().peer.cidrs.len());
        prop_assert_eq!(content.peer.nodes.len(), fresh.content().peer.nodes.len());
    }

    #[test]
    fn a_plan_that_was_cut_off_is_taken_up(history in any_history(2), at in any::<prop::sample::Index>()) {
        let mut state = history[0].tables();
        let ops = plan(&mut state, &history[1]);
        let done = at.index(ops.len() + 1);
        ops[..done].iter().for_each(|op| state.applied(op));
        let mut state = State::adopt(Capacity::default(), state.content().clone());
        let half = state.content().clone();
        let ops = plan(&mut state, &history[2]);
        let contents = contents(&half, &ops);
        let new = contents.last().unwrap();
        let stayed: Vec<_> = lasting(&history[0], &history[2]).into_iter().filter(|flow| history[1].local.contains(&flow.0)).collect();
        for flow in stayed {
            let (before, after) = (answer(&half, &flow), answer(new, &flow));
            prop_assert_eq!(after, model(&history[2], &flow.0, flow.1, flow.2).0);
            for content in &contents {
                let now = answer(content, &flow);
                prop_assert!(now == before || now == after);
            }
        }
    }
}

/// Tables that change while they are read: before each look, the writer gets so many operations further.
struct Moving<'a> {
    contents: &'a [Content],
    at: Cell<usize>,
    /// Operations before each of the next looks.
    steps: &'a [usize],
    look: Cell<usize>,
    /// The writer waits here for readers to finish.
    barrier: usize,
}

impl Moving<'_> {
    fn content(&self) -> &Content {
        let step = self.steps.get(self.look.get()).copied().unwrap_or(0);
        self.look.set(self.look.get() + 1);
        self.at.set((self.at.get() + step).min(self.barrier));
        &self.contents[self.at.get()]
    }
}

impl peer::Tables for Moving<'_> {
    fn peer(&self, addr: &Addr) -> Option<Peer> {
        let (before, content) = (self.at.get(), self.content());
        // An element that was replaced in between may have been filled again for another address.
        let (then, now) = (self.contents[before].peer.peers.get(addr), content.peer.peers.get(addr));
        if then != now && then.is_some() {
            let other = content
                .peer
                .peers
                .iter()
                .find(|(a, p)| *a != addr && self.contents[before].peer.peers.get(a) != Some(p));
            if let Some((_, other)) = other {
                return Some(*other);
            }
        }
        now.copied()
    }

    fn cidr(&self, key: &CidrKey) -> Option<Peer> {
        self.content().peer.cidr(key)
    }

    fn node(&self, index: u16) -> Option<NodeHop> {
        self.content().peer.node(index)
    }

    fn pod(&self, slot: u16) -> Option<&Pod> {
        self.content().peer.pod(slot)
    }

    fn pod_word(&self, slot: u16) -> u64 {
        self.content().peer.pod_word(slot)
    }

    fn foreign(&self, ifindex: u32) -> Option<peer::HostSide> {
        self.content().peer.foreign(ifindex)
    }

    fn host_side(&self, slot: u16) -> u32 {
        self.content().peer.host_side(slot)
    }
}

impl policy::Tables for Moving<'_> {
    fn policy_set(&self, index: u32) -> Option<PolicySet> {
        self.content().policy.policy_set(index)
    }

    fn policy_peers(&self, key: &PeerKey) -> Option<Row> {
        self.content().policy.policy_peers(key)
    }

    fn policy_ports(&self, key: &PortKey) -> Option<Row> {
        self.content().policy.policy_ports(key)
    }

    fn policy_range(&self, key: &RangeKey) -> Option<Row> {
        self.content().policy.policy_range(key)
    }
}

/// Every way to give three looks out of the first eight one to three operations more.
fn schedules() -> Vec<[usize; 8]> {
    let mut schedules = vec![[0; 8]];
    for first in 0..8 {
        for second in first..8 {
            for steps in [[1, 0], [2, 0], [3, 0], [1, 1], [1, 2], [2, 1]] {
                let mut schedule = [0; 8];
                schedule[first] += steps[0];
                schedule[second] += steps[1];
                schedules.push(schedule);
            }
        }
    }
    schedules.sort_unstable();
    schedules.dedup();
    schedules
}

/// Whether anything that a flow's judgement reads is different in one of these contents.
fn matters(contents: &[Content], (local, direction, flow): &(LocalPod, Direction, Flow)) -> bool {
    let view = |content: &Content| {
        let word = PodWord(peer::Tables::pod_word(&content.peer, local.slot));
        (word, peer::lookup(&content.peer, Addr::from(flow.peer)))
    };
    let (word, known) = view(&contents[0]);
    let set = if *direction == Direction::Ingress { word.ingress() } else { word.egress() };
    let own = local.ips.contains(&flow.peer);
    let port = WirePort::new(flow.port);
    let judge = |content: &Content| decide(&content.policy, set, known.class, flow.proto, port, own, &mut 0);
    let first = judge(&contents[0]);
    contents.iter().any(|content| view(content) != (word, known) || judge(content) != first)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    #[test]
    fn a_packet_in_the_middle_of_its_walk_meets_the_old_answer_or_the_new_one(history in any_history(1)) {
        let mut state = history[0].tables();
        let old = state.content().clone();
        let ops = plan(&mut state, &history[1]);
        let contents = contents(&old, &ops);
        let new = contents.last().unwrap();
        let schedules = schedules();
        // One port is enough: what may go wrong here is about sets, classes and their rows.
        let flows: Vec<_> = lasting(&history[0], &history[1]).into_iter().filter(|(.., flow)| flow.port == 80).collect();
        for flow in flows {
            let (local, direction, Flow { peer, proto, port }) = &flow;
            let (before, after) = (answer(&old, &flow), answer(new, &flow));
            for start in 0..contents.len() {
                let barrier = ops[start..].iter().position(|op| *op == Op::Barrier).map_or(ops.len(), |n| start + n);
                if !matters(&contents[start..=barrier.min(start + 3)], &flow) {
                    continue;
                }
                for steps in &schedules {
                    let tables = Moving { contents: &contents, at: Cell::new(start), steps, look: Cell::new(0), barrier };
                    let word = PodWord(peer::Tables::pod_word(&tables, local.slot));
                    let known = peer::lookup(&tables, Addr::from(*peer));
                    if known.flags & peer::PeerFlags::RACED != 0 {
                        continue;
                    }
                    let set = if *direction == Direction::Ingress { word.ingress() } else { word.egress() };
                    let now = decide(&tables, set, known.class, *proto, WirePort::new(*port), local.ips.contains(peer), &mut 0).allow();
                    prop_assert!(now == before || now == after, "{:?} from {} by {:?} of {:?}", flow, start, steps, ops);
                    // What is remembered under the last epoch is not asked for again.
                    if word.epoch() == epoch(new, local.slot) {
                        prop_assert_eq!(now, after, "{:?} from {} by {:?} of {:?}", flow, start, steps, ops);
                    }
                }
            }
        }
    }
}

fn deny_all() -> Cluster {
    Cluster::grid().policy("x/deny", "", Some(&[]), None)
}

#[test]
fn p39_only_pods_that_are_judged_otherwise_get_a_new_epoch() {
    let before = deny_all().policy("y/p", "pod=a", Some(&[rule(&[pods("pod=b")], &[])]), None);
    let mut state = before.tables();
    let epochs =
        |state: &State| -> BTreeMap<u16, u32> { (10..19).map(|slot| (slot, epoch(state.content(), slot))).collect() };
    let first = epochs(&state);
    // A peer of y/a changes its label: y/a alone asks for it.
    advance(&mut state, &before.clone().with("y/b", |pod| pod.labels = labels("pod=z")));
    let second = epochs(&state);
    let moved: Vec<_> = first.iter().filter(|(slot, epoch)| second[slot] != **epoch).map(|(slot, _)| *slot).collect();
    assert_eq!(moved, [13]);
    // A policy goes: its pods' answers change.
    let mut without = before.clone();
    without.policies.retain(|policy| policy.key != ObjectKey::new("x", "deny"));
    advance(&mut state, &without);
    let third = epochs(&state);
    let moved: Vec<_> = second.iter().filter(|(slot, epoch)| third[slot] != **epoch).map(|(slot, _)| *slot).collect();
    assert_eq!(moved, [10, 11, 12, 13]);
}

#[test]
fn p40_a_pods_word_comes_after_everything_that_it_leads_to() {
    let before = deny_all();
    let mut state = before.tables();
    let after =
        before.pod("x/new", 1, 40, "pod=new").policy("x/p", "pod=new", Some(&[rule(&[pods("pod=a")], &[])]), None);
    let ops = plan(&mut state, &after);
    let word = ops.iter().position(|op| matches!(op, Op::PodWord { slot: 40, .. })).unwrap();
    let needs = |op: &Op| {
        matches!(
            op,
            Op::PolicyPorts { value: Some(_), .. } | Op::PolicyPeers { value: Some(_), .. } | Op::Pod { slot: 40, .. }
        )
    };
    assert!(ops[..word].iter().filter(|op| needs(op)).count() >= 6);
    assert!(!ops[word..].iter().any(needs));
    assert!(!ops[..word].contains(&Op::Barrier), "a new pod waits for nobody");
}

#[test]
fn a_slot_that_another_pod_takes_over_is_stopped_first_and_counts_on() {
    let before = deny_all();
    let mut state = before.tables();
    let old = epoch(state.content(), 10);
    let mut after = before;
    after.local[0].key = ObjectKey::new("y", "next");
    after.local[0].pod_mac = [2; 6];
    let ops = plan(&mut state, &after);
    let at = |found: &dyn Fn(&Op) -> bool| ops.iter().position(found).unwrap();
    let stopped =
        at(&|op| matches!(op, Op::PodWord { slot: 10, word } if PodWord(*word).ingress() == policy::DENY_ALL));
    let barrier = at(&|op| *op == Op::Barrier);
    let record = at(&|op| matches!(op, Op::Pod { slot: 10, .. }));
    assert!(stopped < barrier && barrier < record);
    ops.iter().for_each(|op| state.applied(op));
    assert_eq!(epoch(state.content(), 10), old + 1, "its object is not known: it stays stopped");
}

#[test]
fn a_pod_that_is_gone_leaves_no_word_and_its_slot_counts_on() {
    let before = deny_all();
    let mut state = before.tables();
    let old = epoch(state.content(), 10);
    let mut after = before;
    after.local.remove(0);
    after.pods.remove(0);
    advance(&mut state, &after);
    let pod = state.content().peer.pods[&10];
    assert_eq!(pod, Pod { word: PodWord::new(0, 0, old + 1).0, ..Pod::default() });
}

#[test]
fn sets_are_shared_by_pods_with_the_same_rules() {
    let state = deny_all().tables();
    assert_eq!(state.content().sets().len(), 1);
    let word = |slot| PodWord(state.content().peer.pods[&slot].word);
    assert_eq!((word(10).ingress(), word(10).egress()), (word(11).ingress(), policy::ALLOW_ALL));
    let set = state.set(word(10).ingress()).unwrap();
    assert_eq!((set.direction, set.policies.as_slice()), (Direction::Ingress, &[ObjectKey::new("x", "deny")][..]));
}

#[test]
fn a_pod_with_too_many_rules_is_cut_off_and_nobody_else() {
    let mut state = deny_all().tables();
    let rules: Vec<_> = (0..2049_u16).map(|port| rule(&[], &[tcp(port + 1)])).collect();
    let big = deny_all().policy("x/big", "pod=a", Some(&rules), None);
    let other = big.clone().policy("y/deny", "", Some(&[]), None);
    let Plan { ops, cut_off, .. } = testing::plan(&mut state, &other);
    ops.iter().for_each(|op| state.applied(op));
    let texts: Vec<_> = cut_off.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        ["pod x/a: ingress of the selected pods is cut off: nothing passes, since policies x/big, x/deny have 2049 \
          rules \
            together, and a pod can have at most 2048: merge rules"]
    );
    let word = |slot| PodWord(state.content().peer.pods[&slot].word);
    assert_eq!((word(10).ingress(), word(10).egress()), (policy::CUT_OFF, policy::ALLOW_ALL), "ingress alone");
    assert_ne!(word(11).ingress(), policy::CUT_OFF);
    assert_ne!(word(13).ingress(), policy::ALLOW_ALL, "policies of others come into force");

    let fits = deny_all().policy("x/big", "pod=a", Some(&rules[..2048]), None);
    advance(&mut state, &fits);
    for (port, expected) in [(1, true), (2048, true), (2049, false)] {
        let flow = Flow { peer: ip("192.0.2.1"), proto: 6, port };
        assert_eq!(ask(state.content(), 10, Direction::Ingress, flow).0, expected);
    }
}

#[test]
fn addresses_that_have_no_room_are_left_out_and_are_denied_by_label() {
    // Two addresses each of three pods and two nodes: there is room for eight.
    let cluster = Cluster::new()
        .pod("x/a", 1, 10, "pod=a")
        .pod("x/near", 1, 11, "pod=near")
        .pod("y/far", 2, 12, "pod=far")
        .policy("x/p", "pod=a", Some(&[rule(&[pods_of("ns=y", ""), pods("")], &[])]), None);
    let mut state = State::adopt(Capacity { peers: 8, ..Capacity::default() }, Content::default());
    let Plan { ops, cut_off, left_out } = testing::plan(&mut state, &cluster);
    assert_eq!((cut_off, left_out), (vec![], BTreeMap::from([(TableId::Peers, 2)])));
    ops.iter().for_each(|op| state.applied(op));
    for (pod, allowed) in [("x/near", true), ("y/far", false)] {
        let flow = Flow { peer: cluster.ip_of(pod, 0), proto: 6, port: 80 };
        assert_eq!(ask(state.content(), 10, Direction::Ingress, flow).0, allowed, "{pod}");
    }
    let known = peer::lookup(&state.content().peer, cluster.ip_of("y/far", 0).into());
    assert_ne!(known.node, peer::NO_NODE, "it is reached all the same");
}

#[test]
fn a_pod_that_leaves_its_set_while_a_peer_changes_sees_no_mixture() {
    let before = Cluster::grid()
        .with("x/a", |pod| pod.labels = labels("app=1"))
        .with("x/b", |pod| pod.labels = labels("app=1"))
        .policy("x/one", "app=1", Some(&[rule(&[pods_of("ns=y", "pod=b")], &[])]), None)
        .policy("x/two", "app=2", Some(&[rule(&[pods_of("ns=y", "pod=q")], &[])]), None);
    // To x/a the peer is allowed before and after, but not by its old rules with the peer's new label, nor the reverse;
    // x/b keeps its rules and loses the peer.
    let after =
        before.clone().with("x/a", |pod| pod.labels = labels("app=2")).with("y/b", |pod| pod.labels = labels("pod=q"));
    let mut state = before.tables();
    let old = state.content().clone();
    let ops = plan(&mut state, &after);
    let flow = Flow { peer: before.ip_of("y/b", 0), proto: 6, port: 80 };
    let answers =
        |slot| contents(&old, &ops).iter().map(|c| ask(c, slot, Direction::Ingress, flow).0).collect::<Vec<_>>();
    assert!(answers(10).iter().all(|allowed| *allowed));
    let other = answers(11);
    assert!(other[0] && !other[other.len() - 1] && other.is_sorted_by(|a, b| a >= b));
}

#[test]
fn addresses_do_not_fall_to_a_shorter_prefix_on_the_way_to_their_own() {
    let mut before = Cluster::new();
    before.nodes[1].pod_cidrs = vec!["10.244.0.0/16".parse().unwrap()];
    let mut after = before.clone();
    after.nodes[1].internal_ips = vec![ip("172.18.0.22")];
    let mut third = after.nodes[1].clone();
    third.name = "n3".to_owned();
    third.internal_ips = vec![ip("172.18.0.3")];
    third.pod_cidrs = vec!["10.244.3.0/24".parse().unwrap()];
    after.nodes.push(third);
    for (from, to, ways) in
        [(&before, &after, ["172.18.0.2", "172.18.0.3"]), (&after, &before, ["172.18.0.3", "172.18.0.2"])]
    {
        let mut state = from.tables();
        let old = state.content().clone();
        let ops = plan(&mut state, to);
        let way = |content: &Content| {
            let known = peer::lookup(&content.peer, ip("10.244.3.9").into());
            std::net::IpAddr::from(content.peer.nodes[&known.node].v4)
        };
        let mut taken: Vec<_> = contents(&old, &ops).iter().map(way).collect();
        taken.dedup();
        assert_eq!(taken, ways.map(ip));
    }
}
