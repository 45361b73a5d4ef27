//! The plugin and the real agent, as a container runtime calls them. The plugin by itself is tested beside its source.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use fairlead_tests::{Ended, Lab, Node, Pod, Probe, Probes, binary};
use serde_json::{Value, json};

/// The lab of all tests, which run one after the other.
fn lab() -> MutexGuard<'static, Lab> {
    static LAB: OnceLock<Mutex<Lab>> = OnceLock::new();
    LAB.get_or_init(|| Mutex::new(Lab::builder().nodes(1).start())).lock().unwrap_or_else(PoisonError::into_inner)
}

fn call(pod: &Pod, command: &str, extra: &Value) -> Ended {
    let env = pod.cni_environment(command);
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut conf = json!({"cniVersion": "1.1.0", "name": "fairlead", "type": "fairlead-cni"});
    for (key, value) in extra.as_object().into_iter().flatten() {
        conf[key] = value.clone();
    }
    pod.node().cni(&env, &conf.to_string())
}

fn error(ended: &Ended) -> Value {
    assert!(!ended.ok(), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("an error is JSON: {ended:?}"))
}

/// The pods that the agent has.
fn pods(node: &Node) -> Vec<String> {
    let status: Value = serde_json::from_str(&node.fairlead(&["status", "-o", "json"]).stdout).unwrap();
    status["pods"].as_array().unwrap().iter().map(|pod| pod["pod"].as_str().unwrap().to_owned()).collect()
}

/// The pods' links that the node has.
fn links(node: &Node) -> usize {
    node.must_run(&["ip", "-o", "link"]).lines().filter(|line| line.contains(": fl")).count()
}

/// The pinned links that the node has.
fn pins(node: &Node) -> usize {
    node.must_run(&["ls", "/sys/fs/bpf/fairlead/links"]).lines().count()
}

#[test]
fn c1_c8_add_gives_both_families_and_check_agrees_until_something_is_missing() {
    let lab = lab();
    let pod = lab.node("node-1").pod("cni/checked").tcp(80).start();
    let result = pod.result();
    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(result["ips"].as_array().unwrap().len(), 2, "{result}");
    let inside = result["interfaces"].as_array().unwrap().iter().find(|each| each["name"] == "eth0").unwrap();
    assert!(inside["sandbox"].as_str().unwrap().ends_with("/cni_checked"), "{result}");
    let checked = call(&pod, "CHECK", &json!({"prevResult": result}));
    assert!(checked.ok(), "{checked:?}");
    pod.must_run(&["ip", "addr", "del", &format!("{}/32", pod.v4()), "dev", "eth0"]);
    let error = error(&call(&pod, "CHECK", &json!({"prevResult": result})));
    assert!(error["msg"].as_str().unwrap().contains(&pod.v4().to_string()), "{error}");
    pod.delete();
}

#[test]
fn c2_add_twice_is_refused_and_the_first_stays() {
    let lab = lab();
    let node = lab.node("node-1");
    let pod = node.pod("cni/twice").tcp(80).start();
    let before = links(node);
    let error = error(&call(&pod, "ADD", &json!({})));
    assert!(error["code"].as_u64().is_some_and(|code| code > 0), "{error}");
    assert!(!error["msg"].as_str().unwrap().is_empty(), "{error}");
    assert_eq!(links(node), before);
    for ip in pod.ips() {
        assert_eq!(node.tcp(ip, 80).unwrap().server.pod, "cni/twice");
    }
    pod.delete();
}

#[test]
fn c5_del_frees_everything_and_can_be_repeated() {
    let lab = lab();
    let node = lab.node("node-1");
    let pod = node.pod("cni/gone").start();
    let (before, ip) = (links(node), pod.v4());
    let pinned = lab.wait_until("the pod has its links", || {
        let pins = node.must_run(&["ls", "/sys/fs/bpf/fairlead/links"]);
        let interfaces = pod.result()["interfaces"].as_array().unwrap().iter();
        let mut host = interfaces.filter(|each| each["sandbox"].as_str().unwrap_or_default().is_empty());
        let link = host.next().unwrap()["name"].as_str().unwrap();
        let all = ["in", "out"].iter().all(|way| pins.contains(&format!("tcx_{way}_{link}")));
        if all { Ok(pins.lines().count()) } else { Err(pins) }
    });
    for _ in 0..2 {
        let ended = call(&pod, "DEL", &json!({}));
        assert!(ended.ok() && ended.stdout.is_empty(), "{ended:?}");
    }
    lab.wait_until("the link is gone", || if links(node) < before { Ok(()) } else { Err(links(node)) });
    assert!(!pods(node).contains(&"cni/gone".to_owned()));
    lab.wait_until("its programs are gone with its link", || match pins(node) {
        now if now + 2 == pinned => Ok(()),
        now => Err(now),
    });
    assert!(!node.must_run(&["ip", "route"]).contains(&ip.to_string()), "its route is gone");
    pod.delete();
}

#[test]
fn c49_add_right_after_del_gets_the_same_address_if_it_asks_for_it() {
    let lab = lab();
    let node = lab.node("node-1");
    let pod = node.pod("cni/same").tcp(80).start();
    let ips: Vec<String> = pod.ips().map(|ip| ip.to_string()).into();
    for _ in 0..3 {
        let deleted = call(&pod, "DEL", &json!({}));
        assert!(deleted.ok(), "{deleted:?}");
        let added = call(&pod, "ADD", &json!({"runtimeConfig": {"ips": ips}}));
        assert!(added.ok(), "{added:?}");
        for ip in pod.ips() {
            assert_eq!(node.tcp(ip, 80).unwrap().server.pod, "cni/same");
        }
    }
    pod.delete();
}

#[test]
fn c49_a_new_container_gets_the_addresses_of_one_that_is_still_being_removed() {
    let lab = lab();
    let node = lab.node("node-1");
    let (old, place) = (node.pod("cni/renewed").start(), node.pod("cni/place").tcp(80).start());
    // A namespace for the new container.
    assert!(call(&place, "DEL", &json!({})).ok());
    lab.wait_until("the namespace is free", || match place.run(&["ip", "link", "show", "eth0"]) {
        ended if ended.ok() => Err(ended.stdout),
        _ => Ok(()),
    });
    let netns = place.cni_environment("ADD").into_iter().find(|(name, _)| *name == "CNI_NETNS").unwrap().1;
    let renewed = |command: &str| {
        let mut env = old.cni_environment(command);
        for (name, value) in &mut env {
            match *name {
                "CNI_CONTAINERID" => *value += "a",
                "CNI_NETNS" => value.clone_from(&netns),
                _ => {}
            }
        }
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let ips: Vec<String> = old.ips().map(|ip| ip.to_string()).into();
        let conf =
            json!({"cniVersion": "1.1.0", "name": "fairlead", "type": "fairlead-cni", "runtimeConfig": {"ips": ips}});
        node.cni(&env, &conf.to_string())
    };
    assert!(call(&old, "DEL", &json!({})).ok());
    let added = renewed("ADD");
    assert!(added.ok(), "{added:?}");
    for ip in old.ips() {
        assert_eq!(node.tcp(ip, 80).unwrap().server.pod, "cni/place");
    }
    let deleted = renewed("DEL");
    assert!(deleted.ok(), "{deleted:?}");
    old.delete();
    place.delete();
}

#[test]
fn c49_links_that_a_killed_agent_has_left_go_before_the_next_is_ready() {
    let lab = lab();
    let node = lab.node("node-1");
    let pod = node.pod("cni/left").tcp(80).start();
    let before = links(node);
    let stay = binary("fairlead-lab").unwrap();
    let socket = node.spawn("stay-left", &[stay.to_str().unwrap(), "stay", &format!("{}:80", pod.v4())], &[]);
    lab.wait_until("the node's process is connected", || match socket.log() {
        log if log.starts_with("connected") => Ok(()),
        log => Err(log),
    });
    node.agent().kill9();
    // As the agent leaves it that has answered a DEL and is killed then.
    let container = pod.cni_environment("DEL").into_iter().find(|(name, _)| *name == "CNI_CONTAINERID").unwrap().1;
    let interfaces = pod.result()["interfaces"].as_array().unwrap().iter();
    let mut host = interfaces.filter(|each| each["sandbox"].as_str().unwrap_or_default().is_empty());
    let link = host.next().unwrap()["name"].as_str().unwrap().to_owned();
    let entry = json!({"containerID": container, "ifname": "eth0"});
    let queue = format!("mkdir -p /run/fairlead/cni-queue && echo '{entry}' > /run/fairlead/cni-queue/{link}.json");
    node.must_run(&["sh", "-c", &queue]);
    // Without its Node object an agent does not get ready.
    lab.delete("Node", node.name());
    let agent = node.launch_agent();
    lab.wait_until("the link is gone", || if links(node) < before { Ok(()) } else { Err(links(node)) });
    lab.apply(&node.manifest());
    agent.wait_ready();
    lab.wait_until("the agent has let go of the pod", || match pods(node) {
        pods if pods.contains(&"cni/left".to_owned()) => Err(pods),
        _ => Ok(()),
    });
    // What leads to it is looked after as if this agent had known it.
    assert!(socket.wait(Duration::from_secs(30)).is_some(), "{}", socket.log());
    assert_eq!(socket.log().lines().last(), Some("ended: ConnectionAborted"));
    pod.delete();
}

#[test]
fn c7_del_without_an_agent_is_done_when_it_is_back() {
    let lab = lab();
    let node = lab.node("node-1");
    let (stays, goes) = (node.pod("cni/stays").tcp(80).start(), node.pod("cni/goes").start());
    let (ip, before) = (goes.v4(), links(node));
    node.agent().kill9();
    goes.delete();
    node.start_agent();
    lab.wait_until("the agent has let go of the pod", || match pods(node) {
        pods if pods.contains(&"cni/goes".to_owned()) => Err(pods),
        _ => Ok(()),
    });
    lab.wait_until("the link is gone", || if links(node) < before { Ok(()) } else { Err(links(node)) });
    assert!(!node.must_run(&["ip", "route"]).contains(&ip.to_string()));
    assert_eq!(node.tcp(stays.v6(), 80).unwrap().server.pod, "cni/stays");
    let next = node.pod("cni/next").start();
    assert_ne!(next.v4(), stays.v4());
    next.delete();
    stays.delete();
}

#[test]
fn c9_c11_version_and_status_answer() {
    let lab = lab();
    let node = lab.node("node-1");
    let version = node.cni(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion": "1.1.0"}"#);
    let answer: Value = serde_json::from_str(&version.stdout).unwrap();
    assert!(answer["supportedVersions"].as_array().unwrap().contains(&json!("1.1.0")), "{answer}");
    let conf = r#"{"cniVersion": "1.1.0", "name": "fairlead", "type": "fairlead-cni"}"#;
    let status = node.cni(&[("CNI_COMMAND", "STATUS")], conf);
    assert!(status.ok(), "{status:?}");
    let bad = error(&node.cni(&[("CNI_COMMAND", "ADD")], conf));
    assert_eq!(bad["code"], 4, "{bad}");
    let bad = error(&node.cni(&[("CNI_COMMAND", "STATUS")], "{nonsense"));
    assert_eq!(bad["code"], 6, "{bad}");
}

#[test]
fn c20_add_without_an_agent_says_try_again() {
    let lab = lab();
    let node = lab.node("node-1");
    let pod = node.pod("cni/again").start();
    let deleted = call(&pod, "DEL", &json!({}));
    assert!(deleted.ok(), "{deleted:?}");
    lab.wait_until("the link is gone", || match pod.run(&["ip", "link", "show", "eth0"]) {
        shown if shown.ok() => Err(shown),
        _ => Ok(()),
    });
    node.agent().kill9();
    let error = error(&call(&pod, "ADD", &json!({})));
    assert_eq!(error["code"], 11, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("cni.sock"), "{error}");
    node.start_agent();
    pod.delete();
}

#[test]
fn c13_a_bad_request_is_named_and_the_next_pod_gets_its_network() {
    let lab = lab();
    let node = lab.node("node-1");
    let conf = r#"{"cniVersion": "1.1.0", "name": "fairlead", "type": "fairlead-cni"}"#;
    let environment = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "bad"),
        ("CNI_NETNS", "/run/netns/none"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
        ("CNI_ARGS", "K8S_POD_NAMESPACE=cni;K8S_POD_NAME=bad"),
    ];
    let mut slash = environment;
    slash[3].1 = "a/b";
    let nameless = r#"{"cniVersion": "1.1.0", "type": "fairlead-cni"}"#;
    for (env, input, code, named) in [
        (&slash[..], conf, 4, "CNI_IFNAME"),
        (&environment[..1], conf, 4, "CNI_"),
        (&environment[..], "[1, 2", 6, "decode"),
        (&environment[..], nameless, 7, "name"),
    ] {
        let error = error(&node.cni(env, input));
        assert_eq!(error["code"], code, "{error}");
        assert!(error["msg"].as_str().unwrap().contains(named), "{error}");
    }
    let after = node.pod("cni/after-bad").tcp(80).start();
    assert_eq!(node.tcp(after.v4(), 80).unwrap().server.pod, "cni/after-bad");
    after.delete();
}

#[test]
fn c38_a_static_pod_gets_its_network_and_the_policy_of_its_mirror() {
    let lab = lab();
    let node = lab.node("node-1");
    let client = node.pod("cni/client").start();
    lab.apply(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: cni, name: static}, spec: \
         {podSelector: {matchLabels: {static: 'yes'}}, ingress: [{ports: [{port: 80}]}]}}",
    );
    // An ADD waits for the pod's policy, and fails without the object of that pod.
    let pod = node.pod("cni/static-node-1").label("static", "yes").tcp(80).tcp(81).static_pod().start();
    for ip in pod.ips() {
        assert_eq!(client.tcp(ip, 80).unwrap().server.pod, "cni/static-node-1");
        assert!(client.tcp(ip, 81).is_err(), "the policy that selects its mirror holds for it");
    }
    pod.delete();
    client.delete();
    lab.delete("NetworkPolicy", "cni/static");
}

/// The name of a pod's host side.
fn host_side(pod: &Pod) -> String {
    let interfaces = pod.result()["interfaces"].as_array().unwrap().iter();
    let mut host = interfaces.filter(|each| each["sandbox"].as_str().unwrap_or_default().is_empty());
    host.next().unwrap()["name"].as_str().unwrap().to_owned()
}

#[test]
fn c31_ipv6_that_somebody_switches_off_at_a_pods_interface_is_on_again() {
    let lab = lab();
    let node = lab.node("node-1");
    let pod = node.pod("cni/hardened").tcp(80).start();
    let key = format!("net.ipv6.conf.{}.disable_ipv6", host_side(&pod));
    node.must_run(&["sysctl", "-qw", &format!("{key}=1")]);
    // Nothing tells of it: the agent looks every ten seconds.
    lab.wait_within(Duration::from_secs(30), "it is on again", || {
        match node.must_run(&["sysctl", "-n", &key]).trim() {
            "0" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    for ip in pod.ips() {
        let ask = || node.probe(&Probe::tcp(ip, 80).timeout(Duration::from_millis(200)));
        assert_eq!(lab.wait_until("the node reaches the pod", ask).server.pod, "cni/hardened");
    }
    pod.delete();
}

#[test]
fn files_of_the_run_directory_are_in_the_book() {
    let page = include_str!("../../manifests/book/src/reference/files.md");
    let lab = lab();
    let node = lab.node("node-1");
    // Whose deletion is queued for a moment.
    node.pod("cni/listed").start().delete();
    let listed = node.must_run(&["ls", "/run/fairlead"]);
    assert!(listed.contains("cni-queue"), "{listed}");
    for name in listed.lines() {
        assert!(page.contains(&format!("`/run/fairlead/{name}`")), "{name} is not on the page");
    }
}

#[test]
fn add_latency_is_printed() {
    let lab = lab();
    let mut took: Vec<Duration> = Vec::new();
    for number in 0..20 {
        let pod = lab.node("node-1").pod(&format!("cni/timed-{number}")).start();
        took.push(pod.added_in());
        pod.delete();
    }
    took.sort_unstable();
    println!("ADD of a pod, plugin and agent and start of the process: p50 {:?}, slowest {:?}", took[10], took[19]);
}
