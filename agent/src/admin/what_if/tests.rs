use fairlead_objects::read_str;

use super::*;

const CLUSTER: &str = "
{apiVersion: v1, kind: List, items: [
  {apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [10.244.1.0/24]}},
  {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}},
  {apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: cart, labels: {app: cart}},
   spec: {nodeName: n1}, status: {phase: Running, podIPs: [{ip: 10.244.1.2}]}},
  {apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: client, labels: {app: client}},
   spec: {nodeName: n1}, status: {phase: Running, podIPs: [{ip: 10.244.1.3}]}},
]}";

const CART: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: cart}, \
                    spec: \
                    {podSelector: {matchLabels: {app: cart}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], \
                    ports: [{port: 80}]}]}}";
const CLOSED: &str = "{apiVersion: policy.networking.k8s.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {name: \
                      closed}, spec: \
                      {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}";

fn snapshot(texts: &[&str]) -> Snapshot {
    let files = texts.iter().enumerate().map(|(n, text)| (format!("{n}.yaml"), read_str(text)));
    Snapshot::of_files(files.collect())
}

fn ask(snapshot: &Snapshot, text: &str, delete: bool) -> PolicyWhatIf {
    snapshot.what_if(&[text.to_owned()], None, delete).unwrap()
}

fn changes(what_if: &PolicyWhatIf) -> Vec<&str> {
    what_if.policies.iter().map(|policy| policy.change.as_str()).collect()
}

#[test]
fn p70_a_new_a_changed_and_a_deleted_policy_are_compared_with_what_is_there() {
    let new = ask(&snapshot(&[CLUSTER]), CART, false);
    assert_eq!((changes(&new), new.opens.len()), (vec!["new"], 0));
    let closes = |from: &str| new.closes.iter().find(|view| view.from.iter().any(|name| name == from)).unwrap();
    assert_eq!(closes("shop/client").to, ["shop/cart"]);
    assert_eq!(closes("shop/client").traffic, ["TCP 1-79", "TCP 81-65535", "UDP", "SCTP", "protocols without ports"]);
    assert_eq!(closes("0.0.0.0/0").traffic, ["everything"]);

    let there = snapshot(&[CLUSTER, CART]);
    let same = ask(&there, CART, false);
    assert_eq!((changes(&same), same.opens.len(), same.closes.len()), (vec!["unchanged"], 0, 0));
    let changed = ask(&there, &CART.replace("port: 80", "port: 81"), false);
    assert_eq!(changes(&changed), ["changed"]);
    assert_eq!(
        (&changed.opens[0].traffic, &changed.closes[0].traffic),
        (&vec!["TCP 81".to_owned()], &vec!["TCP 80".to_owned()])
    );
    let deleted = ask(&there, CART, true);
    assert_eq!((changes(&deleted), &deleted.opens), (vec!["deleted"], &new.closes));
    let both = ask(&snapshot(&[CLUSTER]), &format!("{CART}\n---\n{CLOSED}"), false);
    assert_eq!(changes(&both), ["new", "new"]);
    let is_closed = |view: &DifferenceView| {
        view.from.iter().any(|from| from == "shop/client") && view.to == ["shop/cart"] && view.traffic == ["everything"]
    };
    assert!(both.closes.iter().any(is_closed), "{both:?}");
}

#[test]
fn p70_what_cannot_be_compared_is_said() {
    let there = snapshot(&[CLUSTER, CART, "{apiVersion: v1, kind: Pod"]);
    let refused = |text: &str, delete| there.what_if(&[text.to_owned()], None, delete).unwrap_err();
    assert_eq!(refused(CLOSED, true), "there is no ClusterNetworkPolicy closed to delete");
    assert_eq!(refused("", false), "no NetworkPolicy and no ClusterNetworkPolicy is given");
    assert!(refused("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy", false).starts_with("document 1: "));
    let what_if =
        ask(&there, &format!("{CART}\n---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: q}}}}"), false);
    assert!(what_if.notes.iter().any(|note| note.starts_with("2.yaml: document 1: ")), "{what_if:?}");
    assert!(what_if.notes.iter().any(|note| note.ends_with(" q is not a policy: ignored")), "{what_if:?}");
    assert_eq!(what_if.incomplete, ["1 of the objects can't be read: see the notes, and correct or remove them"]);
    // Of what no policy asks nothing is missing.
    let service = "{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: s}, spec: {ports: 1}}";
    let what_if = ask(&snapshot(&[CLUSTER, service]), CART, false);
    assert_eq!((what_if.notes.len(), what_if.incomplete.len()), (1, 0), "{what_if:?}");
    // Pieces that can't be read close, and are named.
    let odd = ask(&snapshot(&[CLUSTER]), &CLOSED.replace("namespaces: {}}]}", "namespaces: {}, foo: {}}]}"), false);
    assert!(odd.incomplete.iter().any(|missing| missing.contains("foo")), "{odd:?}");
    assert!(odd.closes.iter().any(|view| view.traffic == ["everything"]), "{odd:?}");
}

#[test]
fn p70_an_agent_that_does_not_know_all_pods_says_so() {
    let mut model = Model::new("n1");
    let take = |model: &mut Model, text: &str| {
        read_str(text).into_iter().for_each(|read| model.take(Event::Applied(read.unwrap())));
    };
    take(&mut model, CLUSTER);
    Kind::ALL.into_iter().filter(|kind| *kind != Kind::Pod).for_each(|kind| model.take(Event::Synced(kind)));
    let refused = Snapshot::of_agent(&model).unwrap_err();
    assert!(refused.contains("(missing: Pod)"), "{refused}");
    model.take(Event::Synced(Kind::Pod));
    let incomplete = |model: &Model| ask(&Snapshot::of_agent(model).unwrap(), CART, false).incomplete;
    assert_eq!(incomplete(&model), Vec::<String>::new(), "there is no other node");
    take(&mut model, "{apiVersion: v1, kind: Node, metadata: {name: n2}, spec: {podCIDRs: [10.244.2.0/24]}}");
    let said = incomplete(&model);
    assert!(said.len() == 1 && said[0].contains("only knows the pods of node n1"), "{said:?}");
    take(&mut model, &pod("far", "nodeName: n2", "Running, podIPs: [{ip: 10.244.2.2}]"));
    assert_eq!(incomplete(&model), Vec::<String>::new());
}

fn pod(name: &str, spec: &str, status: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{namespace: shop, name: {name}, labels: {{app: cart}}}}, spec: \
         {{{spec}}}, status: {{phase: {status}}}}}"
    )
}

#[test]
fn p70_pods_that_have_no_place_are_counted_by_reason() {
    let pods = [
        pod("new", "nodeName: n1", "Pending"),
        pod("bare", "nodeName: bare", "Running, podIPs: [{ip: 10.244.1.4}]"),
        pod("lost", "nodeName: n9", "Running, podIPs: [{ip: 10.244.9.4}]"),
        pod("loose", "", "Running, podIPs: [{ip: 10.244.9.5}]"),
        pod("far-a", "nodeName: n1", "Running, podIPs: [{ip: 10.9.0.1}]"),
        pod("far-b", "nodeName: n1", "Running, podIPs: [{ip: 10.9.0.2}]"),
        pod("far-c", "nodeName: n1", "Running, podIPs: [{ip: 10.9.0.3}]"),
        pod("far-d", "nodeName: n1", "Running, podIPs: [{ip: 10.9.0.4}]"),
        pod("twin", "nodeName: n1", "Running, podIPs: [{ip: 10.244.1.2}]"),
        // Neither is one that a policy could be about.
        pod("host", "nodeName: n1, hostNetwork: true", "Running, podIPs: [{ip: 172.18.0.1}]"),
        pod("done", "nodeName: n1", "Succeeded, podIPs: [{ip: 10.244.1.9}]"),
    ];
    let node = "{apiVersion: v1, kind: Node, metadata: {name: bare}}";
    let texts: Vec<&str> = [CLUSTER, node].into_iter().chain(pods.iter().map(String::as_str)).collect();
    let what_if = ask(&snapshot(&texts), CART, false);
    assert_eq!(
        what_if.notes,
        [
            "left out: 1 pod (shop/new) without an address in status.podIPs",
            "left out: 2 pods (shop/loose, shop/lost) on no node, or on an unknown node: include the Nodes",
            "left out: 1 pod (shop/bare) on a node without spec.podCIDRs",
            "left out: 4 pods (shop/far-a, shop/far-b, shop/far-c, 1 more) with addresses outside the node's \
             spec.podCIDRs",
            "left out: 1 pod (shop/twin) with addresses that belong to a node or to another pod",
        ]
    );
    assert_eq!((what_if.closes.is_empty(), what_if.incomplete), (false, Vec::<String>::new()));
}

#[test]
fn p70_a_comparison_in_which_no_pod_has_a_place_is_incomplete() {
    let without = CLUSTER.replace("podCIDRs: [10.244.1.0/24]", "");
    let what_if = ask(&snapshot(&[&without]), CART, false);
    assert!(what_if.closes.is_empty() && what_if.notes[0].starts_with("left out: 2 pods (shop/cart, shop/client)"));
    assert_eq!(what_if.incomplete.len(), 1, "{what_if:?}");
    assert!(what_if.incomplete[0].starts_with("the comparison includes no pod"), "{what_if:?}");
    // The one that it is about has none.
    let without = CLUSTER.replace("10.244.1.2", "10.9.9.9");
    let what_if = ask(&snapshot(&[&without]), CART, false);
    assert!(what_if.incomplete[0].starts_with("the pods that NetworkPolicy shop/cart selects (1) "), "{what_if:?}");
}

#[test]
fn p70_a_policy_that_selects_nobody_is_named() {
    let nobody = CART
        .replace("spec: {podSelector: {matchLabels: {app: cart}}", "spec: {podSelector: {matchLabels: {app: crat}}");
    let elsewhere = CLOSED.replace("subject: {namespaces: {}}", "subject: {namespaces: {matchLabels: {team: b}}}");
    let notes = ask(&snapshot(&[CLUSTER]), &format!("{nobody}\n---\n{elsewhere}"), false).notes;
    let said = "selects no pod that is known";
    assert_eq!(notes, [format!("NetworkPolicy shop/cart {said}"), format!("ClusterNetworkPolicy closed {said}")]);
    // Nothing is selected by the labels of a Namespace that is not there.
    let what_if = ask(&snapshot(&[&CLUSTER.replace("kind: Namespace", "kind: ConfigMap")]), CART, false);
    assert!(
        what_if.notes[0].starts_with("2 pods (shop/cart, shop/client) in a namespace that is not known"),
        "{what_if:?}"
    );
}

#[test]
fn p70_a_policy_without_a_namespace_is_of_the_one_that_is_given_or_is_refused() {
    let bare = CART.replace("namespace: shop, ", "");
    let there = snapshot(&[CLUSTER]);
    let asked = |namespace| there.what_if(std::slice::from_ref(&bare), namespace, false);
    assert_eq!(asked(None).unwrap_err(), "document 1: metadata.namespace: missing; write it, or give --namespace");
    assert_eq!(asked(Some("shop")).unwrap(), ask(&there, CART, false));
    assert_eq!(asked(Some("other")).unwrap().policies[0].policy, "NetworkPolicy other/cart");
}
