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

const CART: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: cart}, spec: \
                    {podSelector: {matchLabels: {app: cart}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], \
                    ports: [{port: 80}]}]}}";
const CLOSED: &str = "{apiVersion: policy.networking.k8s.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {name: closed}, spec: \
                      {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}";

fn snapshot(texts: &[&str]) -> Snapshot {
    let files = texts.iter().enumerate().map(|(n, text)| (format!("{n}.yaml"), read_str(text)));
    Snapshot::of_files(files.collect())
}

fn ask(snapshot: &Snapshot, text: &str, delete: bool) -> PolicyWhatIf {
    snapshot.what_if(&[text.to_owned()], delete).unwrap()
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
    let refused = |text: &str, delete| there.what_if(&[text.to_owned()], delete).unwrap_err();
    assert_eq!(refused(CLOSED, true), "there is no ClusterNetworkPolicy closed to delete");
    assert_eq!(refused("", false), "no NetworkPolicy and no ClusterNetworkPolicy is given");
    assert!(refused("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy", false).starts_with("document 1: "));
    let what_if =
        ask(&there, &format!("{CART}\n---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: q}}}}"), false);
    assert!(what_if.notes.iter().any(|note| note.starts_with("2.yaml: document 1: ")), "{what_if:?}");
    assert!(what_if.notes.iter().any(|note| note.ends_with(" q is no policy: left out")), "{what_if:?}");
    // Pieces that can't be read close, and are named.
    let odd = ask(&snapshot(&[CLUSTER]), &CLOSED.replace("namespaces: {}}]}", "namespaces: {}, foo: {}}]}"), false);
    assert!(odd.notes.iter().any(|note| note.contains("foo")), "{odd:?}");
    assert!(odd.closes.iter().any(|view| view.traffic == ["everything"]), "{odd:?}");
}

#[test]
fn an_agent_without_policies_says_that_it_knows_its_own_pods_alone() {
    let mut model = Model::new("n1");
    read_str(CLUSTER).into_iter().for_each(|read| model.take(Event::Applied(read.unwrap())));
    assert!(ask(&Snapshot::of_agent(&model), CART, false).notes[0].contains("the pods of node n1 alone"));
    read_str(CLOSED).into_iter().for_each(|read| model.take(Event::Applied(read.unwrap())));
    assert_eq!(ask(&Snapshot::of_agent(&model), CART, false).notes, Vec::<String>::new());
}
