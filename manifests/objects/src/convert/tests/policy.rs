use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{invalid, one};
use crate::{
    Labels, Mode, NetworkPolicy, Object, Operator, Peer, PolicyPort, PortMatch, Protocol, Requirement, Rule, Selector,
};

const HEAD: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}";

/// A policy from its spec in flow style.
fn noted(spec: &str) -> (NetworkPolicy, Vec<String>) {
    match one(&format!("{HEAD}, spec: {spec}}}")) {
        (Object::NetworkPolicy(policy), notes) => (policy, notes),
        (other, _) => panic!("{other:?}"),
    }
}

fn policy(spec: &str) -> NetworkPolicy {
    let (policy, notes) = noted(spec);
    assert_eq!(notes, Vec::<String>::new());
    policy
}

/// The only ingress rule of a spec.
fn rule(rule: &str) -> Rule {
    let mut rules = policy(&format!("{{podSelector: {{}}, ingress: [{rule}]}}")).ingress.unwrap();
    assert_eq!(rules.len(), 1);
    rules.remove(0)
}

/// The only ingress rule, and the single note about it.
fn noted_rule(rule: &str) -> (Rule, String) {
    let (policy, notes) = noted(&format!("{{podSelector: {{}}, ingress: [{rule}]}}"));
    assert_eq!(notes.len(), 1, "{notes:?}");
    (policy.ingress.unwrap().remove(0), notes[0].clone())
}

fn labels(text: &[(&str, &str)]) -> Labels {
    text.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn selector(text: &str) -> Selector {
    policy(&format!("{{podSelector: {text}}}")).pod_selector
}

fn app(name: &str) -> Selector {
    let values = BTreeSet::from([name.to_owned()]);
    Selector::All(BTreeSet::from([Requirement { key: "app".into(), operator: Operator::In, values }]))
}

#[test]
fn p4_missing_pod_selector_is_everything() {
    for spec in ["{}", "{podSelector: }", "{podSelector: {}}", "{podSelector: {matchLabels: }}"] {
        assert_eq!(policy(spec).pod_selector, Selector::everything(), "{spec}");
    }
    let (Object::NetworkPolicy(policy), _) = one(&format!("{HEAD}}}")) else { panic!() };
    assert_eq!(policy.pod_selector, Selector::everything());
    assert_eq!((policy.ingress, policy.egress), (Some(vec![]), None));
}

#[test]
fn p5_all_requirements_must_hold() {
    let both = selector("{matchLabels: {app: web}, matchExpressions: [{key: tier, operator: In, values: [a, b]}]}");
    assert!(both.matches(&labels(&[("app", "web"), ("tier", "b")])));
    assert!(!both.matches(&labels(&[("app", "web"), ("tier", "c")])));
    assert!(!both.matches(&labels(&[("app", "web")])));
    assert!(!both.matches(&labels(&[("tier", "a")])));
}

#[test]
fn p5_negations_match_an_absent_key() {
    let not_in = selector("{matchExpressions: [{key: app, operator: NotIn, values: [web]}]}");
    let absent = selector("{matchExpressions: [{key: app, operator: DoesNotExist}]}");
    let exists = selector("{matchExpressions: [{key: app, operator: Exists}]}");
    for (has, values) in [(labels(&[]), [true, true, false]), (labels(&[("app", "web")]), [false, false, true])] {
        assert_eq!([not_in.matches(&has), absent.matches(&has), exists.matches(&has)], values, "{has:?}");
    }
    assert!(not_in.matches(&labels(&[("app", "db")])));
}

#[test]
fn p6_types_default_by_the_egress_section() {
    let isolates = |spec: &str| {
        let policy = policy(spec);
        (policy.ingress.is_some(), policy.egress.is_some())
    };
    assert_eq!(isolates("{}"), (true, false));
    assert_eq!(isolates("{policyTypes: []}"), (true, false));
    assert_eq!(isolates("{egress: []}"), (true, false));
    assert_eq!(isolates("{egress: [{}]}"), (true, true));
    assert_eq!(isolates("{policyTypes: [Egress]}"), (false, true));
    assert_eq!(isolates("{policyTypes: [Egress], ingress: [{}]}"), (false, true));
    assert_eq!(isolates("{policyTypes: [Ingress], egress: [{}]}"), (true, false));
    assert_eq!(isolates("{policyTypes: [Ingress, Egress, Ingress]}"), (true, true));
}

#[test]
fn p6_unknown_type_isolates_for_both() {
    let (policy, notes) = noted("{policyTypes: [ingress]}");
    assert_eq!((policy.ingress, policy.egress), (Some(vec![]), Some(vec![])));
    assert_eq!(
        notes,
        [r#"spec.policyTypes[0]: "ingress" is unknown; use Ingress or Egress; until then it isolates for both"#]
    );
}

#[test]
fn p7_absent_and_empty_rules_are_the_same() {
    for section in ["", ", ingress: , egress: ", ", ingress: [], egress: []"] {
        let policy = policy(&format!("{{policyTypes: [Ingress, Egress]{section}}}"));
        assert_eq!((policy.ingress, policy.egress), (Some(vec![]), Some(vec![])), "{section}");
    }
}

#[test]
fn p8_p9_p10_empty_rule_is_everything() {
    let everything = Rule { peers: vec![], ports: vec![] };
    for text in ["{}", "{from: , ports: }", "{from: [], ports: []}"] {
        assert_eq!(rule(text), everything, "{text}");
    }
    assert_eq!(policy("{egress: [{to: [], ports: []}]}").egress, Some(vec![everything]));
}

#[test]
fn p12_pod_selector_alone_is_in_the_own_namespace() {
    let rule = rule("{from: [{podSelector: {matchLabels: {app: web}}}]}");
    assert_eq!(rule.peers, [Peer::Pods { namespaces: None, pods: app("web") }]);
}

#[test]
fn p13_namespace_selector_alone_is_all_their_pods() {
    let rule = rule("{from: [{namespaceSelector: {matchLabels: {app: web}}}, {namespaceSelector: {}}]}");
    assert_eq!(rule.peers[0], Peer::Pods { namespaces: Some(app("web")), pods: Selector::everything() });
    assert_eq!(rule.peers[1], Peer::Pods { namespaces: Some(Selector::everything()), pods: Selector::everything() });
}

#[test]
fn p14_one_entry_is_and_two_are_or() {
    let and = rule("{from: [{namespaceSelector: {matchLabels: {app: a}}, podSelector: {matchLabels: {app: b}}}]}");
    assert_eq!(and.peers, [Peer::Pods { namespaces: Some(app("a")), pods: app("b") }]);
    let or = rule("{from: [{namespaceSelector: {matchLabels: {app: a}}}, {podSelector: {matchLabels: {app: b}}}]}");
    assert_eq!(or.peers.len(), 2);
}

#[test]
fn p15_empty_peer_matches_nothing() {
    for peer in ["{}", "{podSelector: }", "{podSelector: , namespaceSelector: , ipBlock: }"] {
        let (rule, note) = noted_rule(&format!("{{from: [{peer}]}}"));
        assert_eq!(rule.peers, [Peer::Nothing], "{peer}");
        assert!(note.starts_with("spec.ingress[0].from[0]: needs a podSelector"), "{note}");
    }
}

#[test]
fn p16_block_excludes_selectors() {
    let (rule, _) = noted_rule("{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}");
    assert_eq!(rule.peers, [Peer::Nothing]);
}

#[test]
fn p16_block_has_exceptions() {
    let rule = rule("{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.2.0.0/16, 10.1.0.0/16]}}]}");
    let except = vec!["10.1.0.0/16".parse().unwrap(), "10.2.0.0/16".parse().unwrap()];
    assert_eq!(rule.peers, [Peer::IpBlock { cidr: "10.0.0.0/8".parse().unwrap(), except }]);
}

#[test]
fn p16_exception_must_be_a_smaller_part() {
    for except in ["10.0.0.0/8", "0.0.0.0/0", "11.0.0.0/16", "fd00::/16"] {
        let (rule, note) =
            noted_rule(&format!("{{from: [{{ipBlock: {{cidr: 10.0.0.0/8, except: [\"{except}\"]}}}}]}}"));
        let peer = Peer::IpBlock { cidr: "10.0.0.0/8".parse().unwrap(), except: vec![except.parse().unwrap()] };
        assert_eq!(rule.peers, [peer]);
        assert!(note.ends_with("is not a smaller part of 10.0.0.0/8; correct one of them"), "{note}");
    }
}

#[test]
fn p17_exceptions_stay_with_their_own_entry() {
    let rule = rule("{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {ipBlock: {cidr: 10.1.2.0/24}}]}");
    assert_eq!(rule.peers[1], Peer::IpBlock { cidr: "10.1.2.0/24".parse().unwrap(), except: vec![] });
}

#[test]
fn p18_legacy_blocks_are_canonical() {
    let rule = rule("{from: [{ipBlock: {cidr: 010.161.0.0/8, except: ['::ffff:10.1.2.3/112']}}]}");
    let except = vec!["10.1.0.0/16".parse().unwrap()];
    assert_eq!(rule.peers, [Peer::IpBlock { cidr: "10.0.0.0/8".parse().unwrap(), except }]);
}

#[test]
fn p18_unreadable_block_matches_nothing() {
    for block in ["{cidr: 10.0.0.0}", "{cidr: 10.0.0.0/8, except: [10.1.0.0/99]}", "{except: [10.1.0.0/16]}"] {
        let (rule, note) = noted_rule(&format!("{{from: [{{ipBlock: {block}}}]}}"));
        assert_eq!(rule.peers, [Peer::Nothing], "{block}");
        assert!(note.contains("is not a CIDR; write it as"), "{note}");
    }
}

#[test]
fn p20_protocol_defaults_to_tcp() {
    let rule = rule("{ports: [{port: 80}, {port: 53, protocol: UDP}, {port: 9, protocol: SCTP}]}");
    let protocols: Vec<Protocol> = rule.ports.iter().map(|port| port.protocol).collect();
    assert_eq!(protocols, [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
}

#[test]
fn p20_unknown_protocol_matches_nothing_and_isolates() {
    let (rule, note) = noted_rule("{ports: [{port: 80, protocol: ICMP}]}");
    assert_eq!(rule.ports, [PolicyPort { protocol: Protocol::Tcp, port: PortMatch::Nothing }]);
    assert_eq!(note, r#"spec.ingress[0].ports[0].protocol: "ICMP" is unknown; use TCP, UDP or SCTP"#);
}

#[test]
fn p21_absent_port_is_every_port_of_the_protocol() {
    let rule = rule("{ports: [{protocol: UDP}]}");
    assert_eq!(rule.ports, [PolicyPort { protocol: Protocol::Udp, port: PortMatch::Any }]);
}

#[test]
fn p22_end_port_is_included() {
    let ports = |text: &str| rule(&format!("{{ports: [{text}]}}")).ports.remove(0).port;
    assert_eq!(ports("{port: 80, endPort: 90}"), PortMatch::Range(80, 90));
    assert_eq!(ports("{port: 80, endPort: 80}"), PortMatch::Range(80, 80));
    assert_eq!(ports("{port: 80}"), PortMatch::Range(80, 80));
    assert_eq!(ports("{port: web}"), PortMatch::Named("web".into()));
}

#[test]
fn p22_unreadable_ports_match_nothing() {
    for port in [
        "{port: 80, endPort: 79}",
        "{port: web, endPort: 90}",
        "{endPort: 90}",
        "{port: 80, endPort: 65536}",
        "{port: 0}",
        "{port: -1}",
        "{port: 65536}",
        "{port: '80'}",
        "{port: Web}",
        "{port: a-name-that-is-too-long}",
    ] {
        let (rule, _) = noted_rule(&format!("{{ports: [{port}]}}"));
        assert_eq!(rule.ports, [PolicyPort { protocol: Protocol::Tcp, port: PortMatch::Nothing }], "{port}");
    }
}

#[test]
fn p46_unreadable_selectors_let_nobody_in() {
    for text in [
        "{matchExpressions: [{key: app, operator: in, values: [a]}]}",
        "{matchExpressions: [{key: app, operator: In}]}",
        "{matchExpressions: [{key: app, operator: NotIn, values: []}]}",
        "{matchExpressions: [{key: app, operator: Exists, values: [a]}]}",
        "{matchExpressions: [{key: app, operator: DoesNotExist, values: [a]}]}",
        "{matchExpressions: [{operator: Exists}]}",
        "{matchExpressions: [{key: app, operator: NotIn, values: ['not a value']}]}",
        "{matchLabels: {'not a key': a}}",
        "{matchLabels: {'Upper.example/key': a}}",
        "{matchLabels: {app: -a}}",
    ] {
        let (policy, notes) = noted(&format!("{{podSelector: {{}}, ingress: [{{from: [{{podSelector: {text}}}]}}]}}"));
        let closed = Peer::Pods { namespaces: None, pods: Selector::Invalid };
        assert_eq!(policy.ingress.unwrap()[0].peers, [closed], "{text}");
        assert_eq!(notes.len(), 1, "{notes:?}");
        // Whoever may be meant is isolated, and let be reached by nobody.
        let (policy, notes) = noted(&format!("{{podSelector: {text}, ingress: [{{}}], egress: [{{}}]}}"));
        assert_eq!(policy.pod_selector, Selector::everything(), "{text}");
        assert_eq!((policy.ingress, policy.egress), (Some(vec![]), Some(vec![])), "{text}");
        assert_eq!(notes.len(), 1, "{notes:?}");
    }
}

#[test]
fn p46_what_can_be_read_of_a_selector_of_pods_still_says_whom_it_is_not_about() {
    let bad = "matchExpressions: [{key: app, operator: Exists}, {key: tier, operator: Sometimes}]";
    let (policy, _) = noted(&format!("{{podSelector: {{matchLabels: {{env: live}}, {bad}}}, ingress: [{{}}]}}"));
    for (pod, is_isolated) in [(&[("env", "live"), ("app", "a")][..], true), (&[("app", "a")], false), (&[], false)] {
        assert_eq!(policy.pod_selector.matches(&labels(pod)), is_isolated, "{pod:?}");
    }
    assert_eq!((policy.ingress, policy.egress), (Some(vec![]), None));
}

#[test]
fn p46_legal_label_syntax_is_accepted() {
    for text in
        ["{matchLabels: {app.kubernetes.io/name: A_b.c-d}}", "{matchLabels: {a: ''}}", "{matchLabels: {0x: '1'}}"]
    {
        assert_ne!(selector(text), Selector::Invalid, "{text}");
    }
}

#[test]
fn unknown_fields_are_named() {
    let (policy, notes) = noted("{podSelektor: {}, ingress: [{from: [{podSelector: {}, nameSpaceSelector: {}}]}]}");
    assert_eq!(notes.len(), 2);
    assert!(notes[0].starts_with("spec.ingress[0].from[0].nameSpaceSelector: unknown field"), "{notes:?}");
    assert!(notes[1].starts_with("spec.podSelektor: unknown field"), "{notes:?}");
    assert_eq!(policy.pod_selector, Selector::everything());
}

#[test]
fn a_field_of_the_wrong_type_is_named() {
    let wrong = invalid(&format!("{HEAD}, spec: {{ingress: [{{ports: [{{endPort: [80]}}]}}]}}}}"));
    assert_eq!(wrong.key.unwrap().to_string(), "shop/p");
    assert!(wrong.reason.starts_with("spec.ingress[0].ports[0].endPort: invalid type"), "{}", wrong.reason);
}

proptest! {
    /// Selectors against the definition: a requirement is a question about one label.
    #[test]
    fn p5_selectors_mean_what_they_say(
        requirements in prop::collection::vec(
            ("[ab]", 0..4usize, prop::collection::btree_set("[wx]", 1..3)), 0..4),
        has in prop::collection::btree_map("[ab]", "[wxz]", 0..3),
    ) {
        let operators = ["In", "NotIn", "Exists", "DoesNotExist"];
        let expressions: Vec<String> = requirements.iter().map(|(key, operator, values)| {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let values = if *operator < 2 { format!(", values: [{}]", values.join(", ")) } else { String::new() };
            format!("{{key: {key}, operator: {}{values}}}", operators[*operator])
        }).collect();
        let selector = selector(&format!("{{matchExpressions: [{}]}}", expressions.join(", ")));
        let expected = requirements.iter().all(|(key, operator, values)| match (operator, has.get(key)) {
            (0, Some(value)) => values.contains(value),
            (1, Some(value)) => !values.contains(value),
            (0 | 2, None) | (3, Some(_)) => false,
            _ => true,
        });
        prop_assert_eq!(selector.matches(&has), expected);
    }
}

#[test]
fn p74_a_policy_is_in_force_unless_its_annotation_says_audit() {
    let read = |annotations: &str| {
        let metadata = format!("{{name: p, namespace: shop, annotations: {annotations}}}");
        let text =
            format!("{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {metadata}, spec: {{}}}}");
        match one(&text) {
            (Object::NetworkPolicy(policy), notes) => (policy.mode, notes),
            (other, _) => panic!("{other:?}"),
        }
    };
    assert_eq!(read("{}"), (Mode::Enforce, vec![]));
    assert_eq!(read("{fairlead.io/mode: enforce}"), (Mode::Enforce, vec![]));
    assert_eq!(read("{fairlead.io/mode: audit}"), (Mode::Audit, vec![]));
    for other in ["Audit", "dryrun", "\"\""] {
        let (mode, notes) = read(&format!("{{fairlead.io/mode: {other}}}"));
        assert_eq!((mode, notes.len()), (Mode::Enforce, 1), "{other}");
        assert!(notes[0].contains("fairlead.io/mode") && notes[0].contains("enforced"), "{notes:?}");
    }
}
