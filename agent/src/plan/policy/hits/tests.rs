use fairlead_objects::{NetworkPolicy, PolicyPort, PortMatch, Protocol, Tier};
use proptest::prelude::*;

use super::*;
use crate::compile::policy::RuleRef;
use crate::compile::policy::testing::{Cluster, any_history, ask, flows, model, plan, rule, tcp};
use crate::plan::policy::{Capacity, State};

/// Counters as the kernel has them, and the ledger beside them.
#[derive(Default)]
struct Counted {
    state: State,
    ledger: Ledger,
    kernel: HashMap<HitKey, Count>,
}

impl Counted {
    fn follow(&mut self, cluster: &Cluster, ops: &[crate::plan::Op], now: u64) {
        let world = cluster.world();
        let Changes { gone, new } = self.ledger.plan(&self.state.sets_with(ops), &mut RuleIds::new(&world), true, now);
        for (key, rule) in gone {
            let count = self.kernel.remove(&key).expect("it was there");
            self.ledger.fold(rule, &count);
        }
        for (key, _) in new {
            assert_eq!(self.kernel.insert(key, Count::default()), None, "{key:?} is counted already");
        }
    }

    /// As the loop does it.
    fn advance(&mut self, cluster: &Cluster, now: u64) {
        self.ledger.policies_changed();
        let plan = plan(&mut self.state, cluster);
        self.follow(cluster, &plan.ops, now);
        plan.ops.iter().for_each(|op| self.state.applied(op));
        self.follow(cluster, &[], now);
        self.ledger.forget(&mut RuleIds::new(&cluster.world()));
    }

    fn hit(&mut self, set: u32, bit: u16, allow: bool, now: u64) {
        let Some(count) = self.kernel.get_mut(&HitKey { set, bit: bit.into() }) else {
            // What no rule of a set decides on that no NetworkPolicy is in.
            assert_eq!(bit, NO_BIT, "a rule of set {set} decides that is not counted");
            return;
        };
        *(if allow { &mut count.flows } else { &mut count.denied }) += 1;
        count.last = Some(now);
    }
}

/// A rule by all that it says.
type Named = (Tier, ObjectKey, Direction, String, usize);

fn named(cluster: &Cluster, direction: Direction, rule: &RuleRef) -> Option<Named> {
    let texts: Vec<String> = if rule.tier == Tier::NetworkPolicy {
        let policy = cluster.policies.iter().find(|policy| policy.key == rule.policy)?;
        direction.rules(policy)?.iter().map(|rule| format!("{rule:?}")).collect()
    } else {
        let policy = cluster.cluster_policies.iter().find(|policy| policy.key == rule.policy)?;
        let rules = direction.cluster_rules(policy).iter();
        rules.map(|rule| format!("{:?} {:?}", rule.action, rule.matches)).collect()
    };
    let text = texts.get(rule.index)?.clone();
    let nth = texts.iter().take(rule.index).filter(|other| **other == text).count();
    Some((rule.tier, rule.policy.clone(), direction, text, nth))
}

/// Every rule that there is, with its id.
fn rules(cluster: &Cluster) -> BTreeMap<Named, RuleId> {
    let world = cluster.world();
    let mut ids = RuleIds::new(&world);
    let mut all = BTreeMap::new();
    let network = cluster.policies.iter().map(|policy| (Tier::NetworkPolicy, &policy.key));
    let policies = network.chain(cluster.cluster_policies.iter().map(|policy| (policy.tier, &policy.key)));
    for (tier, key) in policies {
        for direction in [Direction::Ingress, Direction::Egress] {
            let of_policy = ids.of_policy(tier != Tier::NetworkPolicy, key, direction).to_vec();
            for (index, id) in of_policy.into_iter().enumerate() {
                let rule = RuleRef { tier, policy: key.clone(), index, name: String::new() };
                all.extend(named(cluster, direction, &rule).map(|named| (named, id)));
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However sets and bits are renumbered, each rule has what it decided on, by the reference, and no other rule's.
    #[test]
    fn p71_counts_stay_with_their_rules(history in any_history(3)) {
        let mut counted = Counted::default();
        let mut expected: HashMap<Named, Count> = HashMap::new();
        for (now, cluster) in (1..).zip(&history) {
            counted.advance(cluster, now);
            let there = rules(cluster);
            expected.retain(|named, _| there.contains_key(named));
            for (local, direction, flow) in flows(cluster, &[(6, 80), (17, 53)]) {
                let (allow, set, bit) = ask(counted.state.content(), local.slot, direction, flow);
                if set <= fairlead_datapath::policy::CUT_OFF {
                    continue;
                }
                counted.hit(set, bit, allow, now);
                let (by_model, rule) = model(cluster, &local, direction, flow);
                prop_assert_eq!(allow, by_model);
                let Some(named) = rule.and_then(|rule| named(cluster, direction, &rule)) else { continue };
                let count = expected.entry(named).or_default();
                *(if allow { &mut count.flows } else { &mut count.denied }) += 1;
                count.last = Some(now);
            }
            let counts = counted.ledger.counts(&counted.kernel);
            for (named, id) in &there {
                let found = counts.get(id).copied().unwrap_or_default();
                prop_assert_eq!(found, expected.get(named).copied().unwrap_or_default(), "{:?}", named);
            }
        }
    }

    /// The sets that are counted, as the rules of sharing say it.
    #[test]
    fn p72_a_namespace_within_its_share_is_counted_whole(
        sets in prop::collection::vec((0_usize..5, 1_usize..40, any::<bool>()), 1..30), room in 1_usize..300,
    ) {
        let names = ["", "a", "b", "c", "d"];
        let needs: Vec<_> = (3..)
            .zip(&sets)
            .map(|(set, (namespace, counters, is_counted))| Need {
                set,
                namespace: names[*namespace],
                counters: *counters,
                is_counted: *is_counted,
            })
            .collect();
        let placed = places(&needs, room);
        let total = |of: &mut dyn Iterator<Item = &Need<'_>>| of.map(|need| need.counters).sum::<usize>();
        let used = total(&mut needs.iter().filter(|need| placed.contains(&need.set)));
        prop_assert!(used <= room);
        let namespaces: BTreeSet<_> = needs.iter().map(|need| need.namespace).collect();
        for namespace in &namespaces {
            let of = || needs.iter().filter(|need| need.namespace == *namespace);
            if total(&mut of()) <= room / namespaces.len() {
                prop_assert!(of().all(|need| placed.contains(&need.set)), "{} needs no more than its share", namespace);
            }
        }
        for need in needs.iter().filter(|need| !placed.contains(&need.set)) {
            prop_assert!(used + need.counters > room, "there is room for {:?}", need);
        }
        // Asked again, with what is counted now, the answer stays, if it began with nothing.
        if sets.iter().all(|(.., is_counted)| !is_counted) {
            let again: Vec<_> = needs.iter().map(|need| Need { is_counted: placed.contains(&need.set), ..*need }).collect();
            prop_assert_eq!(places(&again, room), placed);
        }
    }
}

#[test]
fn p71_what_no_rule_allows_is_counted_to_the_policies_that_isolate() {
    let cluster = Cluster::grid().policy("x/in", "", Some(&[rule(&[], &[tcp(80)])]), None);
    let mut counted = Counted::default();
    counted.advance(&cluster, 5);
    for (local, direction, flow) in flows(&cluster, &[(17, 53)]) {
        let (allow, set, bit) = ask(counted.state.content(), local.slot, direction, flow);
        if set > fairlead_datapath::policy::CUT_OFF {
            counted.hit(set, bit, allow, 7);
        }
    }
    let policy = &cluster.policies[0].key;
    let none = RuleIds::none(Direction::Ingress, policy);
    let counts = counted.ledger.counts(&counted.kernel);
    assert!(counts[&none].denied > 0 && counts[&none].last == Some(7));
    assert!(!counts.contains_key(&RuleIds::none(Direction::Egress, policy)));
    assert_eq!(counted.ledger.saved().since[&none], 5);
    // When the policy goes nobody asks for it any more.
    counted.advance(&Cluster::grid(), 8);
    assert_eq!((counted.ledger.saved(), counted.kernel.len()), (&Saved::default(), 0));
}

/// A set of the first policies of a cluster, by their rules for what comes in.
fn info(policies: &[NetworkPolicy]) -> SetInfo {
    let rules: Vec<_> = policies
        .iter()
        .flat_map(|policy| (0..policy.ingress.iter().flatten().count()).map(|index| RuleRef::of(&policy.key, index)))
        .collect();
    SetInfo {
        direction: Direction::Ingress,
        policies: policies.iter().map(|policy| policy.key.clone()).collect(),
        bits: (0..).zip(&rules).map(|(bit, _)| bit).collect(),
        rules,
    }
}

#[test]
fn p71_policies_that_come_and_go_beside_one_that_stays_leave_nothing() {
    let stays = || Cluster::grid().policy("x/stays", "", Some(&[rule(&[], &[tcp(80)])]), None);
    let mut ledger = Ledger::default();
    let mut follow = |set: u32, cluster: &Cluster, now: u64| {
        ledger.policies_changed();
        let (world, info) = (cluster.world(), info(&cluster.policies));
        let changes = ledger.plan(&[(set, Some(&info))].into(), &mut RuleIds::new(&world), true, now);
        // Each counter has counted something.
        changes.gone.iter().for_each(|(_, rule)| ledger.fold(*rule, &Count { denied: 1, ..Count::default() }));
        assert!(ledger.forgets());
        ledger.forget(&mut RuleIds::new(&world));
        let none = RuleIds::none(Direction::Ingress, &cluster.policies[0].key);
        let denied = ledger.counts(&HashMap::new()).get(&none).map_or(0, |count| count.denied);
        (serde_json::to_string(ledger.saved()).unwrap().len(), denied)
    };
    let mut most = 0;
    for n in 0..1000 {
        let comes = stays().policy(&format!("x/comes-{n:04}"), "", Some(&[rule(&[], &[tcp(443)])]), None);
        let (beside, _) = follow(7, &comes, n);
        let (alone, denied) = follow(8, &stays(), n);
        assert_eq!(denied, n * 2 + 1, "what no rule of it allows is counted to it whatever is beside it");
        // Nothing was counted before the first set went, and numbers have more digits in the end.
        most = if n < 2 { beside.max(alone) + 64 } else { most };
        assert!(beside.max(alone) <= most, "{beside} bytes, then {alone}, after {n} policies that began with {most}");
    }
}

#[test]
fn p73_a_rule_is_counted_if_every_set_that_judges_by_it_is() {
    let ports = |many: u16| (1..=many).map(|port| rule(&[], &[tcp(port)])).collect::<Vec<_>>();
    let cluster = Cluster::grid().policy("x/a", "", Some(&ports(2)), None).policy("x/b", "", Some(&ports(9)), None);
    let world = cluster.world();
    let mut ids = RuleIds::new(&world);
    let [of_a, of_b] = [0, 1].map(|at: usize| {
        let policy = &cluster.policies[at].key;
        let rules = ids.of_policy(false, policy, Direction::Ingress).iter().copied();
        rules.chain([RuleIds::none(Direction::Ingress, policy)]).collect::<HashSet<_>>()
    });
    // The rules of the one policy are in a set with others and in one without.
    let (alone, both) = (info(&cluster.policies[..1]), info(&cluster.policies));
    let mut ledger = Ledger::default();
    let changes = ledger.plan(&[(7, Some(&alone)), (8, Some(&both))].into(), &mut ids, true, 5);
    assert_eq!(changes.new.len(), 3 + 12);
    assert_eq!(ledger.counted(), &of_a | &of_b);
    let since = |ledger: &Ledger, of: &HashSet<RuleId>| {
        of.iter().map(|rule| ledger.saved().since.get(rule).copied()).collect::<HashSet<_>>()
    };
    assert_eq!((since(&ledger, &of_a), since(&ledger, &of_b)), ([Some(5)].into(), [Some(5)].into()));

    // The larger one can't be counted: nobody knows then what has matched the rules of either.
    let of_both: Vec<_> = changes.new.iter().filter(|(key, _)| key.set == 8).copied().collect();
    ledger.failed(&of_both, 6);
    assert_eq!((ledger.counted(), ledger.count()), (HashSet::new(), 3));
    assert_eq!((since(&ledger, &of_a), since(&ledger, &of_b)), ([None].into(), [None].into()));
    assert!(ledger.uncounted().len() == 2 && ledger.fails());
    // Until it is tried again nothing else is made either, and what there is stays.
    let all = [(7, Some(&alone)), (8, Some(&both)), (9, Some(&alone))].into();
    assert_eq!(ledger.plan(&all, &mut ids, false, 6), Changes::default());
    assert!(ledger.count() == 3 && ledger.uncounted().len() == 2 && ledger.fails());

    // Without it the rules of the first are counted everywhere, and anew.
    assert_eq!(ledger.plan(&[(7, Some(&alone))].into(), &mut ids, true, 7), Changes::default());
    assert_eq!((ledger.counted(), since(&ledger, &of_a)), (of_a.clone(), [Some(7)].into()));
    assert_eq!(since(&ledger, &of_b), [None].into());
    assert!(ledger.uncounted().is_empty() && !ledger.fails());
}

#[test]
fn p73_a_rule_that_nothing_can_match_is_counted_too() {
    let name = PortMatch::Named("nobody-has-it".to_owned());
    let nobody = PolicyPort { protocol: Protocol::Tcp, port: name };
    let cluster = Cluster::grid().policy("x/in", "", Some(&[rule(&[], &[tcp(80)]), rule(&[], &[nobody])]), None);
    let mut counted = Counted::default();
    counted.advance(&cluster, 5);
    let rules = rules(&cluster);
    assert_eq!(rules.len(), 2);
    for rule in rules.values() {
        assert!(counted.ledger.counted().contains(rule));
        assert_eq!(counted.ledger.saved().since.get(rule), Some(&5));
    }
}

#[test]
fn p72_sets_are_looked_into_once_until_policies_change() {
    let ports = |many: u16| (1..=many).map(|port| rule(&[], &[tcp(port)])).collect::<Vec<_>>();
    let many = MAX_HITS as u16 + 1;
    let cluster = Cluster::grid().policy("x/a", "", Some(&ports(2)), None).policy("y/b", "", Some(&ports(many)), None);
    let world = cluster.world();
    let (small, large) = (info(&cluster.policies[..1]), info(&cluster.policies[1..]));
    let sets: BTreeMap<_, _> = [(7, Some(&small)), (8, Some(&large))].into();
    let mut ledger = Ledger::default();
    let refused = |ledger: &Ledger| ledger.uncounted().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(ledger.plan(&sets, &mut RuleIds::new(&world), true, 5).new.len(), 3);
    assert_eq!(refused(&ledger), ["y/b"]);
    // Were rules asked for, these would say that there are none.
    let nothing = Cluster::grid();
    let nothing = nothing.world();
    assert_eq!(ledger.plan(&sets, &mut RuleIds::new(&nothing), true, 6), Changes::default());
    assert_eq!(refused(&ledger), ["y/b"]);
    assert!(!ledger.forgets());
    ledger.policies_changed();
    assert_eq!(ledger.plan(&sets, &mut RuleIds::new(&nothing), true, 7).gone.len(), 3);
    assert!(ledger.forgets());
}

#[test]
fn p73_an_agent_that_starts_anew_finds_the_counters_and_what_was_kept() {
    let policy = |ports: &[u16]| {
        let rules: Vec<_> = ports.iter().map(|port| rule(&[], &[tcp(*port)])).collect();
        Cluster::grid().policy("x/in", "", Some(&rules), None)
    };
    let mut counted = Counted::default();
    counted.advance(&policy(&[80, 443]), 5);
    counted.kernel.values_mut().for_each(|count| count.flows += 2);
    // The second rule goes, and the counters of the set with it.
    counted.advance(&policy(&[80]), 6);
    counted.kernel.values_mut().for_each(|count| count.flows += 1);
    let saved = serde_json::from_str(&serde_json::to_string(counted.ledger.saved()).unwrap()).unwrap();
    let there: Vec<_> = counted
        .ledger
        .counted
        .iter()
        .flat_map(|(set, bits)| bits.iter().map(|(bit, rule)| (HitKey { set: *set, bit: *bit }, *rule)))
        .collect();
    let left;
    (counted.ledger, left) = Ledger::adopt(there, saved);
    assert_eq!(left, []);
    counted.state = State::adopt(Capacity::default(), counted.state.content().clone());
    let of = |counted: &Counted, cluster: &Cluster| {
        let counts = counted.ledger.counts(&counted.kernel);
        rules(cluster).values().map(|id| counts.get(id).map_or(0, |count| count.flows)).collect::<Vec<_>>()
    };
    assert_eq!(of(&counted, &policy(&[80])), [3]);
    // Meanwhile the policy has changed: what was counted under a set of which the agent knows nothing is kept.
    counted.advance(&policy(&[22, 80]), 9);
    let mut found = of(&counted, &policy(&[22, 80]));
    found.sort_unstable();
    assert_eq!(found, [0, 3]);
}

#[test]
fn p73_counters_that_were_folded_before_an_agent_was_killed_are_not_counted_twice() {
    let keys: Vec<_> = [(7, 0), (7, 1), (8, 0)].into_iter().map(|(set, bit)| (HitKey { set, bit }, 40)).collect();
    let mut ledger = Ledger::default();
    ledger.set_folded([7]);
    let (ledger, left) = Ledger::adopt(keys.clone(), ledger.saved().clone());
    assert_eq!((left, ledger.counted), (vec![keys[0].0, keys[1].0], [(8, vec![(0, 40)])].into()));
    assert_eq!(ledger.saved, Saved::default());
    // Counters that could not be removed do not stand for those that are made under the number of their set.
    let mut ledger = Ledger::default();
    ledger.set_folded([7, 8]);
    ledger.unfold(&keys[..2]);
    assert_eq!(ledger.saved.folded, [8].into());
}
