//! Tables that are too small: who is cut off, and that nobody else notices.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::peer::PodWord;
use fairlead_datapath::policy::{CUT_OFF, DENY_ALL, PolicySet, is_closed};
use proptest::prelude::*;

use super::{answer, contents, lasting};
use crate::compile::policy::testing::{self, Cluster, advance, any_history, block, flows, model, rule};
use crate::compile::policy::{Direction, Draft, Judge};
use crate::plan::policy::{Capacity, Content, CutOff, Plan, State};

const PORTS: &[(u8, u16)] = &[(6, 80), (6, 100), (17, 53), (1, 0)];

/// A direction of a pod.
type Side = (u16, Direction);

/// Sizes of tables that hold this and nothing else.
fn sizes(draft: &Draft<'_>, sets: &[usize]) -> BTreeMap<TableId, usize> {
    let wanted = draft.finish(sets);
    let mut sizes: BTreeMap<_, _> = BTreeMap::from([(TableId::Cidrs, wanted.cidrs.len())]);
    // Rows as the packets meet them: of everybody, and where a class differs from that.
    let mut rows = 0;
    for set in &wanted.sets {
        let everybody = set.peers(&wanted.classes[0].0);
        rows += everybody.pages().len();
        for (signature, _) in &wanted.classes[1..] {
            rows += set.peers(signature).pages().iter().zip(everybody.pages()).filter(|(a, b)| a != b).count();
        }
    }
    sizes.insert(TableId::PolicyPeers, rows);
    sizes
}

/// Who is cut off, as the module words it and as slowly as can be: one set after the other, everything compiled for each.
fn naive(old: &Content, cluster: &Cluster, capacity: &Capacity) -> BTreeSet<Side> {
    let world = cluster.world();
    let draft = Draft::new(&world);
    let mut claims = BTreeMap::new();
    for (slot, pod) in draft.pods() {
        for (direction, judge) in pod.judges() {
            let Judge::Set(set) = judge else { continue };
            let was = old.peer.pods.get(slot).filter(|was| {
                was.pod_mac == pod.local.pod_mac && was.v4 == crate::compile::peers::record(pod.local).v4
            });
            let word = was.map_or(PodWord::new(DENY_ALL, DENY_ALL, 0), |was| PodWord(was.word));
            let id = if direction == Direction::Ingress { word.ingress() } else { word.egress() };
            let in_force = old.policy.sets.get(&PolicySet::index(id)).filter(|row| row.id == id);
            let rank = match in_force {
                _ if is_closed(id) => 2,
                Some(row) if row.content == draft.content(set) => 0,
                _ => 1,
            };
            claims.entry(set).or_insert_with(BTreeSet::new).insert((rank, pod.local.key.clone(), *slot, direction));
        }
    }
    let mut order: Vec<_> = claims.iter().map(|(set, claims)| (claims.first().unwrap().clone(), *set)).collect();
    order.sort();
    let mut kept: Vec<usize> = Vec::new();
    let mut cut_off = BTreeSet::new();
    for (_, set) in order {
        let with: Vec<_> = kept.iter().copied().chain([set]).collect();
        let sum = |of: fn(&crate::compile::policy::Demand<'_>) -> usize| {
            with.iter().map(|set| of(&draft.demand(*set))).sum::<usize>()
        };
        let sizes = sizes(&draft, &with);
        let fits = draft.demand(set).rules <= capacity.rules
            && with.len() <= capacity.sets
            && sum(|demand| demand.ports) <= capacity.port_rows
            && sum(|demand| demand.ranges) <= capacity.range_rows
            && sizes[&TableId::Cidrs] <= capacity.cidrs
            && sizes[&TableId::PolicyPeers] <= capacity.peer_rows;
        if fits {
            kept = with;
        } else {
            cut_off.extend(claims[&set].iter().map(|(_, _, slot, direction)| (*slot, *direction)));
        }
    }
    cut_off
}

fn sides(cut_off: &[CutOff]) -> BTreeSet<Side> {
    cut_off.iter().map(|cut_off| (cut_off.slot, cut_off.direction)).collect()
}

fn any_capacity() -> impl Strategy<Value = Capacity> {
    (2..8_usize, 2..9_usize, 4..60_usize, 8..60_usize, 0..40_usize, 4..12_usize).prop_map(
        |(rules, sets, peer_rows, port_rows, range_rows, cidrs)| Capacity {
            rules,
            sets,
            peer_rows,
            port_rows,
            range_rows,
            cidrs,
            ..Capacity::default()
        },
    )
}

fn fits(content: &Content, capacity: &Capacity) -> bool {
    content.policy.peers.len() <= capacity.peer_rows
        && content.policy.ports.len() <= capacity.port_rows
        && content.policy.ranges.len() <= capacity.range_rows
        && content.peer.cidrs.len() <= capacity.cidrs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn who_does_not_fit_is_cut_off_and_everybody_else_is_judged_by_the_policies(
        history in any_history(2), capacity in any_capacity(),
    ) {
        let mut state = State::adopt(capacity.clone(), Content::default());
        let mut before: Option<&Cluster> = None;
        for cluster in &history {
            let old = state.content().clone();
            let expected = naive(&old, cluster, &capacity);
            let Plan { ops, cut_off, left_out } = testing::plan(&mut state, cluster);
            prop_assert_eq!(sides(&cut_off), expected.clone());
            prop_assert!(left_out.is_empty());
            let contents = contents(&old, &ops);
            for content in &contents {
                prop_assert!(fits(content, &capacity), "a table overflows");
            }
            // On the way nothing passes that neither the old policies nor the new ones let pass.
            for flow in before.map(|before| lasting(before, cluster)).unwrap_or_default() {
                let (was, is) = (answer(&old, &flow), answer(contents.last().unwrap(), &flow));
                for content in &contents {
                    prop_assert!(was || is || !answer(content, &flow), "{:?}", flow);
                }
            }
            ops.iter().for_each(|op| state.applied(op));
            for flow in flows(cluster, PORTS) {
                let (local, direction, judged) = &flow;
                let allowed = !expected.contains(&(local.slot, *direction)) && model(cluster, local, *direction, *judged).0;
                prop_assert_eq!(answer(state.content(), &flow), allowed, "{:?}", flow);
            }
            // Whoever asks again, and an agent that starts anew, decides the same and changes nothing.
            let mut restarted = State::adopt(capacity.clone(), state.content().clone());
            for state in [&mut state, &mut restarted] {
                let again = testing::plan(state, cluster);
                prop_assert_eq!(again.ops, vec![]);
                prop_assert_eq!(sides(&again.cut_off), expected.clone());
            }
            before = Some(cluster);
        }
    }
}

/// A policy for pods with this label that names so many prefixes, from 10.`net`.0.0 on.
fn blocks(cluster: Cluster, name: &str, pod: &str, net: u8, count: u8) -> Cluster {
    let rules: Vec<_> = (0..count).map(|n| rule(&[block(&format!("10.{net}.{n}.0/24"), &[])], &[])).collect();
    cluster.policy(name, &format!("pod={pod}"), Some(&rules), None)
}

/// The nodes' own four prefixes and eight more.
fn small() -> State {
    State::adopt(Capacity { cidrs: 12, ..Capacity::default() }, Content::default())
}

fn cut_off(state: &mut State, cluster: &Cluster) -> Vec<String> {
    let Plan { ops, cut_off, .. } = testing::plan(state, cluster);
    ops.iter().for_each(|op| state.applied(op));
    cut_off.iter().map(|cut_off| cut_off.pod.to_string()).collect()
}

#[test]
fn a_pod_that_is_in_force_keeps_its_place_and_the_last_one_heals_when_there_is_room() {
    let mut state = small();
    let first = blocks(Cluster::grid(), "z/p", "a", 1, 5);
    advance(&mut state, &first);
    // x/a comes before z/a by name, and after it in time.
    let both = blocks(first.clone(), "x/p", "a", 2, 5);
    assert_eq!(cut_off(&mut state, &both), ["x/a"]);
    let mut restarted = State::adopt(Capacity { cidrs: 12, ..Capacity::default() }, state.content().clone());
    assert_eq!(cut_off(&mut restarted, &both), ["x/a"]);
    // A small one that comes after it has a place.
    assert_eq!(cut_off(&mut state, &blocks(both, "y/p", "a", 3, 2)), ["x/a"]);
    assert_eq!(cut_off(&mut state, &blocks(first.clone(), "x/p", "a", 2, 3)), Vec::<String>::new());
    // Who grows beyond what is left is cut off, and not who was there.
    let grown = blocks(blocks(Cluster::grid(), "x/p", "a", 2, 3), "z/p", "a", 1, 6);
    assert_eq!(cut_off(&mut state, &grown), ["z/a"]);
}

#[test]
fn a_change_that_does_not_fit_beside_the_old_content_is_made_by_stopping_who_changes() {
    let mut state = small();
    let policy = |net| blocks(blocks(Cluster::grid(), "x/p", "a", net, 6), "y/p", "a", 9, 1);
    advance(&mut state, &policy(1));
    let old = state.content().clone();
    let Plan { ops, cut_off, .. } = testing::plan(&mut state, &policy(2));
    assert_eq!(cut_off, []);
    let word = |content: &Content, slot: u16| PodWord(content.peer.pods[&slot].word).ingress();
    let contents = contents(&old, &ops);
    assert!(contents.iter().all(|content| content.peer.cidrs.len() <= 12));
    assert!(contents.iter().any(|content| word(content, 10) == CUT_OFF), "x/a makes room for itself");
    assert!(contents.iter().all(|content| word(content, 13) == word(&old, 13)), "y/a does not notice");
}

#[test]
fn tables_that_are_full_can_be_emptied_and_filled_anew() {
    let grid = |label: &str| {
        let rules: Vec<_> =
            ["a", "b", "c"].map(|pod| rule(&[testing::pods_of(label, &format!("pod={pod}"))], &[])).into();
        ["x", "y", "z"].into_iter().fold(Cluster::grid(), |cluster, namespace| {
            cluster.policy(&format!("{namespace}/p"), "", Some(&rules), Some(&rules))
        })
    };
    let mut state = grid("ns=x").tables();
    let rows = state.content().policy.peers.len();
    state.set_capacity(Capacity { peer_rows: rows, ..Capacity::default() });
    for next in [grid("ns=y"), Cluster::grid(), grid("ns=z")] {
        let old = state.content().clone();
        let Plan { ops, cut_off, .. } = testing::plan(&mut state, &next);
        assert_eq!(cut_off, []);
        assert!(contents(&old, &ops).iter().all(|content| content.policy.peers.len() <= rows));
        ops.iter().for_each(|op| state.applied(op));
    }
    assert_eq!(state.content().policy.peers.len(), rows);
}
