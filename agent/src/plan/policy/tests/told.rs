//! Addresses that pods are told by DNS: between two plans, and by a plan.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::compile::policy::testing::{TOLD, Told, any_cluster, any_told, ask_again, block, cnp, does, named_by, tell};
use crate::names::{Answer, Names};
use crate::parts::Parts;
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
        cluster in any_cluster(), steps in prop::collection::vec(any_told(), 1..10), beside in any::<bool>(),
    ) {
        // Beside another network pods elsewhere are told from what is outside by nothing but that they are known.
        let parts = if beside { Parts::Policy } else { Parts::All };
        let mut cluster = Cluster { parts, ..cluster };
        let mut state = cluster.tables();
        for step in steps {
            let old = state.content().clone();
            let (changed, adds) = tell(&mut cluster, &step);
            let Tell { ops, inside: _, left_out, late } = state.tell(&cluster.names, &changed, adds);
            prop_assert!(left_out.is_empty() && !late);
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
            prop_assert!(!ops.iter().any(|op| matches!(op, Op::PodWord { .. } | Op::Peer { value: None, .. })), "{:?}", ops);
            // An address whose class judges as another one does is of that one from now on: nobody sees it.
            if ops.iter().any(|op| matches!(op, Op::Peer { .. })) {
                let contents = super::contents(state.content(), &ops);
                for flow in all(&cluster) {
                    let before = answer(state.content(), &flow);
                    prop_assert!(contents.iter().all(|content| answer(content, &flow) == before), "{:?}: {:?}", flow, ops);
                }
            }
        }
    }

    #[test]
    fn p87_what_pods_are_told_while_a_plan_is_made_and_carried_out_is_in_force_by_both(
        history in any_history(1), early in prop::collection::vec(any_told(), 0..5),
        late in prop::collection::vec((any::<prop::sample::Index>(), any_told()), 0..5),
    ) {
        let after = Cluster { names: history[0].names.clone(), ..history[1].clone() };
        let mut stage = Stage::new(history[0].clone(), after);
        for step in &early {
            stage.learn(step);
            stage.look("told while the plan is made")?;
        }
        let plan = testing::plan(&mut stage.state, &stage.planned);
        let again = stage.teller.begin(stage.state.take_view());
        let tell = stage.teller.tell_again(&stage.before.names, &again);
        stage.take(&tell.ops);
        stage.look("told again")?;
        for (n, op) in plan.ops.iter().enumerate() {
            if stage.teller.keeps(op) {
                stage.take(std::slice::from_ref(op));
            }
            for (_, step) in late.iter().filter(|(at, _)| at.index(plan.ops.len()) == n) {
                stage.learn(step);
            }
            stage.look("carried out so far")?;
        }
        let again = stage.teller.finish();
        let tell = stage.teller.tell(&stage.before.names, &again, false);
        stage.take(&tell.ops);
        let known = lingering(&stage.after);
        for flow in all(&stage.after) {
            let content = stage.state.content();
            prop_assert_eq!(answer(content, &flow), model(&stage.after, &flow.0, flow.1, flow.2).0, "{:?} in the end", flow);
            if flow.1 == Direction::Egress {
                let again = ask_again(content, flow.0.slot, flow.2);
                prop_assert_eq!(again, model(&known, &flow.0, flow.1, flow.2).0, "{:?}, if it is known", flow);
            }
        }
        // The next plan has nothing to say of it.
        let mut other = State::adopt(Capacity::default(), stage.state.content().clone());
        let ops = super::plan(&mut other, &stage.after);
        prop_assert!(!ops.iter().any(|op| matches!(op, Op::PodWord { .. })), "{:?}", ops);
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

#[test]
fn p84_a_name_opens_no_pod_elsewhere_and_takes_nothing_that_is_known_of_it() {
    for parts in [Parts::All, Parts::Policy] {
        let mut cluster = Cluster { parts, ..names(&["*.example.org"]) }.pod("y/far", 2, 7, "pod=far");
        let deny = does(Action::Deny, &[pods_of("", "pod=far")], &[]);
        cluster.cluster_policies.push(cnp("Admin/0/far", "ns=y", &[], &[deny]));
        let mut state = cluster.tables();
        let before = state.content().clone();
        for told in ["10.244.2.7", "10.244.2.99", "64:ff9b::af4:207", "172.18.0.2", "203.0.113.7", "64:ff9b::cb00:7107"]
        {
            let (changed, adds) = tell(&mut cluster, &Told::Learn(0, 0, ip(told)));
            let Tell { ops, inside, .. } = state.tell(&cluster.names, &changed, adds);
            assert_eq!((ops, inside), (vec![], changed), "{told} {parts:?}");
            assert_eq!(plan(&mut state, &cluster), vec![], "{told} {parts:?}");
        }
        assert_eq!(*state.content(), before);
    }
}

impl State {
    /// What a teller would say by the last plan.
    pub(super) fn tell(&mut self, names: &Names, addresses: &BTreeSet<IpAddr>, adds: bool) -> Tell {
        let mut teller = Teller::new(self.capacity.clone());
        let _nothing = teller.begin(self.take_view());
        teller.finish();
        let mut tell = teller.tell(names, addresses, adds);
        tell.ops.extend(teller.reclaim());
        if !tell.ops.is_empty() {
            self.in_force = None;
        }
        self.view = teller.into_view();
        tell
    }
}

/// A cluster that becomes another, while pods are told addresses.
struct Stage {
    state: State,
    teller: Teller,
    before: Cluster,
    after: Cluster,
    /// What the plan is made of.
    planned: Cluster,
    flows: Vec<(LocalPod, Direction, Flow)>,
}

impl Stage {
    fn new(before: Cluster, after: Cluster) -> Self {
        let mut state = before.tables();
        let mut teller = Teller::new(Capacity::default());
        let _nothing = teller.begin(state.take_view());
        teller.finish();
        teller.mark();
        let flows = lasting(&before, &after).into_iter().filter(|(.., flow)| flow.port == 80).collect();
        Self { state, teller, planned: after.clone(), before, after, flows }
    }

    fn take(&mut self, ops: &[Op]) {
        ops.iter().for_each(|op| self.state.applied(op));
    }

    /// A pod that stays is told an address, if a rule in force asks for that.
    fn learn(&mut self, step: &Told) {
        let Told::Learn(pod, name, ip) = step else { return };
        let stays: Vec<_> = self.before.local.iter().filter(|local| self.after.local.contains(local)).collect();
        let Some(pod) = stays.get(pod % stays.len().max(1)) else { return };
        if self.teller.asks(&pod.key, TOLD[*name]) != Some(true) {
            return;
        }
        let answer = Answer { pod: &pod.key, uid: &pod.uid, name: TOLD[*name], addresses: &[*ip], until: 10 };
        let changed = self.after.names.learn(&answer, 0);
        self.before.names.learn(&answer, 0);
        let tell = self.teller.tell(&self.before.names, &changed, true);
        assert!(tell.left_out.is_empty());
        self.take(&tell.ops);
    }

    /// Whether every flow meets the old answer or the new one, both with what pods were told by now. Where nothing is told
    /// meanwhile: or without.
    fn look(&self, what: &str) -> Result<(), TestCaseError> {
        let without = Cluster { names: self.planned.names.clone(), ..self.before.clone() };
        let mut all = vec![&self.before, &self.after];
        if self.teller.waits() {
            all.extend([&without, &self.planned]);
        }
        for flow in &self.flows {
            let now = answer(self.state.content(), flow);
            let may = all.iter().any(|cluster| model(cluster, &flow.0, flow.1, flow.2).0 == now);
            prop_assert!(may, "{:?}: {}, {}", flow, now, what);
        }
        Ok(())
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

/// Pods of a namespace of their own with the same rules, and what they are told.
struct Crowd {
    cluster: Cluster,
    state: State,
}

impl Crowd {
    fn new(pods: u16) -> Self {
        let mut cluster = Cluster { cluster_policies: names(&["*.example.org"]).cluster_policies, ..Cluster::new() };
        for n in 0..pods {
            cluster = cluster.pod(&format!("x/pod{n}"), 1, 10 + n, "");
        }
        let state = cluster.tables();
        Self { cluster, state }
    }

    fn learn(&mut self, pod: usize, ip: IpAddr, until: u64) -> Tell {
        let pod = &self.cluster.local[pod];
        let answer = Answer { pod: &pod.key, uid: &pod.uid, name: TOLD[0], addresses: &[ip], until };
        let changed = self.cluster.names.learn(&answer, 0);
        self.tell(&changed, true)
    }

    fn expire(&mut self, now: u64) -> Tell {
        let changed = self.cluster.names.expire(now);
        self.tell(&changed, false)
    }

    fn forget(&mut self, is_used: impl Fn(IpAddr) -> bool) -> Tell {
        let changed = self.cluster.names.keep(|_, ip| is_used(ip));
        self.tell(&changed, false)
    }

    fn tell(&mut self, changed: &BTreeSet<IpAddr>, adds: bool) -> Tell {
        let tell = self.state.tell(&self.cluster.names, changed, adds);
        tell.ops.iter().for_each(|op| self.state.applied(op));
        tell
    }

    fn is_open(&self, pod: usize, ip: IpAddr) -> bool {
        let flow = Flow { peer: ip, proto: 6, port: 80 };
        ask(self.state.content(), self.cluster.local[pod].slot, Direction::Egress, flow).0
    }
}

fn nth(n: usize) -> IpAddr {
    std::net::Ipv4Addr::from(0x0100_0000 + n as u32).into()
}

/// Numbers that look random, the same each time.
fn random() -> impl FnMut(usize) -> usize {
    let mut state = 1_u64;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    }
}

#[test]
fn p79_pods_that_are_told_ever_other_addresses_need_no_more_room_than_what_they_have() {
    let (mut crowd, mut random) = (Crowd::new(12), random());
    for step in 0..6000_u64 {
        let tell = match random(4) {
            0 => crowd.expire(step),
            1 => crowd.forget(|ip| ip.is_loopback()),
            _ => crowd.learn(random(12), nth(random(300)), step + 200),
        };
        assert!(tell.left_out.is_empty() && !tell.late, "{step}");
    }
    let rows = crowd.state.content().policy.peers.len();
    let plan = crowd.state.plan(&Draft::new(&crowd.cluster.world())).unwrap();
    plan.ops.iter().for_each(|op| crowd.state.applied(op));
    let needed = crowd.state.content().policy.peers.len();
    assert!(plan.left_out.is_empty() && rows < needed + 2048, "{rows} rows, {needed} needed");
}

#[test]
fn p79_p85_who_is_told_very_much_takes_no_room_of_who_is_told_little() {
    const HOSTILE: usize = 7;
    let mut crowd = Crowd::new(HOSTILE as u16 + 1);
    let own = |n: usize| IpAddr::from([203, 0, 113, 100 + n as u8]);
    for n in 0..3 {
        assert!(crowd.learn(HOSTILE, own(n), 1000).left_out.is_empty());
    }
    // Each address is told to others of them, or not any more, and all come before those of the one that has little.
    let mut refused = 0;
    for round in [5, 1000] {
        for n in 0..3_usize.pow(HOSTILE as u32) {
            let told = (0..HOSTILE).filter(|pod| n / 3_usize.pow(*pod as u32) % 3 == if round == 5 { 1 } else { 2 });
            for pod in told.collect::<Vec<_>>() {
                refused += crowd.learn(pod, nth(n), round).left_out.len();
            }
        }
        let _late = crowd.expire(5);
    }
    assert!(refused > 0, "there is no room for all of that");
    for n in 0..3 {
        assert!(crowd.is_open(HOSTILE, own(n)), "{n}");
    }
    assert!(crowd.learn(HOSTILE, own(3), 1000).left_out.is_empty(), "nor of what comes");
    assert!(crowd.is_open(HOSTILE, own(3)));
    let plan = crowd.state.plan(&Draft::new(&crowd.cluster.world())).unwrap();
    assert!(plan.left_out[&TableId::PolicyPeers] > 0);
    plan.ops.iter().for_each(|op| crowd.state.applied(op));
    for n in 0..4 {
        assert!(crowd.is_open(HOSTILE, own(n)), "{n} after a plan");
    }
    assert!(crowd.learn(HOSTILE, own(4), 1000).left_out.is_empty() && crowd.is_open(HOSTILE, own(4)));
}
