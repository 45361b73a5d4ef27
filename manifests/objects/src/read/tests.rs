use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Home, Invalid, read_str, read_str_in, read_value};
use crate::Object;

fn names(text: &str) -> Vec<Result<String, String>> {
    let name = |object: Object| format!("{} {}", object.kind().as_str(), object.key());
    read_str(text).into_iter().map(|result| result.map(name).map_err(|invalid| invalid.to_string())).collect()
}

const NAMESPACE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: a}}";

#[test]
fn documents_are_read_one_by_one() {
    let text = "# only a comment\n---\n%YAML 1.2\n--- # a comment\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n...\n\
                ---\n---\n{apiVersion: v1, kind: Node, metadata: {name: b}}\n---\n";
    assert_eq!(names(text), [Ok("Namespace a".to_owned()), Ok("Node b".to_owned())]);
    assert_eq!(names(""), []);
    assert_eq!(names("\u{feff}--- {apiVersion: v1, kind: Node, metadata: {name: b}}\r\n"), [Ok("Node b".to_owned())]);
}

#[test]
fn a_broken_document_leaves_the_others_alone() {
    let text = format!("{NAMESPACE}\n---\nkind: [Service\n---\n{NAMESPACE}\n");
    let found = names(&text);
    assert_eq!((&found[0], &found[2]), (&Ok("Namespace a".to_owned()), &Ok("Namespace a".to_owned())));
    let reason = found[1].as_ref().unwrap_err();
    assert!(reason.starts_with("document 2: not YAML: "), "{reason}");
    // The line is counted from the start of the file.
    assert!(reason.contains("(line 3, ") || reason.contains("(line 4, "), "{reason}");
}

#[test]
fn a_separator_inside_a_text_is_no_separator() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  annotations:\n    text: |\n      one\n      ---\n      two\n";
    assert_eq!(names(text), [Ok("Namespace a".to_owned())]);
}

#[test]
fn json_may_hold_one_object_after_another() {
    let object = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string();
    let text = format!("{}\n{}", object("a"), object("b"));
    assert_eq!(names(&text), [Ok("Namespace a".to_owned()), Ok("Namespace b".to_owned())]);
}

#[test]
fn lists_are_expanded() {
    let text =
        format!("{{apiVersion: v1, kind: List, items: [{NAMESPACE}, {{apiVersion: v1, kind: ConfigMap}}, null]}}");
    assert_eq!(names(&text), [Ok("Namespace a".to_owned())]);
    let text = "{apiVersion: v1, kind: PodList, items: [{metadata: {name: a}}, {metadata: {name: b, namespace: c}}]}";
    assert_eq!(names(text), [Ok("Pod default/a".to_owned()), Ok("Pod c/b".to_owned())]);
    assert_eq!(names("{apiVersion: v1, kind: List}"), []);
}

#[test]
fn other_kinds_are_ignored() {
    for text in [
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}",
        "{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: a}}",
        "{apiVersion: v1, kind: ConfigMapList, items: [{metadata: {name: a}}]}",
    ] {
        assert_eq!(names(text), [], "{text}");
    }
}

#[test]
fn other_versions_are_named() {
    for (text, reason) in [
        (
            "{apiVersion: extensions/v1beta1, kind: NetworkPolicy, metadata: {name: a}}",
            "apiVersion: extensions/v1beta1; a NetworkPolicy is read as networking.k8s.io/v1",
        ),
        (
            "{apiVersion: discovery.k8s.io/v1beta1, kind: EndpointSlice, metadata: {name: a}}",
            "apiVersion: discovery.k8s.io/v1beta1; a EndpointSlice is read as discovery.k8s.io/v1",
        ),
        ("{kind: Service, metadata: {name: a}}", "apiVersion: missing; a Service is read as v1"),
    ] {
        assert_eq!(names(text), [Err(format!("document 1: {reason}"))]);
    }
}

#[test]
fn what_is_no_object_is_refused() {
    assert_eq!(names("just text"), [Err("document 1: not an object; write apiVersion, kind and metadata".to_owned())]);
    assert_eq!(
        names("metadata: {name: a}"),
        [Err("document 1: kind: missing; write which kind of object this is".to_owned())]
    );
    let nameless = "document 1: metadata.name: missing; give the object a name";
    assert_eq!(names("{apiVersion: v1, kind: Node, metadata: {generateName: a-}}"), [Err(nameless.to_owned())]);
    let twice = names("apiVersion: v1\nkind: Namespace\nkind: Node\nmetadata: {name: a}\n");
    assert!(twice[0].as_ref().unwrap_err().contains("duplicate"), "{twice:?}");
}

#[test]
fn a_word_that_yaml_takes_for_something_else_is_named() {
    let text = "{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {enabled: yes}}}";
    let reason =
        "document 1: metadata.labels.enabled: invalid type: boolean `true`, expected a string; correct the field";
    assert_eq!(names(text), [Err(reason.to_owned())]);
}

#[test]
fn aliases_do_not_blow_up() {
    let mut text = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (from, to) in ["a", "b", "c", "d", "e", "f", "g", "h"].iter().zip(["b", "c", "d", "e", "f", "g", "h", "i"]) {
        let from = vec![format!("*{from}"); 9].join(", ");
        text.push_str(&format!("{to}: &{to} [{from}]\n"));
    }
    assert!(names(&text)[0].is_err());
}

/// Values such as a person might write where something else belongs.
fn arbitrary() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1..70_000i64).prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "\\PC{0,8}".prop_map(Value::from),
        prop::sample::select(vec![
            "TCP",
            "UDP",
            "None",
            "10.0.0.1",
            "fd00::1",
            "10.0.0.0/8",
            "fd00::/8",
            "::ffff:1.2.3.4/100",
            "IPv4",
            "IPv6",
            "ClientIP",
            "In",
            "Exists",
            "Ingress",
            "Egress",
            "Running",
            "InternalIP",
            "Always",
            "web",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        let field = prop::sample::select(vec![
            "metadata",
            "name",
            "namespace",
            "labels",
            "spec",
            "status",
            "ports",
            "port",
            "endPort",
            "protocol",
            "addresses",
            "address",
            "type",
            "endpoints",
            "addressType",
            "conditions",
            "hints",
            "forZones",
            "targetRef",
            "kind",
            "clusterIP",
            "clusterIPs",
            "podIPs",
            "ip",
            "podSelector",
            "namespaceSelector",
            "matchLabels",
            "matchExpressions",
            "key",
            "operator",
            "values",
            "ipBlock",
            "cidr",
            "except",
            "ingress",
            "egress",
            "from",
            "to",
            "policyTypes",
            "containers",
            "initContainers",
            "restartPolicy",
            "containerPort",
            "podCIDRs",
            "loadBalancer",
            "sessionAffinityConfig",
            "items",
        ])
        .prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(field, inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

#[test]
fn an_object_without_a_namespace_is_of_the_one_that_is_given_or_is_refused() {
    let text = "{apiVersion: v1, kind: List, items: [
      {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: bare}, spec: {podSelector: {}}},
      {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: '', name: empty}, spec: {podSelector: {}}},
      {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: own, name: p}, spec: {podSelector: {}}},
      {apiVersion: v1, kind: Namespace, metadata: {name: whole}},
    ]}";
    let keys = |found: Vec<Result<Object, Invalid>>| -> Vec<String> {
        found.into_iter().map(|read| read.map_or_else(|e| e.reason, |object| object.key().to_string())).collect()
    };
    assert_eq!(keys(read_str(text)), ["default/bare", "default/empty", "own/p", "whole"]);
    assert_eq!(keys(read_str_in(text, Some("shop"))), ["shop/bare", "shop/empty", "own/p", "whole"]);
    let missing = "metadata.namespace: missing; write it, or give --namespace";
    assert_eq!(keys(read_str_in(text, None)), [missing, missing, "own/p", "whole"]);
}

fn read(value: Value) -> Vec<Result<Object, Invalid>> {
    let mut found = Vec::new();
    read_value(value, 1, Home::Default, &mut found);
    found
}

const KINDS: [(&str, &str); 6] = [
    ("v1", "Service"),
    ("v1", "Pod"),
    ("v1", "Node"),
    ("v1", "Namespace"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is in an object, there is either an object or a reason, and never a panic.
    #[test]
    fn every_object_is_read_or_refused(
        (version, kind) in prop::sample::select(KINDS.to_vec()),
        fields in prop::collection::btree_map(
            prop::sample::select(vec!["spec", "status", "endpoints", "ports", "addressType", "metadata"]), arbitrary(), 0..5),
    ) {
        let mut object = json!({"metadata": {"name": "a"}, "addressType": "IPv4"});
        for (field, value) in fields {
            object[field] = value;
        }
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
        let found = read(object);
        prop_assert!(!found.is_empty());
        let first_is_object = found[0].is_ok();
        prop_assert_eq!(found[0].as_ref().err().is_none_or(|invalid| !invalid.piece), true);
        prop_assert!(found[1..].iter().all(|rest| rest.as_ref().is_err_and(|invalid| invalid.piece)));
        prop_assert!(first_is_object || found.len() == 1);
    }

    /// Any value at all, and any text at all.
    #[test]
    fn nothing_panics(value in arbitrary(), text in "\\PC{0,80}", lines in "[-a: \\[{\n\\]}&*!|>'\"]{0,60}") {
        read(value);
        prop_assert!(read_str(&text).len() <= text.len());
        prop_assert!(read_str(&lines).len() <= lines.len());
    }
}
