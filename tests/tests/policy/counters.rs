//! What rules have decided on, as `fairlead policy list` has it beside the packets: P71 to P73.

use std::time::Duration;

use fairlead_tests::{Lab, Node, Pod, Probe, ProbeError, Probes};
use serde_json::Value;

/// How long a packet is waited for that does not come.
const PATIENCE: Duration = Duration::from_millis(300);

fn policy(rules: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: shop, name: web}}, \
         spec: {{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Ingress], ingress: [{rules}]}}}}"
    )
}

fn list(node: &Node, more: &[&str]) -> Vec<Value> {
    let ended = node.fairlead(&[&["-o", "json", "policy", "list"], more].concat());
    let said: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    assert_eq!(said["kind"], "Policies");
    said["items"].as_array().expect("rules").clone()
}

/// Flows and denied packets of the rules of a policy, by their places; that of no rule comes last.
fn counts(node: &Node, policy: &str) -> Vec<(u64, u64)> {
    let rules = list(node, &[]).into_iter().filter(|rule| rule["policy"] == policy);
    rules.map(|rule| (rule["flows"].as_u64().unwrap(), rule["denied"].as_u64().unwrap())).collect()
}

fn refused(client: &Pod, server: &Pod, port: u16) {
    for ip in server.ips() {
        assert_eq!(client.probe(&Probe::tcp(ip, port).timeout(PATIENCE)), Err(ProbeError::TimedOut));
    }
}

#[test]
fn p71_p73_rules_count_flows_and_denied_packets_whatever_becomes_of_their_policy_and_the_agent() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let client = node.pod("shop/client").label("app", "client").start();
    let web = node.pod("shop/web").label("app", "web").tcp(80).tcp(81).udp(53).start();
    let (at_80, at_81, at_53) =
        ("{ports: [{port: 80}]}", "{ports: [{port: 81}]}", "{ports: [{port: 53, protocol: UDP}]}");
    lab.apply(&policy(&format!("{at_80}, {at_53}")));
    lab.wait_until("the policy is in force", || match client.probe(&Probe::tcp(web.v4(), 81).timeout(PATIENCE)) {
        Err(error) => Ok(error),
        Ok(reply) => Err(reply.server.pod),
    });
    let before = counts(node, "shop/web");
    assert_eq!((before.len(), before[0], before[1]), (3, (0, 0), (0, 0)), "{before:?}");

    // A connection is one flow, whatever is sent by it.
    for ip in web.ips() {
        let mut connection = client.connect(&Probe::tcp(ip, 80).timeout(PATIENCE)).unwrap();
        for _ in 0..5 {
            connection.exchange(1000, 1000).unwrap();
        }
        client.udp(ip, 53).unwrap();
        client.udp(ip, 53).unwrap();
    }
    refused(&client, &web, 81);
    let now = counts(node, "shop/web");
    assert_eq!((now[0], now[1], now[2].0), ((2, 0), (4, 0), 0), "{now:?}");
    assert!(now[2].1 >= before[2].1 + 2, "a SYN of each family at least: {before:?}, {now:?}");

    // The rules get other places and another set: their counts go with them.
    lab.apply(&policy(&format!("{at_81}, {at_53}, {at_80}")));
    for ip in web.ips() {
        lab.wait_until("the policy is in force", || client.probe(&Probe::tcp(ip, 81).timeout(PATIENCE)));
    }
    // The first packets may pass before the counts of the set that goes are added.
    let moved = lab.wait_until("counts have gone with their rules", || match counts(node, "shop/web") {
        all if all.len() == 4 && all[..3] == [(2, 0), (4, 0), (2, 0)] && all[3].0 == 0 && all[3].1 >= now[2].1 => {
            Ok(all)
        }
        other => Err((now.clone(), other)),
    });

    // So they do when an agent starts anew, also what was counted under a set that is gone.
    node.agent().kill9();
    client.tcp(web.v4(), 80).unwrap();
    node.start_agent();
    node.agent().wait_ready();
    let again = lab.wait_until("all is counted", || match counts(node, "shop/web") {
        counts if counts.len() == 4 && counts[2].0 == 3 => Ok(counts),
        other => Err(other),
    });
    assert_eq!((again[0], again[1], again[2]), ((2, 0), (4, 0), (3, 0)), "{again:?}");
    assert!(again[3].1 >= moved[3].1, "{again:?}");

    // A rule that has matched nothing is found.
    lab.apply(&policy(&format!("{at_80}, {{from: [{{podSelector: {{matchLabels: {{app: nobody}}}}}}]}}")));
    let stale = lab.wait_until("the new rule is listed", || match list(node, &["--stale"]) {
        rules if rules.len() == 1 && rules[0]["rule"] == 1 => Ok(rules),
        rules => Err(rules),
    });
    assert!(stale[0]["matches"].as_str().unwrap().contains("app=nobody"), "{stale:?}");
    assert!(stale[0]["last_seconds"].is_null() && stale[0]["since_seconds"].is_u64(), "{stale:?}");
    assert_eq!(list(node, &["--stale=1"]), Vec::<Value>::new(), "none is counted for a day");

    // Of one pod, and for a person.
    assert_eq!(list(node, &["--pod", "shop/client"]), Vec::<Value>::new(), "no policy selects it");
    assert_eq!(list(node, &["--pod", "shop/web"]).len(), 3);
    let nobody = node.fairlead(&["policy", "list", "--pod", "shop/nobody"]);
    assert!(nobody.code == 2 && nobody.stderr.contains("shop/nobody"), "{nobody:?}");
    let wide = node.fairlead(&["-o", "wide", "policy", "list"]).stdout;
    assert!(wide.contains("MATCHES") && wide.contains("TCP 80"), "{wide}");
    assert!(node.fairlead(&["-o", "yaml", "policy", "list"]).stdout.contains("policy: shop/web"));

    // A policy that is deleted and made again begins anew.
    lab.delete("NetworkPolicy", "shop/web");
    lab.wait_until("nothing judges pods", || match list(node, &[]) {
        rules if rules.is_empty() => Ok(()),
        rules => Err(rules),
    });
}

#[test]
fn p71_rules_of_the_tiers_are_counted_with_those_that_pass() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let client = node.pod("shop/client").start();
    let web = node.pod("shop/web").label("app", "web").tcp(80).tcp(81).start();
    lab.apply(
        "{apiVersion: policy.networking.k8s.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {name: guard}, spec: \
         {tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}, \
         ingress: [{action: Pass, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}, \
         {action: Deny, from: [{namespaces: {}}]}]}}",
    );
    lab.wait_until("the policy is in force", || match client.probe(&Probe::tcp(web.v4(), 81).timeout(PATIENCE)) {
        Err(error) => Ok(error),
        Ok(reply) => Err(reply.server.pod),
    });
    let before = counts(node, "guard");
    for ip in web.ips() {
        client.tcp(ip, 80).unwrap();
    }
    refused(&client, &web, 81);
    let now = counts(node, "guard");
    assert_eq!((now.len(), now[0]), (2, (2, 0)), "{now:?}");
    assert_eq!(now[1].0, 0);
    assert!(now[1].1 >= before[1].1 + 2, "{before:?}, {now:?}");
}

#[test]
fn p71_each_of_a_thousand_rules_has_its_own_count() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let client = node.pod("shop/client").start();
    let web = node.pod("shop/web").label("app", "web").tcp(900).start();
    let rules: Vec<_> = (1..=1000).map(|port| format!("{{ports: [{{port: {port}}}]}}")).collect();
    lab.apply(&policy(&rules.join(", ")));
    let items = lab.wait_until("every rule is counted", || match list(node, &[]) {
        items if items.len() == 1001 && items.iter().all(|rule| rule["since_seconds"].is_u64()) => Ok(items),
        items => Err(items.iter().filter(|rule| rule["since_seconds"].is_null()).count()),
    });
    assert!(items.iter().all(|rule| rule["flows"] == 0), "{items:?}");
    client.tcp(web.v4(), 900).unwrap();
    let met: Vec<_> = list(node, &["--pod", "shop/web"]).into_iter().filter(|rule| rule["flows"] != 0).collect();
    assert_eq!((met.len(), &met[0]["rule"], &met[0]["flows"]), (1, &Value::from(899), &Value::from(1)), "{met:?}");
}
