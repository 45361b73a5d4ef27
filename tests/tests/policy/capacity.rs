//! Policies that do not fit: their pods are cut off, and nobody else notices.

use std::fmt::Write;

use fairlead_tests::{Drops, Lab, Node, Probe, ProbeError, Probes, ServiceManifest, binary};
use serde_json::Value;

/// Elements of `CIDRS`, and rules of a policy set.
const PREFIXES: u32 = 16_384;
const RULES: u32 = 2048;

fn policy(key: &str, rules: &str) -> String {
    let (namespace, name) = key.split_once('/').expect("a namespace and a name");
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: {namespace}, name: {name}}}, \
         spec: {{podSelector: {{}}, policyTypes: [Ingress], ingress: [{rules}]}}}}"
    )
}

/// A rule for each port from 1 on.
fn many_rules() -> String {
    (1..=RULES + 1).fold(String::new(), |mut text, port| {
        write!(text, "{{ports: [{{port: {port}}}]}},").expect("memory does not fail");
        text
    })
}

/// One rule with that many prefixes and one more, of which all of 0.0.0.0/0 is the first.
fn many_blocks(count: u32) -> String {
    let blocks = (0..count).fold(String::new(), |mut text, n| {
        write!(text, "{{ipBlock: {{cidr: 100.{}.{}.0/24}}}},", n >> 8, n & 255).expect("memory does not fail");
        text
    });
    format!("{{from: [{{ipBlock: {{cidr: 0.0.0.0/0}}}},{blocks}]}}")
}

/// What the status says of each pod that is cut off.
fn cut_off(node: &Node) -> Vec<(String, String)> {
    let status = node.fairlead(&["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&status.stdout).unwrap_or_else(|error| panic!("{error}: {status:?}"));
    let pods = status["pods"].as_array().expect("the pods of the node");
    let of_pod = |pod: &Value| {
        let name = pod["pod"].as_str().expect("its name").to_owned();
        let texts = pod["cut_off"].as_array().expect("what is cut off").clone();
        texts.into_iter().map(move |text| (name.clone(), text.as_str().expect("a text").to_owned()))
    };
    pods.iter().flat_map(of_pod).collect()
}

fn metrics(node: &Node) -> String {
    let lab = binary("fairlead-lab").expect("it is built");
    let request = "GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    node.run(&[lab.to_str().expect("a path"), "say", "127.0.0.1:10249", request]).stdout
}

fn metric(node: &Node, line: &str) -> Result<(), String> {
    let text = metrics(node);
    let name = line.split([' ', '{']).next().unwrap_or_default();
    if text.lines().any(|other| other == line) {
        return Ok(());
    }
    Err(text.lines().filter(|other| other.starts_with(name)).collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_policy_that_does_not_fit_cuts_off_its_pods_and_nobody_else() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let pod = |key: &str| node.pod(key).tcp(80).tcp(81).start();
    let (big, many, client, server) = (pod("big/a"), pod("many/a"), pod("fine/client"), pod("fine/server"));
    let service =
        |endpoint| ServiceManifest::new("fine/s").ips(&["10.96.7.7"]).tcp("http", 8080, 80).endpoint(endpoint).yaml();
    let opens = |ip: std::net::IpAddr, port| client.probe(&Probe::tcp(ip, port)).map(|reply| reply.server.pod);
    let refused = |what: &str, ip: std::net::IpAddr, port| {
        lab.wait_until(what, || match opens(ip, port) {
            Err(ProbeError::TimedOut) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    lab.apply(&service(&server));
    for pod in [&big, &many, &server] {
        lab.wait_until("everything is open", || opens(pod.v4().into(), 80));
    }

    lab.apply(&policy("big/p", &many_rules()));
    lab.apply(&policy("many/p", &many_blocks(PREFIXES)));
    for pod in [&big, &many] {
        for ip in pod.ips() {
            refused("a pod whose policy does not fit is cut off", ip, 80);
        }
        assert_eq!(
            pod.probe(&Probe::tcp(server.v4(), 80)).unwrap().server.pod,
            "fine/server",
            "the other direction is open"
        );
    }
    // It is told when it is done.
    let said = lab.wait_until("both are told of", || match cut_off(node) {
        said if said.iter().map(|(pod, _)| pod.as_str()).eq(["big/a", "many/a"]) => Ok(said),
        other => Err(other),
    });
    assert!(said[0].1.contains("big/p") && said[0].1.contains("2049 rules"), "{said:?}");
    assert!(said[1].1.contains("many/p") && said[1].1.contains("CIDRS"), "{said:?}");
    lab.wait_until("two are counted", || metric(node, "fairlead_pods_cut_off{direction=\"ingress\"} 2"));
    let drops = Drops::of(node).counts();
    assert!(drops.get("cut_off").is_some_and(|count| *count > 0), "{drops:?}");
    assert_eq!(drops.get("ingress_policy").copied().unwrap_or_default(), 0, "no policy denied anything: {drops:?}");
    let explained = node.fairlead(&["policy", "explain", "--from", "fine/client", "--to", "big/a:80"]);
    assert!(explained.stdout.contains("2049 rules"), "{explained:?}");

    // Everybody else goes on: policies, services, pods.
    lab.apply(&policy("fine/p", "{ports: [{port: 80}]}"));
    refused("another policy comes into force", server.v4().into(), 81);
    assert_eq!(opens(server.v6().into(), 80).unwrap(), "fine/server");
    let late = pod("fine/late");
    lab.apply(&service(&late));
    let vip: std::net::IpAddr = "10.96.7.7".parse().unwrap();
    lab.wait_until("a service follows its endpoints", || match opens(vip, 8080).as_deref() {
        Ok("fine/late") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let another = pod("big/b");
    lab.wait_until("a pod that is cut off is added all the same", || match cut_off(node) {
        said if said.iter().any(|(pod, _)| pod == "big/b") => Ok(()),
        other => Err(other),
    });
    refused("it is cut off from the beginning", another.v4().into(), 80);
    metric(node, "fairlead_plan_failures_total 0").unwrap();

    // An agent that starts anew decides the same, and who was there is not disturbed.
    node.agent().kill9();
    node.start_agent();
    lab.wait_until("an agent that starts anew decides the same", || match cut_off(node).len() {
        3 => Ok(()),
        other => Err(format!("{other} are cut off")),
    });
    assert_eq!(opens(server.v4().into(), 80).unwrap(), "fine/server");
    refused("it stays cut off", many.v4().into(), 80);

    lab.apply(&policy("big/p", "{ports: [{port: 80}]}"));
    lab.delete("NetworkPolicy", "many/p");
    for pod in [&big, &another, &many] {
        lab.wait_until("it heals when the policy fits", || opens(pod.v4().into(), 80));
    }
    lab.wait_until("nobody is told of", || match cut_off(node) {
        said if said.is_empty() => Ok(()),
        other => Err(other),
    });
    lab.wait_until("nobody is counted", || metric(node, "fairlead_pods_cut_off{direction=\"ingress\"} 0"));
}

#[test]
fn a_table_that_is_80_percent_full_is_told_of_once_until_there_is_room() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let _pod = node.pod("many/a").tcp(80).start();
    let said = "CIDRS more than 80 % full";
    let told = |text: &str| node.agent().log().lines().filter(|line| line.contains(text)).count();
    let holds = |blocks: u32, is_full: bool| {
        lab.apply(&policy("many/p", &many_blocks(blocks)));
        lab.wait_until(&format!("{blocks} prefixes of {PREFIXES}"), || {
            let text = metrics(node);
            let entries = text.lines().find_map(|line| line.strip_prefix("fairlead_table_entries{table=\"CIDRS\"} "));
            // The node's own come on top.
            let there = entries
                .and_then(|count| count.parse().ok())
                .is_some_and(|count| (blocks..blocks + 20).contains(&count));
            let full = text.lines().any(|line| line == "fairlead_table_nearly_full{table=\"CIDRS\"} 1");
            if there && full == is_full { Ok(()) } else { Err(format!("{entries:?} prefixes, full: {full}")) }
        });
        lab.wait_until(&format!("{blocks} prefixes are told of"), || match node.fairlead(&["status"]).stdout {
            status if status.contains(said) == is_full => Ok(()),
            status => Err(status),
        });
    };
    holds(PREFIXES * 79 / 100, false);
    holds(PREFIXES * 81 / 100, true);
    holds(PREFIXES * 90 / 100, true);
    holds(PREFIXES * 77 / 100, true);
    assert_eq!((told(said), told("resolved")), (1, 0), "{}", node.agent().log());
    holds(PREFIXES / 2, false);
    lab.wait_until("each is told once", || match (told(said), told("resolved")) {
        (1, 1) => Ok(()),
        other => Err((other, node.agent().log())),
    });
    assert_eq!(cut_off(node), []);
}
