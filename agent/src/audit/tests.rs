use std::collections::BTreeMap;

use fairlead_datapath::flow::{End, Flow, FlowFlags, FlowKey};
use fairlead_datapath::packet::TCP;
use fairlead_datapath::peer::{NO_NODE, NO_SLOT};
use fairlead_datapath::{Addr, Tuple, WirePort};
use fairlead_objects::{Action, Mode, ObjectKey};
use proptest::prelude::*;

use super::{Auditor, Collector, Denied, Finding, Findings, Known, Seen, Texts};
use crate::compile::policy::reference::{self, judge};
use crate::compile::policy::testing::{
    Cluster, any_cluster, block, cnp, does, flows, ip, key, named_by, pods, pods_of, rule, tcp,
};
use crate::compile::policy::{Direction, RuleRef};
use crate::names::Answer;

/// Has these policies audited.
fn audited(mut cluster: Cluster, names: &[&str]) -> Cluster {
    let mode = |key: &ObjectKey| if names.contains(&key.name.as_str()) { Mode::Audit } else { Mode::Enforce };
    cluster.policies.iter_mut().for_each(|policy| policy.mode = mode(&policy.key));
    cluster.cluster_policies.iter_mut().for_each(|policy| policy.mode = mode(&policy.key));
    cluster
}

fn seen(cluster: &Cluster, pod: &str, direction: Direction, peer: &str, port: u16) -> Seen {
    let slot = cluster.local.iter().find(|local| local.key == key(pod)).unwrap().slot;
    let peer = peer.parse().unwrap_or_else(|_| cluster.ip_of(peer, 0));
    Seen { slot, direction, peer: Addr::from(peer), proto: TCP, port: WirePort::new(port), own: false }
}

#[test]
fn p74_what_no_rule_of_an_audited_policy_allows_is_found_and_what_is_in_force_is_not_in_question() {
    let rules = [rule(&[pods("pod=b")], &[tcp(80)])];
    let cluster = Cluster::grid().policy("x/strict", "pod=a", Some(&rules), None);
    let cluster = cluster.policy("y/enforced", "pod=a", Some(&rules), None);
    assert!(Auditor::of(&cluster.world()).is_none(), "without any in audit mode there is nothing to do");
    let cluster = audited(cluster, &["strict"]);
    let auditor = Auditor::of(&cluster.world()).unwrap();
    let at = |pod: &str, peer: &str, port| auditor.judge(&seen(&cluster, pod, Direction::Ingress, peer, port));
    let found = |found: Option<Denied>| found.map(|found| (found.by, found.policies));
    let at = |pod: &str, peer: &str, port| found(at(pod, peer, port));
    let denied = Some((None, vec![key("x/strict")]));
    assert_eq!(at("x/a", "x/b", 80), None);
    assert_eq!(at("x/a", "x/b", 81), denied);
    assert_eq!(at("x/a", "192.0.2.1", 80), denied);
    assert_eq!(at("y/a", "192.0.2.1", 80), None, "a policy in force judges in the kernel");
    assert_eq!(auditor.judge(&seen(&cluster, "x/a", Direction::Egress, "x/b", 81)), None);
}

#[test]
fn p74_the_rule_that_denies_is_named() {
    let deny = does(Action::Deny, &[pods_everywhere()], &[tcp(443)]);
    let cluster = audited(Cluster::grid().cluster_policy(cnp("Admin/7/no-https", "ns=x", &[], &[deny])), &["no-https"]);
    let auditor = Auditor::of(&cluster.world()).unwrap();
    let found = auditor.judge(&seen(&cluster, "x/a", Direction::Egress, "y/b", 443)).unwrap();
    let by = found.by.unwrap();
    assert_eq!((by.policy.name.as_str(), by.index), ("no-https", 0));
    assert_eq!(auditor.judge(&seen(&cluster, "x/a", Direction::Egress, "y/b", 80)), None);
}

fn pods_everywhere() -> fairlead_objects::Peer {
    pods_of("", "")
}

/// An entry of a flow that a pod opened, or that was opened to it.
fn entry(opener: (&str, u16), responder: (&str, u16), slots: [u16; 2], flags: u32) -> (FlowKey, Flow) {
    let tuple = Tuple {
        src: ip(opener.0).into(),
        dst: ip(responder.0).into(),
        sport: WirePort::new(opener.1),
        dport: WirePort::new(responder.1),
        ..Tuple::NONE
    };
    let (key, from_a) = FlowKey::of(&tuple, TCP);
    let [opener, responder] = slots.map(|slot| End { slot, node: NO_NODE });
    let flags = flags | if from_a { FlowFlags::OPENER_IS_A } else { 0 };
    (key, Flow { opener, responder, flags, ..Flow::new() })
}

#[test]
fn p74_each_flow_is_counted_once_for_each_end_that_is_audited_and_as_its_ends_really_are() {
    let none: [fairlead_objects::Rule; 0] = [];
    let cluster = Cluster::grid().policy("x/in", "pod=a", Some(&none), None);
    let cluster = audited(cluster.policy("x/out", "pod=b", None, Some(&none)), &["in", "out"]);
    let auditor = Auditor::of(&cluster.world()).unwrap();
    let slot = |pod: &str| cluster.local.iter().find(|local| local.key == key(pod)).unwrap().slot;
    let (a, b) = (slot("x/a"), slot("x/b"));
    let addr = |pod: &str| cluster.ip_of(pod, 0).to_string();
    let (of_a, of_b) = (addr("x/a"), addr("x/b"));
    let mut known = Known::default();
    let mut sweep = |entries: &[(FlowKey, Flow)]| {
        let mut collector = Collector::new(&auditor, &known, false);
        entries.iter().for_each(|(key, flow)| collector.note(key, flow));
        let (seen, next) = collector.end();
        known = next;
        let count = |(seen, flows, _): (Seen, u64, Denied)| {
            ((seen.slot, seen.direction, seen.peer), (seen.port.number(), flows))
        };
        seen.into_iter().map(count).collect::<BTreeMap<_, _>>()
    };
    let direct: Vec<_> = (0..3).map(|n| entry((&of_b, 40_000 + n), (&of_a, 80), [b, a], 0)).collect();
    let both: BTreeMap<_, _> = [
        ((a, Direction::Ingress, Addr::from(ip(&of_b))), (80, 3)),
        ((b, Direction::Egress, Addr::from(ip(&of_a))), (80, 3)),
    ]
    .into();
    assert_eq!(sweep(&direct), both);
    assert_eq!(sweep(&direct), BTreeMap::new(), "they were seen");
    // From outside, translated: the near entry is the same flow, and the far one has the client's address beside it.
    let near = entry(("192.0.2.7", 5000), ("172.18.0.1", 30_080), [NO_SLOT, a], FlowFlags::NEAR);
    let (key, far) = entry(("172.18.0.1", 6000), (&of_a, 80), [NO_SLOT, a], FlowFlags::FAR);
    let other = Tuple { src: ip("192.0.2.7").into(), ..Tuple::NONE };
    let far = (key, Flow { other, ..far });
    let expected = [((a, Direction::Ingress, Addr::from(ip("192.0.2.7"))), (80, 1))].into();
    assert_eq!(sweep(&[near, far]), expected);
    // No policy keeps the node from its pods, nor has a say in what it does not select.
    let own = entry(("172.18.0.1", 7000), (&of_a, 80), [NO_SLOT, a], FlowFlags::FROM_NODE);
    let out = entry((&of_a, 7000), ("192.0.2.9", 443), [a, NO_SLOT], 0);
    assert_eq!(sweep(&[own, out]), BTreeMap::new());
    assert_eq!(sweep(&direct), both, "they were gone in between");
}

#[test]
fn p75_findings_add_up_are_bounded_and_go_with_their_policies() {
    let mut findings = Findings::default();
    findings.set_auditing(true, 100);
    findings.set_auditing(true, 200);
    assert_eq!(findings.since(), Some(100));
    let finding = |port: u16, by: Option<RuleRef>| Finding {
        pod: key("x/a"),
        direction: Direction::Ingress,
        peer: "192.0.2.1".to_owned(),
        proto: TCP,
        port,
        by,
        policies: vec![key("x/one"), key("x/two")],
        text: u64::from(port),
    };
    let by = RuleRef::of(&key("x/two"), 0);
    findings.note(finding(1, None), 2, 110);
    findings.note(finding(1, None), 3, 120);
    findings.note(finding(2, Some(by)), 4, 130);
    let all: Vec<_> =
        findings.iter().map(|(finding, found)| (finding.port, found.flows, found.first, found.last)).collect();
    assert_eq!(all, [(1, 5, 110, 120), (2, 4, 130, 130)]);
    let flows: Vec<_> = findings.flows().iter().map(|((policy, _), flows)| (policy.to_string(), *flows)).collect();
    assert_eq!(flows, [("x/one".to_owned(), 5), ("x/two".to_owned(), 9)]);
    findings.keep(|policy| *policy == key("x/one"), |_| true);
    assert_eq!(findings.iter().map(|(finding, _)| finding.port).collect::<Vec<_>>(), [1]);
    assert_eq!(findings.flows().len(), 1);
    for port in 0..3000 {
        findings.note(finding(port, None), 1, 1000 + u64::from(port));
    }
    assert_eq!((findings.iter().count(), findings.left_out()), (2048, 3000 - 2048));
    assert!(findings.iter().all(|(finding, _)| finding.port >= 952), "the latest stay");
    findings.set_auditing(false, 5000);
    assert_eq!((findings.iter().count(), findings.left_out(), findings.since()), (0, 0, None));
}

#[test]
fn p75_who_is_found_most_pushes_out_nobody_else() {
    let mut findings = Findings::default();
    let finding = |pod: &str, peer: &str, port: u16| Finding {
        pod: key(pod),
        direction: Direction::Ingress,
        peer: peer.to_owned(),
        proto: TCP,
        port,
        by: None,
        policies: vec![key("x/one")],
        text: 1,
    };
    let quiet = [finding("x/quiet", "x/client", 80), finding("x/loud", "x/client", 80)];
    quiet.iter().for_each(|finding| findings.note(finding.clone(), 1, 1));
    // One peer tries every port of a pod.
    for port in 0..6000 {
        findings.note(finding("x/loud", "x/scanner", port), 1, 2);
    }
    assert!(quiet.iter().all(|finding| findings.iter().any(|(found, _)| found == finding)));
    // Many peers do.
    for port in 0..6000_u16 {
        findings.note(finding("x/loud", &port.to_string(), port), 1, 3);
    }
    assert!(findings.iter().any(|(found, _)| *found == quiet[0]));
    assert_eq!((findings.iter().count(), findings.left_out()), (2048, 12_002 - 2048));
}

#[test]
fn p76_p86_what_a_name_has_opened_is_not_found() {
    let named = does(Action::Accept, &[named_by(&["a.example.org"])], &[]);
    let deny = does(Action::Deny, &[block("0.0.0.0/0", &[])], &[]);
    let mut cluster = audited(
        Cluster::grid().cluster_policy(cnp("Admin/1/names", "ns=x", &[], &[named])).cluster_policy(cnp(
            "Admin/2/closed",
            "ns=x",
            &[],
            &[deny],
        )),
        &["closed"],
    );
    let mut auditor = Auditor::of(&cluster.world()).unwrap();
    let flow = seen(&cluster, "x/a", Direction::Egress, "192.0.2.1", 443);
    let other = seen(&cluster, "x/b", Direction::Egress, "192.0.2.1", 443);
    assert!(cluster.names.take_changes().is_none(), "nobody has asked before");
    assert!(auditor.judge(&flow).is_some());
    let pod = cluster.local.iter().find(|local| local.key == key("x/a")).unwrap().clone();
    let addresses = [ip("192.0.2.1")];
    let answer = Answer { pod: &pod.key, uid: &pod.uid, name: "a.example.org", addresses: &addresses, until: 10 };
    cluster.names.learn(&answer, 0);
    let mut tell = |cluster: &mut Cluster| {
        let changed = cluster.names.take_changes().unwrap();
        assert!(!changed.is_empty() && auditor.tell(&cluster.names, &changed));
        [auditor.judge(&flow).is_some(), auditor.judge(&other).is_some()]
    };
    assert_eq!(tell(&mut cluster), [false, true], "it is open, to one of them");
    cluster.names.expire(10);
    assert_eq!(tell(&mut cluster), [false, true], "what is open goes on");
    cluster.names.keep(|_, _| false);
    assert_eq!(tell(&mut cluster), [true, true]);
}

#[test]
fn p86_a_pod_with_ever_new_flows_takes_its_turn_alone_and_the_rest_is_judged_later() {
    let none: [fairlead_objects::Rule; 0] = [];
    let cluster = Cluster::grid().policy("x/out", "", None, Some(&none));
    let cluster = audited(cluster, &["out"]);
    let auditor = Auditor::of(&cluster.world()).unwrap();
    let slot = |pod: &str| cluster.local.iter().find(|local| local.key == key(pod)).unwrap().slot;
    let (a, b) = (slot("x/a"), slot("x/b"));
    let addr = |pod: &str| cluster.ip_of(pod, 0).to_string();
    let mut entries: Vec<_> =
        (0..10_000).map(|port| entry((&addr("x/a"), 40_000), ("192.0.2.1", 1 + port), [a, NO_SLOT], 0)).collect();
    entries.push(entry((&addr("x/b"), 40_000), ("192.0.2.1", 80), [b, NO_SLOT], 0));
    let (mut known, mut counts) = (Known::default(), BTreeMap::new());
    for turn in 1..=3 {
        let mut collector = Collector::new(&auditor, &known, false);
        entries.iter().for_each(|(key, flow)| collector.note(key, flow));
        let (seen, next) = collector.end();
        known = next;
        let of_a = seen.iter().filter(|(seen, ..)| seen.slot == a).count();
        assert!(of_a <= 4096, "{of_a} in turn {turn}");
        for (seen, flows, _) in seen {
            *counts.entry(seen.slot).or_insert(0) += flows;
        }
    }
    assert_eq!(counts, BTreeMap::from([(a, 10_000), (b, 1)]), "each of them once");
}

#[test]
fn p86_flows_that_last_are_judged_by_what_policies_say_now() {
    let strict = |port| Cluster::grid().policy("x/strict", "pod=a", Some(&[rule(&[], &[tcp(port)])]), None);
    let (first, second) = (audited(strict(80), &["strict"]), audited(strict(81), &["strict"]));
    let auditors = [&first, &second].map(|cluster| Auditor::of(&cluster.world()).unwrap());
    let slot = first.local.iter().find(|local| local.key == key("x/a")).unwrap().slot;
    let (a, b) = (first.ip_of("x/a", 0).to_string(), first.ip_of("x/b", 0).to_string());
    let entries = [80, 81, 82].map(|port| entry((&b, 40_000), (&a, port), [NO_SLOT, slot], 0));
    let mut known = Known::default();
    let mut sweep = |auditor: &Auditor, again| {
        let mut collector = Collector::new(auditor, &known, again);
        entries.iter().for_each(|(key, flow)| collector.note(key, flow));
        let (found, next) = collector.end();
        known = next;
        found.iter().map(|(seen, flows, _)| (seen.port.number(), *flows)).collect::<Vec<_>>()
    };
    assert_eq!(sweep(&auditors[0], true), [(81, 1), (82, 1)]);
    assert_eq!(sweep(&auditors[0], true), [], "the same words");
    assert_eq!(sweep(&auditors[1], true), [(80, 1), (82, 1)], "each that it denies, by its own words");
    assert_eq!(sweep(&auditors[1], false), []);
    // What was found by other words goes.
    let mut findings = Findings::default();
    findings.set_auditing(true, 1);
    let at = |port| seen(&first, "x/a", Direction::Ingress, "x/b", port);
    let found = auditors[0].judge(&at(82)).unwrap();
    findings.note(Finding::new(key("x/a"), "x/b".to_owned(), &at(82), found), 1, 1);
    let texts = |cluster: &Cluster| Texts::of(&cluster.world());
    let says =
        |texts: &Texts, found: &Finding| texts.text(found.direction, found.by.as_ref(), &found.policies) == found.text;
    let (of_first, of_second) = (texts(&first), texts(&second));
    findings.keep(|_| true, |finding| says(&of_first, finding));
    assert_eq!(findings.iter().count(), 1);
    findings.keep(|_| true, |finding| says(&of_second, finding));
    assert_eq!(findings.iter().count(), 0);
}

#[test]
fn p86_no_policy_is_blamed_for_what_another_denies() {
    let rules = [rule(&[pods("pod=b")], &[])];
    let accept = does(Action::Accept, &[pods_of("", "pod=b")], &[]);
    let pass = does(Action::Pass, &[pods_of("", "pod=c")], &[]);
    let open = does(Action::Accept, &[pods_of("", "")], &[]);
    let cluster = Cluster::grid()
        .policy("x/strict", "pod=a", Some(&rules), None)
        .cluster_policy(cnp("Admin/1/accepts", "ns=x", &[accept], &[]))
        .cluster_policy(cnp("Admin/2/passes", "ns=x", &[pass], &[]));
    let blamed = |cluster: &Cluster, peer: &str| {
        let auditor = Auditor::of(&cluster.world()).unwrap();
        let found = auditor.judge(&seen(cluster, "x/a", Direction::Ingress, peer, 80));
        found.map(|found| found.policies.iter().map(|policy| policy.name.clone()).collect::<Vec<_>>().join(" "))
    };
    let all = audited(cluster.clone(), &["strict", "accepts", "passes"]);
    assert_eq!(blamed(&all, "y/a").as_deref(), Some("strict"), "what only accepts has no part in it");
    assert_eq!(blamed(&all, "y/c").as_deref(), Some("passes strict"), "it led there");
    // In force, and there since the flow began.
    let other = audited(cluster.clone(), &["accepts", "passes"]);
    assert_eq!(blamed(&other, "y/a"), None, "what is in force denies it");
    // What it passes on would be accepted without it.
    let passed = audited(cluster.cluster_policy(cnp("Admin/3/open", "ns=x", &[open], &[])), &["passes"]);
    assert_eq!((blamed(&passed, "y/a"), blamed(&passed, "y/c").as_deref()), (None, Some("passes")));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn p74_what_is_found_is_what_the_policies_words_say(cluster in any_cluster(), modes in any::<u64>()) {
        let mut cluster = cluster;
        let mut bits = (0..64).map(|n| if modes >> n & 1 == 1 { Mode::Audit } else { Mode::Enforce });
        cluster.policies.iter_mut().for_each(|policy| policy.mode = bits.next().unwrap_or_default());
        cluster.cluster_policies.iter_mut().for_each(|policy| policy.mode = bits.next().unwrap_or_default());
        let is_audited = |policy: &ObjectKey| {
            cluster.policies.iter().any(|other| other.key == *policy && other.mode == Mode::Audit)
                || cluster.cluster_policies.iter().any(|other| other.key == *policy && other.mode == Mode::Audit)
        };
        let world = cluster.world();
        let in_force = world.in_force();
        let Some(auditor) = Auditor::of(&world) else { return Ok(()) };
        for (local, direction, reference::Flow { peer, proto, port }) in flows(&cluster, &[(6, 80), (17, 53), (1, 0)]) {
            let own = local.ips.contains(&peer);
            let port = WirePort::new(port);
            let seen = Seen { slot: local.slot, direction, peer: Addr::from(peer), proto, port, own };
            let found = auditor.judge(&seen);
            let pod = world.object_of(&local).filter(|pod| !world.is_in_unknown_namespace(pod));
            let Some(pod) = pod.filter(|_| auditor.selects(local.slot, direction)) else {
                prop_assert_eq!(found, None);
                continue;
            };
            let judged = judge(&world, pod, direction, reference::Flow { peer, proto, port: port.number() });
            let by = judged.decided_by().cloned();
            let allowed = judge(&in_force, pod, direction, reference::Flow { peer, proto, port: port.number() }).allow();
            let expected = allowed && !judged.allow() && by.as_ref().is_none_or(|rule| is_audited(&rule.policy));
            prop_assert_eq!(found.is_some(), expected, "{} {} {} {}", pod.key, direction, peer, port.number());
            if let Some(found) = found {
                prop_assert_eq!(found.by, by);
                prop_assert!(!found.policies.is_empty() && found.policies.iter().all(is_audited));
            }
        }
    }
}
