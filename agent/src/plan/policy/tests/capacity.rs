//! Tables that are too small: who is cut off, and that nobody else notices.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::peer::PodWord;
use fairlead_datapath::policy::{CUT_OFF, DENY_ALL, PolicySet, is_closed};
use fairlead_objects::Action;
use proptest::prelude::*;

use super::{answer, contents, lasting};
use crate::compile::policy::testing::{self, Cluster, advance, any_history, block, cnp, does, flows, model, rule};
use crate::compile::policy::{Demand, Direction, Draft, Judge};
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
    let order: Vec<usize> = order.into_iter().map(|(_, set)| set).collect();
    let shares = shares(&draft, capacity);
    let first = |set: &usize| !shares.contains_key(draft.namespace(*set));
    let mut sorted = order.clone();
    sorted.sort_by_key(first);
    let kept = one_by_one(&draft, &sorted, &Capacity { peer_rows: usize::MAX, ..capacity.clone() });
    let kept = if sizes(&draft, &kept)[&TableId::PolicyPeers] <= capacity.peer_rows {
        kept
    } else {
        // Who needs least of the rows comes first.
        sorted.sort_by_key(|set| {
            let need = shares.get(draft.namespace(*set)).copied().flatten();
            (need.is_none(), need, need.map(|_| draft.namespace(*set)))
        });
        one_by_one(&draft, &sorted, capacity)
    };
    order
        .iter()
        .filter(|set| !kept.contains(set))
        .flat_map(|set| &claims[set])
        .map(|claim| (claim.2, claim.3))
        .collect()
}

/// The namespaces that ask for no more than their share; of rows of `POLICY_PEERS`, what they need with their classes, if
/// that is within their share too.
fn shares<'a>(draft: &'a Draft<'_>, capacity: &Capacity) -> BTreeMap<&'a str, Option<(usize, usize)>> {
    let mut of: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for set in (0..draft.count()).filter(|set| draft.demand(*set).rules <= capacity.rules) {
        of.entry(draft.namespace(set)).or_default().push(set);
    }
    let n = of.len();
    let nodes = draft.node_prefixes().collect::<BTreeSet<_>>().len();
    let mut shares = BTreeMap::new();
    for (namespace, sets) in of {
        let sum = |what: fn(&Demand<'_>) -> usize| sets.iter().map(|set| what(&draft.demand(*set))).sum::<usize>();
        let prefixes: BTreeSet<_> = sets.iter().flat_map(|set| draft.demand(*set).prefixes).collect();
        let within = sets.len() * n <= capacity.sets
            && sum(|demand| demand.ports) <= capacity.port_rows / n
            && sum(|demand| demand.ranges) <= capacity.range_rows / n
            && prefixes.len() <= capacity.cidrs.saturating_sub(nodes) / n;
        if within {
            let rows = sizes(draft, &sets)[&TableId::PolicyPeers];
            let classes = draft.finish(&sets).classes.len() - 1;
            shares.insert(namespace, (rows <= capacity.peer_rows / n).then_some((rows + classes, rows)));
        }
    }
    shares
}

/// The sets that fit, each asked beside those before it that do.
fn one_by_one(draft: &Draft<'_>, order: &[usize], capacity: &Capacity) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::new();
    for set in order {
        let with: Vec<_> = kept.iter().copied().chain([*set]).collect();
        let sum = |of: fn(&Demand<'_>) -> usize| with.iter().map(|set| of(&draft.demand(*set))).sum::<usize>();
        let sizes = sizes(draft, &with);
        let fits = draft.demand(*set).rules <= capacity.rules
            && with.len() <= capacity.sets
            && sum(|demand| demand.ports) <= capacity.port_rows
            && sum(|demand| demand.ranges) <= capacity.range_rows
            && sizes[&TableId::Cidrs] <= capacity.cidrs
            && sizes[&TableId::PolicyPeers] <= capacity.peer_rows;
        if fits {
            kept = with;
        }
    }
    kept
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

/// On the way from one content to the last of others nothing passes that neither of the two lets pass.
fn passes_nothing_of_its_own(
    before: Option<&Cluster>,
    cluster: &Cluster,
    old: &Content,
    contents: &[Content],
) -> Result<(), TestCaseError> {
    for flow in before.map(|before| lasting(before, cluster)).unwrap_or_default() {
        let (was, is) = (answer(old, &flow), answer(contents.last().unwrap(), &flow));
        for content in contents {
            prop_assert!(was || is || !answer(content, &flow), "on the way: {:?}", flow);
        }
    }
    Ok(())
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
            passes_nothing_of_its_own(before, cluster, &old, &contents)?;
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

/// Tables of addresses and prefixes that are too small, and room for all else.
fn too_few_addresses() -> impl Strategy<Value = Capacity> {
    let cidrs = prop_oneof![3 => 0..9_usize, 1 => Just(100)];
    (0..14_usize, cidrs).prop_map(|(peers, cidrs)| Capacity { peers, cidrs, ..Capacity::default() })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn p67_an_address_without_a_place_never_takes_a_rule_that_denies_with_it(
        history in any_history(2), capacity in too_few_addresses(),
    ) {
        let mut state = State::adopt(capacity.clone(), Content::default());
        let mut before: Option<&Cluster> = None;
        for cluster in &history {
            let old = state.content().clone();
            let Plan { ops, .. } = testing::plan(&mut state, cluster);
            let contents = contents(&old, &ops);
            passes_nothing_of_its_own(before, cluster, &old, &contents)?;
            ops.iter().for_each(|op| state.applied(op));
            for flow in flows(cluster, PORTS) {
                let (local, direction, judged) = &flow;
                let allowed = model(cluster, local, *direction, *judged).0;
                prop_assert!(allowed || !answer(state.content(), &flow), "{:?}", flow);
            }
            let again = testing::plan(&mut state, cluster);
            prop_assert_eq!(again.ops, vec![], "asked again");
            before = Some(cluster);
        }
    }
}

#[test]
fn p67_a_policy_that_denies_nodes_without_a_place_cuts_its_pods_off_and_nobody_else() {
    let rules = [does(Action::Deny, &[testing::nodes("role=db")], &[]), does(Action::Accept, &[], &[])];
    let mut cluster = Cluster::grid().cluster_policy(cnp("Admin/1/c", "ns=x", &[], &rules));
    cluster.nodes[1].labels = testing::labels("role=db");
    // No address has a place: those of pods are known by their node's prefix, those of nodes by nothing.
    let mut state = State::adopt(Capacity { peers: 0, ..Capacity::default() }, Content::default());
    let Plan { ops, cut_off, left_out } = testing::plan(&mut state, &cluster);
    ops.iter().for_each(|op| state.applied(op));
    assert_eq!(left_out[&TableId::Peers], 22);
    assert_eq!(cut_off.iter().map(|cut_off| cut_off.pod.to_string()).collect::<Vec<_>>(), ["x/a", "x/b", "x/c"]);
    let said = cut_off[0].to_string();
    assert!(
        said.contains("policies c have rules that deny or pass addresses of pods or nodes for which the 0 "),
        "{said}"
    );
    // With room it heals.
    state.set_capacity(Capacity::default());
    assert_eq!(self::cut_off(&mut state, &cluster), Vec::<String>::new());
}

/// The same cluster with the policies of some namespaces alone.
fn only(cluster: &Cluster, namespace: impl Fn(&str) -> bool) -> Cluster {
    let mut cluster = cluster.clone();
    cluster.policies.retain(|policy| namespace(&policy.key.namespace));
    cluster
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn p50_a_namespace_within_its_share_is_never_cut_off_for_another(history in any_history(3)) {
        // Tables in which one namespace just has its share of all but POLICY_PEERS, whatever the others ask for.
        let quiet = "x";
        let mut capacity = Capacity { sets: 1, port_rows: 1, range_rows: 1, cidrs: 1, ..Capacity::default() };
        for cluster in &history {
            let (own, others) = (only(cluster, |ns| ns == quiet), only(cluster, |ns| ns != quiet));
            let (own, others) = (own.world(), others.world());
            let (own, others) = (Draft::new(&own), Draft::new(&others));
            let n = 1 + (0..others.count()).map(|set| others.namespace(set)).collect::<BTreeSet<_>>().len();
            let demands: Vec<_> = (0..own.count()).map(|set| own.demand(set)).collect();
            let prefixes: BTreeSet<_> = demands.iter().flat_map(|demand| &demand.prefixes).collect();
            let nodes = own.node_prefixes().collect::<BTreeSet<_>>().len();
            let sum = |of: fn(&Demand<'_>) -> usize| n * demands.iter().map(of).sum::<usize>();
            capacity.sets = capacity.sets.max(n * demands.len());
            capacity.port_rows = capacity.port_rows.max(sum(|demand| demand.ports));
            capacity.range_rows = capacity.range_rows.max(sum(|demand| demand.ranges));
            capacity.cidrs = capacity.cidrs.max(n * prefixes.len() + nodes);
        }
        let mut state = State::adopt(capacity, Content::default());
        for cluster in &history {
            let Plan { ops, cut_off, .. } = testing::plan(&mut state, cluster);
            prop_assert!(cut_off.iter().all(|cut_off| cut_off.pod.namespace != quiet), "{:?}", cut_off);
            ops.iter().for_each(|op| state.applied(op));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn p67_policies_of_the_cluster_never_cut_a_namespace_off_that_is_within_its_share(history in any_history(3)) {
        let quiet = "x";
        let mut capacity = Capacity { sets: 1, port_rows: 1, range_rows: 1, cidrs: 1, ..Capacity::default() };
        for cluster in &history {
            let world = cluster.world();
            let draft = Draft::new(&world);
            let n = (0..draft.count()).map(|set| draft.namespace(set)).chain([quiet]).collect::<BTreeSet<_>>().len();
            let own = (0..draft.count()).filter(|set| draft.namespace(*set) == quiet);
            let demands: Vec<_> = own.map(|set| draft.demand(set)).collect();
            let prefixes: BTreeSet<_> = demands.iter().flat_map(|demand| &demand.prefixes).collect();
            let nodes = draft.node_prefixes().collect::<BTreeSet<_>>().len();
            let sum = |of: fn(&Demand<'_>) -> usize| n * demands.iter().map(of).sum::<usize>();
            capacity.sets = capacity.sets.max(n * demands.len());
            capacity.port_rows = capacity.port_rows.max(sum(|demand| demand.ports));
            capacity.range_rows = capacity.range_rows.max(sum(|demand| demand.ranges));
            capacity.cidrs = capacity.cidrs.max(n * prefixes.len() + nodes);
        }
        let mut state = State::adopt(capacity, Content::default());
        for cluster in &history {
            let Plan { ops, cut_off, .. } = testing::plan(&mut state, cluster);
            let of_quiet = |cut_off: &CutOff| cut_off.policies.iter().any(|policy| policy.namespace == quiet);
            prop_assert!(!cut_off.iter().any(of_quiet), "{:?}", cut_off);
            ops.iter().for_each(|op| state.applied(op));
        }
    }
}

#[test]
fn p67_what_policies_of_the_cluster_alone_judge_has_a_share_of_its_own() {
    // The nodes' four prefixes and eight more: four are the namespace's share, and four that of the cluster's policies.
    let both = |of_namespace: u8, of_cluster: u8| {
        let networks: Vec<_> = (0..of_cluster).map(|n| block(&format!("10.9.{n}.0/24"), &[])).collect();
        let deny = [does(Action::Deny, &networks, &[])];
        blocks(Cluster::grid(), "x/p", "a", 1, of_namespace).cluster_policy(cnp("Admin/1/c", "ns=y", &[], &deny))
    };
    let of_y = ["y/a", "y/b", "y/c"];
    for (of_namespace, of_cluster, expected) in [(4, 6, &of_y[..]), (6, 4, &["x/a"][..]), (4, 4, &[][..])] {
        assert_eq!(cut_off(&mut small(), &both(of_namespace, of_cluster)), expected, "{of_namespace} {of_cluster}");
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
fn a_namespace_that_takes_a_whole_table_makes_room_for_who_needs_no_more_than_its_share() {
    let mut state = small();
    let greedy = blocks(Cluster::grid(), "x/p", "a", 1, 8);
    assert_eq!(cut_off(&mut state, &greedy), Vec::<String>::new(), "nobody else needs the room");
    let quiet = blocks(greedy.clone(), "z/p", "a", 2, 4);
    let old = state.content().clone();
    let Plan { ops, cut_off: cut, .. } = testing::plan(&mut state, &quiet);
    assert_eq!(cut.iter().map(|cut_off| cut_off.pod.to_string()).collect::<Vec<_>>(), ["x/a"]);
    assert!(
        cut[0]
            .to_string()
            .contains("the 12 entries of table CIDRS on this node, of which each namespace is guaranteed 4")
    );
    assert!(contents(&old, &ops).iter().all(|content| content.peer.cidrs.len() <= 12));
    ops.iter().for_each(|op| state.applied(op));
    assert_eq!(cut_off(&mut state, &quiet), ["x/a"], "asked again");
    // Above its share a namespace has what others leave, and keeps it from who comes later and needs as much.
    let both = blocks(blocks(Cluster::grid(), "y/p", "a", 1, 5), "z/p", "a", 2, 3);
    assert_eq!(cut_off(&mut state, &both), Vec::<String>::new());
    assert_eq!(cut_off(&mut state, &blocks(both, "x/p", "a", 3, 5)), ["x/a"]);
}

#[test]
fn rules_that_split_the_classes_of_others_are_charged_to_who_needs_more() {
    // x lets every pod in, with a row or two; z tells all of them apart, which multiplies what x needs.
    let everybody = Cluster::grid().policy("x/p", "", Some(&[rule(&[testing::pods_of("", "")], &[])]), None);
    let apart: Vec<_> = ["x", "y", "z"]
        .into_iter()
        .flat_map(|ns| {
            ["a", "b", "c"].map(|pod| rule(&[testing::pods_of(&format!("ns={ns}"), &format!("pod={pod}"))], &[]))
        })
        .collect();
    let both = everybody.clone().policy("z/p", "pod=a", Some(&apart), None);
    for first in [&everybody, &both] {
        let mut state = State::adopt(Capacity { peer_rows: 18, ..Capacity::default() }, Content::default());
        advance(&mut state, first);
        assert_eq!(cut_off(&mut state, &both), ["z/a"]);
    }
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
