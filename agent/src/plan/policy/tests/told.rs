//! Addresses that pods are told by DNS: between two plans, and by a plan.

use proptest::prelude::*;

use super::*;
use crate::compile::policy::testing::{TOLD, Told, any_cluster, any_told, ask_again, block, cnp, does, named_by, tell};
use crate::names::{Answer, Names};
use fairlead_objects::Action;

/// Judgements of every pod that is here.
fn all(cluster: &Cluster) -> Vec<(LocalPod, Direction, Flow)> {
    flows(cluster, PORTS)
}

/// The same cluster, in which what lingers is live.
fn lingering(cluster: &Cluster) -> Cluster {
    let mut names = Names::default();
    for (pod, uid, name, until, addresses) in cluster.names.answers() {
        names.learn(&Answer { pod, uid, name, addresses: &addresses, until: until.max(1) }, 0);
    }
    Cluster { names, ..cluster.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_pods_are_told_between_plans_is_what_a_plan_would_say(
        cluster in any_cluster(), steps in prop::collection::vec(any_told(), 1..10),
    ) {
        let mut cluster = cluster;
        let mut state = cluster.tables();
        for step in steps {
            let old = state.content().clone();
            let (changed, adds) = tell(&mut cluster, &step);
            let Tell { ops, inside: _, left_out } = state.tell(&cluster.names, &changed, adds);
            prop_assert!(left_out.is_empty());
            let contents = contents(&old, &ops);
            let new = contents.last().unwrap();
            let known = lingering(&cluster);
            for flow in all(&cluster) {
                let (before, after) = (answer(&old, &flow), answer(new, &flow));
                prop_assert_eq!(after, model(&cluster, &flow.0, flow.1, flow.2).0, "{:?} after {:?}", flow, ops);
                for content in &contents {
                    let now = answer(content, &flow);
                    prop_assert!(now == before || now == after, "{:?} in {:?}", flow, ops);
                }
                prop_assert_eq!(epoch(&old, flow.0.slot), epoch(new, flow.0.slot));
                if flow.1 == Direction::Egress {
                    prop_assert_eq!(
                        ask_again(new, flow.0.slot, flow.2), model(&known, &flow.0, flow.1, flow.2).0,
                        "{:?}, if it is known", flow,
                    );
                }
            }
            ops.iter().for_each(|op| state.applied(op));
            // A plan of everything agrees, and takes out no more than what nothing leads to.
            let mut other = State::adopt(Capacity::default(), state.content().clone());
            let ops = plan(&mut other, &cluster);
            prop_assert!(!ops.iter().any(|op| matches!(op, Op::PodWord { .. } | Op::Peer { .. })), "{:?}", ops);
        }
    }

    #[test]
    fn what_lingers_does_so_through_every_plan(history in any_history(2)) {
        let mut state = history[0].tables();
        for step in history.windows(2) {
            let old = state.content().clone();
            let ops = plan(&mut state, &step[1]);
            let contents = contents(&old, &ops);
            let new = contents.last().unwrap();
            let known = lingering(&step[1]);
            for flow in lasting(&step[0], &step[1]).into_iter().filter(|flow| flow.1 == Direction::Egress) {
                let again = |content: &Content| ask_again(content, flow.0.slot, flow.2);
                let (before, after) = (again(&old), again(new));
                prop_assert_eq!(after, model(&known, &flow.0, flow.1, flow.2).0, "{:?}", flow);
                for content in &contents {
                    prop_assert!(again(content) == before || again(content) == after, "{:?} in {:?}", flow, ops);
                }
            }
            ops.iter().for_each(|op| state.applied(op));
        }
    }
}

fn names(rules: &[&str]) -> Cluster {
    let deny = does(Action::Deny, &[block("0.0.0.0/0", &[]), block("::/0", &[])], &[]);
    let mut cluster = Cluster::grid();
    cluster.cluster_policies =
        vec![cnp("Admin/1/names", "ns=x", &[], &[does(Action::Accept, &[named_by(rules)], &[]), deny])];
    cluster
}

#[test]
fn p76_another_address_of_a_name_is_one_operation() {
    let mut cluster = names(&["*.example.org"]);
    let mut state = cluster.tables();
    let mut learn = |n: u8| {
        let pod = &cluster.local[0];
        let (ip, name) = (ip(&format!("198.51.100.{n}")), TOLD[usize::from(n) % 3]);
        let answer = Answer { pod: &pod.key, uid: &pod.uid, name, addresses: &[ip], until: 10 };
        let changed = cluster.names.learn(&answer, 0);
        let tell = state.tell(&cluster.names, &changed, true);
        tell.ops.iter().for_each(|op| state.applied(op));
        tell.ops.len()
    };
    assert_eq!(learn(1), 4, "rows of its class in three sets, and the address");
    assert_eq!([learn(2), learn(3), learn(4)], [1; 3]);
    assert_eq!(learn(1), 0, "it is there");
}

#[test]
fn p76_pods_with_the_same_rules_are_told_apart() {
    let mut cluster = names(&["a.example.org"]);
    let mut state = cluster.tables();
    let (changed, _) = tell(&mut cluster, &Told::Learn(0, 0, ip("192.0.2.1")));
    let Tell { ops, .. } = state.tell(&cluster.names, &changed, true);
    ops.iter().for_each(|op| state.applied(op));
    let flow = Flow { peer: ip("192.0.2.1"), proto: 6, port: 80 };
    let open = |n: usize| ask(state.content(), cluster.local[n].slot, Direction::Egress, flow).0;
    assert_eq!([open(0), open(1), open(2)], [true, false, false]);
}

#[test]
fn p79_what_there_is_no_room_for_is_left_out_and_takes_nothing_away() {
    let mut cluster = names(&["a.example.org"]);
    let room = cluster.tables().content().peer.peers.len() + 1;
    let mut state = State { capacity: Capacity { peers: room, ..Capacity::default() }, ..State::default() };
    advance(&mut state, &cluster);
    let mut learn = |pod: usize, n: u8| {
        let (changed, adds) = tell(&mut cluster, &Told::Learn(pod, 0, ip(&format!("192.0.2.{n}"))));
        let tell = state.tell(&cluster.names, &changed, adds);
        tell.ops.iter().for_each(|op| state.applied(op));
        tell.left_out.len()
    };
    assert_eq!([learn(0, 1), learn(1, 2), learn(1, 1)], [0, 1, 0]);
    let flow = |n: u8| Flow { peer: ip(&format!("192.0.2.{n}")), proto: 6, port: 80 };
    let open = |pod: usize, n| ask(state.content(), cluster.local[pod].slot, Direction::Egress, flow(n)).0;
    assert_eq!([open(0, 1), open(1, 1), open(1, 2)], [true, true, false]);
}
