use std::path::PathBuf;

use super::{invalid, one};
use crate::{
    Action, ClusterNetworkPolicy, ClusterRule, DomainName, Kind, Object, Peer, PortMatch, Protocol, Rule, Selector,
    Subject, Tier, read_str,
};

fn noted(version: &str, spec: &str) -> (ClusterNetworkPolicy, Vec<String>) {
    let head =
        format!("{{apiVersion: policy.networking.k8s.io/{version}, kind: ClusterNetworkPolicy, metadata: {{name: c}}");
    match one(&format!("{head}, spec: {spec}}}")) {
        (Object::ClusterNetworkPolicy(policy), notes) => (policy, notes),
        (other, _) => panic!("{other:?}"),
    }
}

const PLACE_OF: &str = "tier: Admin, priority: 7";
const PLACE: &str = "tier: Admin, priority: 7, subject: {namespaces: {}}";

/// The only egress rule, and what is said of it.
fn egress(rule: &str) -> (ClusterRule, Vec<String>) {
    let (mut policy, notes) = noted("v1beta1", &format!("{{{PLACE}, egress: [{rule}]}}"));
    assert_eq!((policy.egress.len(), policy.ingress.len()), (1, 0));
    (policy.egress.remove(0), notes)
}

/// What a rule of this action and these members matches.
fn matched(members: &str) -> Rule {
    let (rule, notes) = egress(&format!("{{action: Deny, {members}}}"));
    assert_eq!(notes, Vec::<String>::new(), "{members}");
    rule.matches.unwrap()
}

#[test]
fn p54_both_versions_have_one_shape() {
    let spec = "{tier: Baseline, priority: 1000, subject: {pods: {podSelector: {matchLabels: {app: a}}}}, \
                ingress: [{name: rule-1, action: Pass, from: [{namespaces: {}}]}], egress: []}";
    let (beta, notes) = noted("v1beta1", spec);
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(noted("v1alpha2", spec).0, beta);
    assert_eq!((beta.tier, beta.priority, beta.key.to_string()), (Tier::Baseline, Some(1000), "c".to_owned()));
    assert_eq!(beta.subject.namespaces, Selector::everything());
    assert_ne!(beta.subject.pods, Selector::everything());
    let peer = Peer::Pods { namespaces: Some(Selector::everything()), pods: Selector::everything() };
    let matches = Some(Rule { peers: vec![peer], ports: vec![] });
    assert_eq!(beta.ingress, [ClusterRule { name: "rule-1".into(), action: Action::Pass, matches }]);
    let other = invalid("{apiVersion: policy.networking.k8s.io/v1, kind: ClusterNetworkPolicy, metadata: {name: c}}");
    assert_eq!(other.kind, Some(Kind::ClusterNetworkPolicy));
    assert!(other.reason.contains("policy.networking.k8s.io/v1beta1 or policy.networking.k8s.io/v1alpha2"), "{other}");
}

#[test]
fn p58_p59_peers_and_ports() {
    let rule = matched(
        "to: [{networks: [10.0.0.0/8, 'fd00::/8']}, {nodes: {matchLabels: {a: b}}}, {pods: {podSelector: {}}}], \
         protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 1, end: 65535}}}}]",
    );
    let shape: Vec<_> = rule.peers.iter().map(std::mem::discriminant).collect();
    let block = |text: &str| Peer::IpBlock { cidr: text.parse().unwrap(), except: vec![] };
    assert_eq!(rule.peers[..2], [block("10.0.0.0/8"), block("fd00::/8")]);
    assert_eq!(shape.len(), 4);
    assert!(matches!(rule.peers[2], Peer::Nodes(_)));
    let ports: Vec<_> = rule.ports.iter().map(|port| (port.protocol, port.port.clone())).collect();
    assert_eq!(ports, [(Protocol::Tcp, PortMatch::Range(80, 80)), (Protocol::Udp, PortMatch::Range(1, 65535))]);
    // A name is that of a port of any protocol.
    let named = matched("to: [{namespaces: {}}], protocols: [{destinationNamedPort: web}]");
    let named: Vec<_> = named.ports.iter().map(|port| (port.protocol, port.port.clone())).collect();
    let web = || PortMatch::Named("web".to_owned());
    assert_eq!(named, [(Protocol::Tcp, web()), (Protocol::Udp, web()), (Protocol::Sctp, web())]);
}

const PEER: &str = "to: [{namespaces: {}}]";

#[test]
fn p63_a_rule_that_cant_be_read_accepts_nothing_and_denies_everything() {
    let cases = [
        // Peers: none, none set, several set, unknown, unreadable.
        ("to: []", "spec.egress[0].to: empty"),
        ("protocols: [{tcp: {destinationPort: {number: 80}}}]", "spec.egress[0].to: empty"),
        ("to: [{}]", "spec.egress[0].to[0]: needs exactly one of"),
        ("to: [{namespaces: {}, pods: {podSelector: {}}}]", "spec.egress[0].to[0]: needs exactly one of"),
        ("to: [{namespaces: {}}, {services: {}}]", "spec.egress[0].to[1].services: unknown field"),
        ("to: [{namespaces: {namespaceSelector: {}}}]", "spec.egress[0].to[0].namespaces.namespaceSelector: unknown"),
        ("to: [{namespaces: {matchLabels: {'-': x}}}]", "is not a label key"),
        ("to: [{namespaces: {matchExpressions: [{key: a, operator: Near}]}}]", "use In, NotIn, Exists or"),
        ("to: [{namespaces: {matchExpressions: [{key: a, operator: Exists, flag: 1}]}}]", "[0].flag: unknown field"),
        ("to: [{pods: {namespaceSelector: {}}}]", "to[0].pods.podSelector: missing"),
        ("to: [{networks: []}]", "networks: empty"),
        ("to: [{networks: [10.0.0.300/24]}]", "is not a CIDR without host bits"),
        ("to: [{networks: [10.0.0.1/24]}]", "is not a CIDR without host bits"),
        ("to: [{networks: ['::ffff:10.0.0.0/104']}]", "is not a CIDR without host bits"),
        // Ports.
        ("to: [{namespaces: {}}], protocols: []", "protocols: empty"),
        ("to: [{namespaces: {}}], protocols: [{icmp: {}}]", "protocols[0].icmp: unknown field"),
        ("to: [{namespaces: {}}], protocols: [{tcp: {}}]", "needs exactly one of destinationPort"),
        ("to: [{namespaces: {}}], protocols: [{tcp: {flags: [syn]}}]", "tcp.flags: unknown field"),
        ("to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 0}}}]", "0 is not a port"),
        (
            "to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 80, end: 80}}}}]",
            "not below end",
        ),
        (
            "to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 90, end: 80}}}}]",
            "not below end",
        ),
        ("to: [{networks: [10.0.0.0/24]}], protocols: [{destinationNamedPort: http}]", "no named ports"),
        ("to: [{nodes: {}}], protocols: [{destinationNamedPort: http}]", "no named ports"),
        // The rule itself.
        ("to: [{namespaces: {}}], when: never", "spec.egress[0].when: unknown field"),
        ("from: [{namespaces: {}}]", "spec.egress[0].from: unknown field"),
    ];
    let everything = Some(Rule { peers: vec![], ports: vec![] });
    for (members, says) in cases {
        for (action, then, matches, effect) in [
            ("Accept", Action::Accept, None, "until then the rule accepts nothing"),
            ("Deny", Action::Deny, everything.clone(), "until then the rule denies everything"),
            ("Pass", Action::Deny, everything.clone(), "until then the rule denies everything"),
        ] {
            let (rule, notes) = egress(&format!("{{name: rule-1, action: {action}, {members}}}"));
            assert_eq!(rule, ClusterRule { name: "rule-1".into(), action: then, matches }, "{action} {members}");
            assert!(notes.len() == 1 && notes[0].contains(says) && notes[0].ends_with(effect), "{members}: {notes:?}");
        }
    }
    // What ingress does not have.
    let (policy, notes) =
        noted("v1beta1", &format!("{{{PLACE}, ingress: [{{action: Accept, from: [{{nodes: {{}}}}]}}]}}"));
    assert_eq!((policy.ingress[0].matches.clone(), notes.len()), (None, 1), "{notes:?}");
}

#[test]
fn p63_an_action_that_is_not_known_denies_what_the_rule_matches() {
    for action in ["action: Log, ", "action: accept, ", "action: 1, ", ""] {
        let (rule, notes) = egress(&format!("{{{action}{PEER}}}"));
        assert_eq!((rule.action, rule.matches), (Action::Deny, Some(matched(PEER))), "{action}");
        assert!(notes[0].contains("use Accept, Deny or Pass; until then the rule denies what it matches"), "{notes:?}");
    }
    let (policy, notes) = noted("v1beta1", &format!("{{{PLACE}, ingress: {{}}, egress: [null]}}"));
    let everything = Some(Rule { peers: vec![], ports: vec![] });
    for rule in [&policy.ingress[0], &policy.egress[0]] {
        assert_eq!((rule.action, &rule.matches), (Action::Deny, &everything), "{notes:?}");
    }
}

#[test]
fn p64_a_policy_without_a_place_that_can_be_read_closes_first() {
    let rules = "ingress: [{action: Accept, from: [{namespaces: {}}]}, {action: Pass, from: [{namespaces: {}}]}]";
    for place in [
        "tier: Other, priority: 3",
        "priority: 3",
        "tier: Baseline",
        "tier: Baseline, priority: -1",
        "tier: Baseline, priority: 1001",
        "tier: Baseline, priority: soon",
        "tier: Baseline, priority: 3, mode: gentle",
    ] {
        let (policy, notes) = noted("v1beta1", &format!("{{{place}, subject: {{namespaces: {{}}}}, {rules}}}"));
        assert_eq!((policy.tier, policy.priority), (Tier::Admin, None), "{place}");
        assert!(notes.len() == 1 && notes[0].contains("until then its rules deny"), "{notes:?}");
        let actions: Vec<_> = policy.ingress.iter().map(|rule| (rule.action, rule.matches.is_some())).collect();
        assert_eq!(actions, [(Action::Accept, false), (Action::Deny, true)], "{place}");
    }
}

#[test]
fn p64_a_policy_whose_subject_cant_be_read_is_closed_for_all_that_it_may_be_for() {
    let rules = "ingress: [{action: Accept, from: [{namespaces: {}}]}, {action: Pass, from: [{namespaces: {}}]}]";
    let bad = "{matchExpressions: [{key: a, operator: in, values: [b]}]}";
    let labels = "{matchLabels: {a: b}}";
    let only_a = noted("v1beta1", &format!("{{{PLACE_OF}, subject: {{namespaces: {labels}}}}}")).0.subject.namespaces;
    for (subject, namespaces, pods) in [
        (String::new(), Selector::everything(), Selector::everything()),
        ("{}".to_owned(), Selector::everything(), Selector::everything()),
        (
            format!("{{namespaces: {labels}, pods: {{podSelector: {labels}}}}}"),
            Selector::everything(),
            Selector::everything(),
        ),
        (format!("{{nodes: {labels}}}"), Selector::everything(), Selector::everything()),
        ("{pods: {}}".to_owned(), Selector::everything(), Selector::everything()),
        (format!("{{namespaces: {bad}}}"), Selector::everything(), Selector::everything()),
        (format!("{{pods: {{namespaceSelector: {labels}}}}}"), only_a.clone(), Selector::everything()),
        (
            format!("{{pods: {{namespaceSelector: {labels}, podSelector: {bad}}}}}"),
            only_a.clone(),
            Selector::everything(),
        ),
        (
            format!("{{pods: {{namespaceSelector: {bad}, podSelector: {labels}}}}}"),
            Selector::everything(),
            only_a.clone(),
        ),
    ] {
        let named = if subject.is_empty() { String::new() } else { format!("subject: {subject}, ") };
        let (policy, notes) = noted("v1beta1", &format!("{{tier: Baseline, priority: 0, {named}{rules}}}"));
        assert_eq!(policy.subject, Subject { namespaces, pods }, "{subject}");
        assert!(notes.len() == 1 && notes[0].starts_with("spec.subject"), "{subject}: {notes:?}");
        let actions: Vec<_> = policy.ingress.iter().map(|rule| (rule.action, rule.matches.is_some())).collect();
        assert_eq!(actions, [(Action::Accept, false), (Action::Deny, true)], "{subject}");
    }
}

#[test]
fn p63_null_is_no_list_that_was_left_out() {
    let (rule, notes) = egress("{action: Accept, to: [{namespaces: {}}], protocols: null}");
    assert_eq!((rule.matches, notes.len()), (None, 1), "{notes:?}");
}

#[test]
fn p65_names_are_peers_of_egress_rules_that_accept() {
    let (rule, notes) =
        egress("{action: Accept, to: [{domainNames: ['*.K8s.io.', k8s.io, 'k8s.io.']}, {networks: [10.0.0.0/8]}]}");
    let name = |text: &str| DomainName::parse(text).unwrap();
    let peers = rule.matches.unwrap().peers;
    assert_eq!(peers[0], Peer::DomainNames([name("*.k8s.io"), name("k8s.io")].into()));
    assert_eq!((peers.len(), notes), (2, vec![]));
    let most = vec!["k8s.io"; 26].join(", ");
    let named = "to: [{domainNames: [k8s.io]}]";
    let everything = Some(Rule { peers: vec![], ports: vec![] });
    for (members, says) in [
        (
            format!("action: Accept, to: [{{domainNames: [{most}]}}]"),
            "domainNames: 26 entries, of which there may be 25",
        ),
        ("action: Accept, to: [{domainNames: []}]".to_owned(), "domainNames: empty"),
        ("action: Accept, to: [{domainNames: ['*']}]".to_owned(), "domainNames[0]: \"*\" is not a domain name"),
        ("action: Accept, to: [{domainNames: [8]}]".to_owned(), "domainNames[0]: this is not a text"),
        (format!("action: Accept, {named}, protocols: [{{destinationNamedPort: web}}]"), "have no named ports"),
        (format!("action: Deny, {named}"), "spec.egress[0].to: domainNames are for rules that accept"),
        (format!("action: Pass, {named}"), "spec.egress[0].to: domainNames are for rules that accept"),
    ] {
        let (rule, notes) = egress(&format!("{{{members}}}"));
        let expected = if rule.action == Action::Accept { None } else { everything.clone() };
        assert_eq!(rule.matches, expected, "{members}");
        assert!(notes.len() == 1 && notes[0].contains(says), "{members}: {notes:?}");
    }
    let (policy, notes) =
        noted("v1beta1", &format!("{{{PLACE}, ingress: [{{action: Accept, from: [{{domainNames: [k8s.io]}}]}}]}}"));
    assert_eq!((policy.ingress[0].matches.clone(), notes.len()), (None, 1), "{notes:?}");
}

/// The policies of a directory, and what is said of each file.
fn directory(name: &str) -> Vec<(String, Vec<ClusterNetworkPolicy>, Vec<String>)> {
    let data = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("`cargo test` sets it"));
    let dir = data.join("../../tests/data/cluster-network-policy").join(name);
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: PathBuf| {
        let (found, said): (Vec<_>, Vec<_>) =
            read_str(&std::fs::read_to_string(&path).unwrap()).into_iter().partition(Result::is_ok);
        let policies = found.into_iter().map(|object| match object.unwrap() {
            Object::ClusterNetworkPolicy(policy) => policy,
            other => panic!("{other:?}"),
        });
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, policies.collect(), said.into_iter().map(|said| said.unwrap_err().reason).collect())
    };
    files.into_iter().map(read).collect()
}

#[test]
fn p54_policies_from_the_field_are_read_whole() {
    for (dir, count) in [("valid", 2), ("user-stories", 4), ("antrea", 2)] {
        let files = directory(dir);
        assert_eq!(files.len(), count, "{dir}");
        for (file, policies, said) in files {
            assert_eq!((policies.len(), said), (1, vec![]), "{file}");
            assert!(policies[0].ingress.iter().chain(&policies[0].egress).all(|rule| rule.matches.is_some()), "{file}");
        }
    }
}

#[test]
fn p63_p65_policies_from_the_field_are_closed_where_they_are_invalid() {
    let (_, policies, said) = directory("invalid").remove(0);
    let rule = &policies[0].ingress[0];
    assert_eq!((rule.action, rule.matches.clone()), (Action::Deny, Some(Rule { peers: vec![], ports: vec![] })));
    assert_eq!(said.len(), 2, "{said:?}");
    let (_, policies, said) = directory("domain-names").remove(0);
    let accepts: Vec<_> =
        policies.iter().flat_map(|policy| &policy.egress).map(|rule| rule.matches.is_some()).collect();
    assert_eq!((accepts, said.len()), (vec![true, true, true], 0));
}
