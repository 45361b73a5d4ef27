//! ClusterNetworkPolicy: upstream's user stories, what is around them, and grids that nobody wrote by hand.

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use fairlead_tests::{Ping, Probe, ProbeError, Probes, Via};
use serde_json::Value;

use crate::grid::{Port, Turn, turn, verdict};

/// A file from the field, with the grid's names instead of its own.
fn from_the_field(file: &str, names: &[(&str, &str)]) -> String {
    let path = fairlead_tree::path("tests/data/cluster-network-policy").unwrap().join(file);
    let text = fs::read_to_string(path).unwrap();
    names.iter().fold(text, |text, (theirs, ours)| {
        assert!(text.contains(theirs), "{file} has no {theirs}");
        text.replace(theirs, ours)
    })
}

fn story(turn: &Turn, number: u32, names: &[(&str, &str)]) {
    turn.cluster_policy(&from_the_field(&format!("user-stories/user-story-{number}.yaml"), names));
}

/// A policy of the cluster for the pods of a namespace, or of all.
fn policy(name: &str, place: &str, namespace: &str, rules: &str) -> String {
    let labels = if namespace.is_empty() { String::new() } else { format!("matchLabels: {{ns: '{namespace}'}}") };
    format!(
        "{{apiVersion: policy.networking.k8s.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: {name}}}, spec: \
         {{{place}, subject: {{namespaces: {{{labels}}}}}, {rules}}}}}"
    )
}

#[test]
fn p54_p57_user_story_1_no_other_namespace_gets_to_the_sensitive_one() {
    let turn = turn();
    // Its own policy, which would allow everything, has no say.
    turn.policy("x/open", "{podSelector: {}, ingress: [{}]}");
    story(&turn, 1, &[("sensitive-ns", "x")]);
    turn.matrix(|cell| cell.server_ns() != "x" || cell.is_self());
}

#[test]
fn p54_p60_user_story_2_monitoring_and_dns_are_for_all() {
    let turn = turn();
    turn.policy("x/closed", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    story(&turn, 2, &[("monitoring-ns", "'y'"), ("kube-system", "z"), ("app: kube-dns", "pod: a")]);
    turn.matrix(|cell| {
        let out = cell.client_ns() != "x" || cell.to == "z/a";
        let into = cell.server_ns() != "x" || cell.client_ns() == "y";
        cell.is_self() || (out && into)
    });
}

#[test]
fn p55_p59_user_story_3_a_public_service_is_left_to_the_namespace() {
    let turn = turn();
    let names = [
        ("bar-ns-1", "'y'"),
        ("app: svc-pub", "pod: a"),
        ("8080", "80"),
        ("web-alt", "web"),
        ("number: 53", "number: 80"),
    ];
    story(&turn, 3, &names);
    turn.cluster_policy(&policy(
        "rest",
        "tier: Admin, priority: 30",
        "",
        "egress: [{action: Deny, to: [{namespaces: {}}]}]",
    ));
    turn.policy("x/out", "{podSelector: {}, policyTypes: [Egress]}");
    turn.matrix(|cell| {
        let passed = cell.to == "y/a" && cell.port != Port::Tcp81;
        cell.is_self() || (passed && cell.client_ns() != "x")
    });
}

#[test]
fn p56_user_story_5_zero_trust_is_the_default() {
    let turn = turn();
    story(&turn, 5, &[]);
    turn.policy("x/open", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: 'y'}}}]}]}");
    turn.matrix(|cell| cell.is_self() || (cell.server_ns() == "x" && cell.client_ns() == "y"));
}

#[test]
fn p58_p62_networks_nodes_and_what_they_say_of_connections_that_are_open() {
    const PORT: u16 = 9092;
    let turn = turn();
    let client = turn.pod("x/a");
    let other = turn.lab().nodes().iter().find(|node| node.name() != client.node().name()).unwrap();
    other.serve(other.name(), &[PORT], &[PORT]);
    let silence = Duration::from_millis(300);
    let server = turn.pod("y/b");
    let mut open = client.connect(&Probe::tcp(server.v4(), 80).timeout(silence)).unwrap();
    open.exchange(10, 0).unwrap();
    let reaches = |allow: bool| {
        for ip in other.ips() {
            turn.lab().wait_until("nodes meet the policy", || {
                verdict(&client.via(Via::Socket), &Probe::tcp(ip, PORT), allow, Some(other.name()))
            });
        }
    };
    reaches(true);
    let place = "tier: Admin, priority: 5";
    turn.cluster_policy(&policy("nodes", place, "x", "egress: [{action: Deny, to: [{nodes: {}}]}]"));
    reaches(false);
    // Pods are no nodes; and their node reaches them whatever is denied.
    open.exchange(10, 0).unwrap();
    let rule = format!("egress: [{{action: Deny, to: [{{networks: ['{}/32']}}]}}]", server.v4());
    turn.cluster_policy(&policy("nodes", place, "x", &rule));
    reaches(true);
    turn.lab().wait_until("the connection is cut", || match open.exchange(10, 0) {
        Err(ProbeError::TimedOut) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let ping = client.ping(&Ping::new(server.v4()).timeout(silence));
    assert!(matches!(ping, Err(ProbeError::TimedOut)), "{ping:?}");
    client.ping(&Ping::new(server.v6())).unwrap();
    turn.cluster_policy(&policy("all", place, "", "ingress: [{action: Deny, from: [{namespaces: {}, foo: {}}]}]"));
    turn.lab()
        .wait_until("everything is denied", || verdict(other.vantage(), &Probe::tcp(client.v4(), 80), false, None));
    client.node().ping(&Ping::new(client.v4())).unwrap();
    turn.remove("all");
    turn.remove("nodes");
    turn.lab().wait_until("nothing is denied", || {
        verdict(&client.via(Via::Socket), &Probe::tcp(server.v4(), 80), true, Some("y/b"))
    });
}

#[test]
fn p61_a_pod_meets_its_policies_on_the_way_through_its_service() {
    let turn = turn();
    let pod = turn.pod("x/a");
    let own = |allow: bool| {
        for ip in turn.service("x/a") {
            let probe = Probe::tcp(ip, 8080);
            turn.lab().wait_until("its service", || verdict(&pod.via(Via::Packet), &probe, allow, Some("x/a")));
        }
        assert_eq!(pod.via(Via::Packet).tcp(pod.v4(), 80).unwrap().server.pod, "x/a", "its own address");
    };
    own(true);
    turn.cluster_policy(&policy(
        "own",
        "tier: Admin, priority: 5",
        "x",
        "ingress: [{action: Deny, from: [{namespaces: {}}]}]",
    ));
    own(false);
}

#[test]
fn p63_p64_p65_p68_what_is_invalid_is_closed_and_said_and_explained() {
    let turn = turn();
    let node = turn.pod("x/a").node();
    turn.cluster_policy(&from_the_field("invalid/invalid-ingress-action.yaml", &[("sensitive-ns", "x")]));
    let explain = |from: &str, to: &str| {
        let ended = node.fairlead(&["-o", "json", "policy", "explain", "--from", from, "--to", to]);
        let said: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
        said
    };
    let to = turn.pod("x/a").v4().to_string();
    let said = turn.lab().wait_until("it is explained, and in force", || {
        let said = explain("192.0.2.77", &format!("{to}:80"));
        if said["verdict"] == "dropped" && said["in_force"] == true { Ok(said) } else { Err(said) }
    });
    let line =
        "denied by ClusterNetworkPolicy invalid-ingress-action of the Admin tier, ingress[0] \"select-all-deny-all\"";
    assert!(said["lines"].to_string().replace('\\', "").contains(line), "{said}");
    let status = node.fairlead(&["status"]).stdout;
    for part in ["cluster network policies", "namespaceSelector: unknown field"] {
        assert!(status.contains(part), "{part}: {status}");
    }
    turn.remove("invalid-ingress-action");
    turn.cluster_policy(&policy(
        "pass",
        "tier: Admin, priority: 1",
        "x",
        "ingress: [{action: Pass, from: [{namespaces: {}}]}]",
    ));
    turn.policy("x/in", "{podSelector: {}, ingress: [{}]}");
    let said = turn.lab().wait_until("what was passed is explained", || {
        let said = explain("x/b", "x/a:80");
        if said["in_force"] == true && said["lines"].to_string().contains("passed by") { Ok(said) } else { Err(said) }
    });
    let line = "passed by ClusterNetworkPolicy pass of the Admin tier, ingress[0], then allowed by x/in ingress[0]";
    assert!(said["lines"].to_string().contains(line), "{said}");
}

/// Numbers that look random and are the same each time (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }

    /// Labels that some namespaces have, and some pods.
    fn selectors(&mut self) -> (&'static str, &'static str) {
        let namespaces =
            ["{}", "{matchLabels: {ns: x}}", "{matchExpressions: [{key: ns, operator: NotIn, values: ['y']}]}"];
        let pods = ["{}", "{matchLabels: {pod: a}}", "{matchExpressions: [{key: pod, operator: In, values: [b, c]}]}"];
        (self.one(&namespaces), self.one(&pods))
    }

    fn rules(&mut self, direction: &str, networks: &[String]) -> String {
        let list = if direction == "ingress" { "from" } else { "to" };
        let mut text = format!("{direction}: [");
        for _ in 0..=self.below(3) {
            let action = self.one(&["Accept", "Deny", "Pass"]);
            let (namespaces, pods) = self.selectors();
            let network = self.below(networks.len() as u64) as usize;
            let (peer, names) = match self.below(if direction == "ingress" { 2 } else { 3 }) {
                0 => (format!("namespaces: {namespaces}"), true),
                1 => (format!("pods: {{namespaceSelector: {namespaces}, podSelector: {pods}}}"), true),
                _ => (format!("networks: ['{}']", networks[network]), false),
            };
            let ports = self.one(&[
                "",
                ", protocols: [{tcp: {destinationPort: {number: 81}}}]",
                ", protocols: [{udp: {destinationPort: {number: 80}}}, {tcp: {destinationPort: {range: {start: 70, end: 80}}}}]",
                ", protocols: [{destinationNamedPort: web}]",
            ]);
            let ports = if names || !ports.contains("Named") { ports } else { "" };
            write!(text, "{{action: {action}, {list}: [{{{peer}}}]{ports}}}, ").unwrap();
        }
        text + "]"
    }
}

/// Twelve grids of policies of both kinds: every cell is as the model says. `cargo xtask test --full` runs it.
#[test]
#[ignore = "takes a minute: cargo xtask test --full"]
fn p54_p55_p56_generated_policies_are_as_the_model_says() {
    let turn = turn();
    let networks: Vec<String> = ["x/a", "y/b", "z/c"]
        .iter()
        .flat_map(|key| [format!("{}/32", turn.pod(key).v4()), format!("{}/128", turn.pod(key).v6())])
        .chain(["0.0.0.0/0".to_owned(), "::/0".to_owned()])
        .collect();
    for seed in 0..12 {
        let mut n = Numbers(seed);
        let mut names = Vec::new();
        for number in 0..4 {
            let tier = n.one(&["Admin", "Admin", "Baseline"]);
            let place = format!("tier: {tier}, priority: {}", n.below(3));
            let namespace = n.one(&["", "x", "y", "z"]);
            let rules = format!("{}, {}", n.rules("ingress", &networks), n.rules("egress", &networks));
            turn.cluster_policy(&policy(&format!("c{number}"), &place, namespace, &rules));
            names.push(format!("c{number}"));
        }
        for namespace in ["x", "y"] {
            let (peers, pods) = n.selectors();
            let spec = format!("{{podSelector: {pods}, ingress: [{{from: [{{namespaceSelector: {peers}}}]}}]}}");
            let key = format!("{namespace}/p");
            turn.policy(&key, &spec);
            names.push(key);
        }
        turn.matrix_by_model();
        names.iter().for_each(|name| turn.remove(name));
    }
}
