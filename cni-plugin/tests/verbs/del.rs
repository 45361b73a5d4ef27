//! DEL

use std::time::{Duration, Instant};

use fairlead_cni::queue;

use crate::harness::{Container, Node, ips};

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn c5_del_removes_links_routes_and_neighbours() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    node.add(&pod);
    assert!(node.verb("DEL", &pod, &node.conf("1.1.0")).is_empty_success());
    assert_eq!(node.double.closed.lock().unwrap()[0].container_id, pod.id, "nothing passes from here on");
    node.finished();
    assert!(!pod.is_wired());
    assert!(node.host_links().is_empty());
    assert_eq!(node.netns.command("ip route show proto 241"), "");
    assert_eq!(node.netns.command("ip -6 route show proto 241"), "");
    assert_eq!(node.double.detached.lock().unwrap()[0].container_id, pod.id);
    assert_eq!(*node.double.deleted.lock().unwrap(), [pod.attachment().host_link()], "said when the link is gone");
}

#[test]
fn c5_del_can_be_repeated_and_needs_no_add() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    assert!(node.verb("DEL", &pod, &node.conf("1.1.0")).is_empty_success(), "never added");
    node.add(&pod);
    for _ in 0..3 {
        assert!(node.verb("DEL", &pod, &node.conf("1.1.0")).is_empty_success());
    }
    node.finished();
    assert_eq!(node.double.detached.lock().unwrap().len(), 1);
}

#[test]
fn c6_del_needs_no_namespace_and_no_prev_result() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    for netns in [Some(""), Some("/nonexistent"), None] {
        node.add(&pod);
        let mut vars = pod.vars("DEL");
        match netns {
            Some(path) => vars[2].1 = path.to_owned(),
            None => drop(vars.remove(2)),
        }
        let vars: Vec<(&str, &str)> = vars.iter().map(|(k, v)| (*k, v.as_str())).collect();
        assert!(node.call(&vars, node.conf("1.1.0").to_string()).is_empty_success(), "{netns:?}");
        assert!(!node.double.closed.lock().unwrap().is_empty(), "{netns:?}");
    }
    node.finished();
    assert!(!pod.is_wired());
}

#[test]
fn c49_add_of_the_same_attachment_waits_for_the_link_of_the_del_before_it() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    let had = ips(&node.add(&pod));
    for _ in 0..3 {
        assert!(node.verb("DEL", &pod, &node.conf("1.1.0")).is_empty_success());
        let given = ips(&node.add(&pod));
        assert!(given.iter().all(|ip| !had.contains(ip)), "its address rests: {given:?}");
    }
    assert!(pod.is_wired(), "what is left of a deletion takes nothing of the next pod's");
    assert_eq!(node.host_links().len(), 1);
}

#[test]
fn c49_what_a_killed_agent_has_left_of_a_del_the_next_one_does() {
    let (mut node, pod) = (Node::new(), Container::new("web-0"));
    node.add(&pod);
    // As an agent leaves it that is killed right after its answer.
    queue::push(&queue::directory(&node.socket()), &pod.attachment()).unwrap();
    node.stop_agent();
    assert!(pod.is_wired());
    node.start_agent();
    node.finished();
    assert!(!pod.is_wired());
    assert_eq!(node.double.detached.lock().unwrap()[0].container_id, pod.id);
}

#[test]
fn c6_del_after_the_namespace_is_gone_frees_the_addresses() {
    let node = Node::new();
    let pod = Container::new("web-0");
    node.add(&pod);
    let vars = pod.vars("DEL");
    drop(pod);
    eventually("the link goes with the namespace", || node.host_links().is_empty());
    let vars: Vec<(&str, &str)> = vars.iter().map(|(k, v)| (*k, v.as_str())).collect();
    assert!(node.call(&vars, node.conf("1.1.0").to_string()).is_empty_success());
    node.finished();
    assert_eq!(node.double.detached.lock().unwrap().len(), 1);
}

#[test]
fn c5_del_leaves_other_pods_alone() {
    let (node, first, second) = (Node::new(), Container::new("web-0"), Container::new("web-1"));
    node.add(&first);
    node.add(&second);
    node.verb("DEL", &first, &node.conf("1.1.0"));
    node.finished();
    assert!(second.is_wired());
    assert_eq!(node.host_links().len(), 1);
}

#[test]
fn c22_del_lets_a_freed_address_rest() {
    let (node, first, second) = (Node::new(), Container::new("web-0"), Container::new("web-1"));
    let freed = ips(&node.add(&first));
    node.verb("DEL", &first, &node.conf("1.1.0"));
    let given = ips(&node.add(&second));
    assert!(given.iter().all(|ip| !freed.contains(ip)), "{given:?}");
}

#[test]
fn c26_del_of_many_at_once_deletes_them_together() {
    let node = Node::new();
    let pods: Vec<Container> = (0..10).map(|n| Container::new(&format!("web-{n}"))).collect();
    pods.iter().for_each(|pod| drop(node.add(pod)));
    let calls: Vec<_> = pods
        .iter()
        .map(|pod| {
            let (vars, conf) = (pod.vars("DEL"), node.conf("1.1.0").to_string());
            node.netns.run(move || std::thread::spawn(move || crate::harness::execute(&vars, conf.as_bytes())))
        })
        .collect();
    for call in calls {
        assert!(call.join().unwrap().is_empty_success());
    }
    node.finished();
    assert!(node.host_links().is_empty());
    assert!(pods.iter().all(|pod| !pod.is_wired()));
}

#[test]
fn c7_del_without_an_agent_removes_the_link_and_is_done_when_it_is_back() {
    let (mut node, pod, other) = (Node::new(), Container::new("web-0"), Container::new("web-1"));
    node.add(&pod);
    node.add(&other);
    node.stop_agent();
    for _ in 0..2 {
        let answer = node.verb("DEL", &pod, &node.conf("1.1.0"));
        assert!(answer.is_empty_success(), "{answer:?}");
        assert!(answer.stderr.contains("queueing"), "{answer:?}");
    }
    assert!(!pod.is_wired());
    let directory = queue::directory(&node.socket());
    assert_eq!(queue::list(&directory).unwrap(), [Ok(pod.attachment())]);
    assert!(node.double.detached.lock().unwrap().is_empty());

    node.start_agent();
    eventually("the queue is done", || queue::list(&directory).unwrap().is_empty());
    assert_eq!(node.double.detached.lock().unwrap()[0].container_id, pod.id);
    assert!(other.is_wired(), "the other pod lived through the restart");
    eventually("it is attached again", || {
        node.double.attached.lock().unwrap().iter().filter(|p| p.container_id == other.id).count() == 2
    });
}

#[test]
fn c16_del_while_an_add_is_under_way_comes_after_it() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    *node.double.attaching.lock().unwrap() = crate::harness::Attaching::Waits;
    let begin = |verb: &str| {
        let (vars, conf) = (pod.vars(verb), node.conf("1.1.0").to_string());
        node.netns.run(move || std::thread::spawn(move || crate::harness::execute(&vars, conf.as_bytes())))
    };
    let adding = begin("ADD");
    eventually("the ADD is half-way", || pod.is_wired());
    let deleting = begin("DEL");
    eventually("the agent has both", || node.connections() == 2);
    node.double.go_on.add_permits(1);
    assert!(deleting.join().unwrap().is_empty_success());
    adding.join().unwrap().result();
    node.finished();
    assert!(!pod.is_wired());
    assert!(node.host_links().is_empty());
}

#[test]
fn c23_a_restarted_agent_keeps_what_pods_have() {
    let (mut node, first, second) = (Node::new(), Container::new("web-0"), Container::new("web-1"));
    let had = ips(&node.add(&first));
    node.stop_agent();
    node.start_agent();
    let given = ips(&node.add(&second));
    assert!(given.iter().all(|ip| !had.contains(ip)), "{given:?}");
    assert!(node.verb("DEL", &first, &node.conf("1.1.0")).is_empty_success());
    node.finished();
    assert_eq!(node.double.detached.lock().unwrap()[0].ips.len(), 2);
}

#[test]
fn c25_a_restarted_agent_releases_pods_that_vanished() {
    let (mut node, pod) = (Node::new(), Container::new("web-0"));
    node.add(&pod);
    node.stop_agent();
    drop(pod);
    eventually("the link goes with the namespace", || node.host_links().is_empty());
    node.start_agent();
    eventually("it is released", || node.double.detached.lock().unwrap().len() == 1);
}

#[test]
fn c25_a_pod_whose_link_was_renamed_has_not_vanished() {
    let mut node = Node::new();
    // They are looked at in this order, that of their ids: the second has been when the third is released.
    let pods = ["web-0", "web-1", "web-2"].map(Container::new);
    pods.iter().for_each(|pod| drop(node.add(pod)));
    node.stop_agent();
    let [first, renamed, last] = &pods;
    for gone in [first, last] {
        node.netns.command(&format!("ip link del {}", gone.attachment().host_link()));
    }
    node.netns.command(&format!("ip link set {} name renamed0", renamed.attachment().host_link()));
    node.start_agent();
    eventually("those that are gone are released", || node.double.detached.lock().unwrap().len() >= 2);
    assert!(!node.double.detached.lock().unwrap().iter().any(|pod| pod.container_id == renamed.id));
    assert!(renamed.is_wired());
}

#[test]
fn c25_an_agent_without_its_journal_gives_nothing_twice() {
    let (mut node, first, second) = (Node::new(), Container::new("web-0"), Container::new("web-1"));
    let had = ips(&node.add(&first));
    node.stop_agent();
    std::fs::remove_file(node.directory.join("cni-journal")).unwrap();
    node.start_agent();
    let given = ips(&node.add(&second));
    assert!(given.iter().all(|ip| !had.contains(ip)), "{given:?}");
    assert!(first.is_wired(), "a pod is not cut off because a file was lost");
    assert!(node.verb("DEL", &first, &node.conf("1.1.0")).is_empty_success());
    assert!(!first.is_wired());
}

#[test]
fn c25_a_plugin_that_dies_half_way_leaves_nothing() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    // As the plugin would, up to the first answer.
    let mut agent = fairlead_cni::client::Client::connect(&node.socket()).unwrap();
    let request = fairlead_cni::protocol::Request::Reserve {
        attachment: pod.attachment(),
        pod: fairlead_cni::protocol::PodRef { namespace: "shop".to_owned(), name: "web-0".to_owned(), uid: None },
        netns: pod.netns.path.clone(),
        netns_inode: 1,
        network: "pods".to_owned(),
        wanted: fairlead_cni::protocol::Wanted::default(),
    };
    let reservation = agent.reservation(&request).unwrap();
    node.netns.command(&format!(
        "ip link add {} index {} type veth peer name x0",
        reservation.host_link, reservation.ifindex
    ));
    drop(agent);
    eventually("it is taken back", || node.double.detached.lock().unwrap().len() == 1);
    eventually("and its link", || !node.netns.try_command(&format!("ip link show {}", reservation.host_link)).0);
    node.add(&pod);
}
