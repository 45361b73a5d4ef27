//! The first second of a pod: it begins with filters, and gets its links behind its ADD. Policy holds from the first packet on.

use std::net::IpAddr;
use std::thread;

use fairlead_tests::{Node, Pod, Probe, ProbeError, Probes, binary};
use serde_json::json;

use crate::unhook::{Stage, host_side, repairs, wait_for_links};
use crate::world::{SILENCE, outside, policy};

const PORT: u16 = 80;

/// Pods that come at once.
const MANY: usize = 30;

/// How often a test tries to kill an agent before it has made a pod's links.
const TRIES: usize = 20;

/// The filters of a pod's interface.
fn filters(node: &Node, pod: &Pod) -> String {
    let link = host_side(pod);
    ["ingress", "egress"].map(|way| node.must_run(&["tc", "filter", "show", "dev", &link, way])).concat()
}

/// Whether the pod's programs stand there as filters, guards behind them.
fn has_filters(node: &Node, pod: &Pod) -> bool {
    let filters = filters(node, pod);
    let count = |what: &str| filters.lines().filter(|line| line.contains("handle") && line.contains(what)).count();
    count("pref 50") == 2 && count("pref 60") == 2
}

fn has_link(node: &Node, pod: &Pod) -> bool {
    node.must_run(&["ls", "/sys/fs/bpf/fairlead/links"]).contains(&host_side(pod))
}

/// A pod that nobody may open a connection to, and that may open none.
fn closed_pod(node: &std::sync::Arc<Node>, name: &str) -> Pod {
    node.pod(&format!("unhook/{name}")).label("role", "shut").tcp(PORT).start()
}

fn shut(stage: &Stage) {
    policy(&stage.lab, "unhook", "shut", &json!({"policyTypes": ["Ingress", "Egress"]}));
}

/// Nothing of a pod that may say nothing arrives, and nothing gets to it.
#[track_caller]
fn assert_shut(stage: &Stage, pod: &Pod, what: &str) {
    let silent = |from: &dyn Fn(&Probe) -> Result<(), ProbeError>, to: IpAddr| {
        let asked = from(&Probe::tcp(to, PORT).timeout(SILENCE));
        assert_eq!(asked, Err(ProbeError::TimedOut), "{what}: {to}");
    };
    for (own, others) in pod.ips().into_iter().zip(stage.open.ips()) {
        silent(&|probe| pod.probe(probe).map(drop), others);
        silent(&|probe| stage.open.probe(probe).map(drop), own);
    }
}

#[test]
fn c48_of_many_pods_that_come_at_once_none_sends_or_gets_what_it_may_not() {
    let stage = Stage::new();
    let node = stage.lab.node("node-1");
    shut(&stage);
    let pods: Vec<Pod> = thread::scope(|scope| {
        let stage = &stage;
        let one = |number| {
            move || {
                let pod = closed_pod(node, &format!("many-{number}"));
                assert_shut(stage, &pod, "right after its ADD");
                pod
            }
        };
        let all: Vec<_> = (0..MANY).map(|number| scope.spawn(one(number))).collect();
        all.into_iter().map(|each| each.join().unwrap()).collect()
    });
    for pod in &pods {
        wait_for_links(&stage.lab, node, pod);
    }
    let last = pods.last().unwrap();
    stage.lab.wait_until("the filters that stood in for links are gone", || match filters(node, last) {
        there if there.contains("pref 50") => Err(there),
        _ => Ok(()),
    });
    for pod in &pods {
        assert_shut(&stage, pod, "with its links");
    }
    // Other tools find the qdisc that they are used to.
    let link = host_side(last);
    node.must_run(&[
        "tc",
        "filter",
        "add",
        "dev",
        &link,
        "ingress",
        "pref",
        "99",
        "bpf",
        "da",
        "bytecode",
        "1,6 0 0 0,",
    ]);
    node.must_run(&["tc", "filter", "del", "dev", &link, "ingress", "pref", "99"]);
    stage.assert_policy_holds("beside thirty others");
    let repaired: Vec<_> = repairs(node).into_iter().filter(|(_, kind, _)| kind == "program").collect();
    assert_eq!(repaired, [], "what is on its way is no fault");
    pods.into_iter().for_each(Pod::delete);
}

#[test]
fn c48_an_agent_that_is_killed_before_a_pod_has_links_leaves_it_shut_and_the_next_makes_them() {
    let stage = Stage::new();
    let node = stage.lab.node("node-1");
    shut(&stage);
    let mut others = Vec::new();
    let caught = (0..TRIES).find_map(|number| {
        let pod = closed_pod(node, &format!("begun-{number}"));
        node.agent().kill9();
        if !has_link(node, &pod) {
            return Some(pod);
        }
        node.start_agent();
        others.push(pod);
        None
    });
    let pod = caught.expect("the agent makes links a fifth of a second after an ADD");
    assert!(has_filters(node, &pod), "{}", filters(node, &pod));
    assert_shut(&stage, &pod, "without an agent");
    // Somebody else's program comes first, and lets pass what may not.
    let lab = binary("fairlead-lab").unwrap();
    let link = host_side(&pod);
    node.must_run(&[lab.to_str().unwrap(), "precede", &link, "--pins", "/sys/fs/bpf/others"]);
    node.start_agent();
    wait_for_links(&stage.lab, node, &pod);
    stage.lab.wait_until("the filters that stood in for links are gone", || match filters(node, &pod) {
        there if there.contains("pref 50") => Err(there),
        _ => Ok(()),
    });
    assert_shut(&stage, &pod, "with the next agent");
    for ip in outside() {
        assert_eq!(pod.probe(&Probe::tcp(ip, PORT).timeout(SILENCE)).unwrap_err(), ProbeError::TimedOut);
    }
    stage.assert_policy_holds("with the next agent");
    pod.delete();
    others.into_iter().for_each(Pod::delete);
}

#[test]
fn c49_a_del_is_finished_by_the_next_agent_and_its_address_rests() {
    let stage = Stage::new();
    let node = stage.lab.node("node-1");
    let links = || node.must_run(&["ip", "-o", "link"]);
    let pod = node.pod("unhook/goes").tcp(PORT).start();
    let (link, had) = (host_side(&pod), pod.ips());
    pod.delete();
    node.agent().kill9();
    node.start_agent();
    stage.lab.wait_until("the link is gone", || match links() {
        there if there.contains(&link) => Err(there),
        _ => Ok(()),
    });
    // It rests: the next pod gets another.
    let next = node.pod("unhook/next").tcp(PORT).start();
    assert!(next.ips().iter().all(|ip| !had.contains(ip)), "{:?}", next.ips());
    for ip in next.ips() {
        assert_eq!(stage.open.tcp(ip, PORT).unwrap().server.pod, next.key());
    }
    next.delete();
}
