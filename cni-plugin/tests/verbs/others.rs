//! VERSION, STATUS, GC, and what is refused whatever the verb.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use fairlead_agent::cni::Health;
use fairlead_cni::{queue, ready};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use serde_json::json;

use crate::harness::{Container, Node};
use crate::netns::Netns;

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[test]
fn c11_version_lists_what_is_served() {
    let node = Node::without_agent();
    for version in VERSIONS {
        let answer = node.call(&[("CNI_COMMAND", "VERSION")], json!({"cniVersion": version}).to_string()).result();
        assert_eq!(answer, json!({"cniVersion": version, "supportedVersions": VERSIONS}));
    }
    assert_eq!(node.call(&[("CNI_COMMAND", "VERSION")], "").result()["cniVersion"], "1.1.0");
}

#[test]
fn c9_status_is_good_when_the_agent_is_ready() {
    let node = Node::new();
    let answer = node.call(&[("CNI_COMMAND", "STATUS")], node.conf("1.1.0").to_string());
    assert!(answer.is_empty_success(), "{answer:?}");
}

#[test]
fn c9_status_stays_good_over_a_restart_and_not_over_a_reboot() {
    let mut node = Node::new();
    let status = |node: &Node| node.call(&[("CNI_COMMAND", "STATUS")], node.conf("1.1.0").to_string());
    node.add(&Container::new("web-0"));
    node.stop_agent();
    assert!(status(&node).is_empty_success());
    *node.double.health.lock().unwrap() = Health::Starting("listing Services".to_owned());
    node.start_agent();
    assert!(status(&node).is_empty_success());
    std::fs::write(ready::mark_path(&node.socket()), "another boot").unwrap();
    let (code, msg) = status(&node).error();
    assert_eq!(code, 50);
    assert!(msg.contains("listing Services"), "{msg}");
    node.stop_agent();
    let (code, msg) = status(&node).error();
    assert_eq!(code, 50);
    assert!(msg.contains("cni.sock"), "{msg}");
}

#[test]
fn c9_status_says_51_when_pods_may_suffer() {
    let node = Node::new();
    *node.double.health.lock().unwrap() = Health::Impaired("programs were removed".to_owned());
    let (code, msg) = node.call(&[("CNI_COMMAND", "STATUS")], node.conf("1.1.0").to_string()).error();
    assert_eq!(code, 51);
    assert!(msg.contains("programs were removed"), "{msg}");
    let (code, msg) = node.verb("ADD", &Container::new("web-0"), &node.conf("1.1.0")).error();
    assert_eq!(code, 11, "an ADD may succeed later");
    assert!(msg.contains("programs were removed"), "{msg}");
}

#[test]
fn c12_status_and_gc_need_1_1_0() {
    let node = Node::new();
    for verb in ["STATUS", "GC"] {
        let (code, msg) = node.call(&[("CNI_COMMAND", verb)], node.conf("1.0.0").to_string()).error();
        assert_eq!(code, 1, "{verb}");
        assert!(msg.contains(verb), "{msg}");
    }
}

#[test]
fn c10_gc_removes_what_is_not_listed() {
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        let node = Node::new();
        let (kept, stale, other) = (Container::new("web-0"), Container::new("web-1"), Container::new("web-2"));
        for pod in [&kept, &stale, &other] {
            node.add(pod);
        }
        let mut conf = node.conf("1.1.0");
        conf[key] = json!([{"containerID": kept.id, "ifname": "eth0"}]);
        let answer = node.call(&[("CNI_COMMAND", "GC"), ("CNI_PATH", "/opt/cni/bin")], conf.to_string());
        assert!(answer.is_empty_success(), "{answer:?}");
        assert_eq!((kept.is_wired(), stale.is_wired(), other.is_wired()), (true, false, false));
        assert_eq!(node.double.detached.lock().unwrap().len(), 2);
    }
}

#[test]
fn c10_c25_gc_removes_links_that_no_journal_knows() {
    let mut node = Node::new();
    let (kept, stale) = (Container::new("web-0"), Container::new("web-1"));
    for pod in [&kept, &stale] {
        node.add(pod);
    }
    node.stop_agent();
    std::fs::remove_file(node.directory.join("cni-journal")).unwrap();
    node.start_agent();
    let mut conf = node.conf("1.1.0");
    conf["cni.dev/valid-attachments"] = json!([{"containerID": kept.id, "ifname": "eth0"}]);
    assert!(node.call(&[("CNI_COMMAND", "GC")], conf.to_string()).is_empty_success());
    assert_eq!((kept.is_wired(), stale.is_wired()), (true, false));
}

#[test]
fn c10_gc_keeps_to_its_network() {
    let mut node = Node::new();
    let pod = Container::new("web-0");
    node.add(&pod);
    let mut second = node.conf("1.1.0");
    second["name"] = json!("second");
    node.verb_of("ADD", &pod, "net1", &second).result();
    let wired = |pod: &Container| ["eth0", "net1"].map(|name| pod.netns.try_command(&format!("ip link show {name}")).0);
    let gc = |node: &Node, conf: &serde_json::Value, keep: serde_json::Value| {
        let mut conf = conf.clone();
        conf["cni.dev/valid-attachments"] = keep;
        let answer = node.call(&[("CNI_COMMAND", "GC")], conf.to_string());
        assert!(answer.is_empty_success(), "{answer:?}");
    };
    let first = json!([{"containerID": pod.id, "ifname": "eth0"}]);
    gc(&node, &node.conf("1.1.0"), first.clone());
    assert_eq!(wired(&pod), [true, true], "no list of one network has what another has");
    // Nor where the agent knows them from their links alone.
    node.stop_agent();
    std::fs::remove_file(node.directory.join("cni-journal")).unwrap();
    node.start_agent();
    gc(&node, &node.conf("1.1.0"), first);
    assert_eq!(wired(&pod), [true, true]);
    gc(&node, &second, json!([]));
    assert_eq!(wired(&pod), [true, false]);
}

/// An agent that hangs: it listens and takes nothing. With a short queue the kernel takes no connection for it either.
fn hang(node: &Node, queue: i32) -> Vec<OwnedFd> {
    let new = || socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
    let address = UnixAddr::new(&node.socket()).unwrap();
    let listener = new();
    bind(listener.as_raw_fd(), &address).unwrap();
    listen(&listener, Backlog::new(queue).unwrap()).unwrap();
    let mut held = vec![listener];
    if queue == 0 {
        // Those who wait already: when no more are taken the queue is full.
        let waiting = || Some(new()).filter(|fd| connect(fd.as_raw_fd(), &address).is_ok());
        held.extend(std::iter::from_fn(waiting));
    }
    held
}

#[test]
fn c9_status_of_a_hanging_agent_answers_in_three_seconds() {
    for queue in [0, 16] {
        let node = Node::without_agent();
        let _hanging = hang(&node, queue);
        let status = |node: &Node| {
            // A machine that is busy may take longer, but not each time.
            let mut took = Vec::new();
            loop {
                let started = Instant::now();
                let answer = node.call(&[("CNI_COMMAND", "STATUS")], node.conf("1.1.0").to_string());
                took.push(started.elapsed());
                if started.elapsed() < Duration::from_secs(3) {
                    return answer;
                }
                assert!(took.len() < 3, "queue {queue}: {took:?}");
            }
        };
        let (code, msg) = status(&node).error();
        assert_eq!(code, 50);
        assert!(msg.contains("hangs"), "{msg}");
        // As while it restarts, which its probe has it do.
        ready::mark(&node.socket()).unwrap();
        assert!(status(&node).is_empty_success());
    }
}

#[test]
fn c7_del_with_a_hanging_agent_removes_the_link_in_ten_seconds_and_is_queued() {
    let (mut node, pod) = (Node::new(), Container::new("web-0"));
    node.add(&pod);
    node.stop_agent();
    std::fs::remove_file(node.socket()).unwrap();
    let hanging = hang(&node, 16);
    let started = Instant::now();
    let answer = node.verb("DEL", &pod, &node.conf("1.1.0"));
    assert!(answer.is_empty_success(), "{answer:?}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(answer.stderr.contains("hangs"), "{answer:?}");
    assert!(!pod.is_wired());
    assert_eq!(queue::list(&queue::directory(&node.socket())).unwrap(), [Ok(pod.attachment())]);
    drop(hanging);
}

#[test]
fn c10_gc_without_a_list_removes_nothing() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    node.add(&pod);
    let (code, msg) = node.call(&[("CNI_COMMAND", "GC")], node.conf("1.1.0").to_string()).error();
    assert_eq!(code, 7);
    assert!(msg.contains("valid-attachments"), "{msg}");
    assert!(pod.is_wired());
}

#[test]
fn c13_bad_input_is_refused_by_code_and_disturbs_nothing() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    let with = |key: &str, value: serde_json::Value| {
        let mut conf = node.conf("1.1.0");
        conf[key] = value;
        conf.to_string()
    };
    let table: &[(&str, String, u64, &str)] = &[
        ("ADD", with("cniVersion", json!("2.0.0")), 1, "2.0.0"),
        ("ADD", with("ipam", json!({"type": "host-local"})), 2, "ipam.type = \"host-local\""),
        ("ADD", "{\"cniVersion\":".to_owned(), 6, "standard input"),
        ("ADD", "[]".to_owned(), 6, "standard input"),
        ("DEL", "\u{0}\u{1}".to_owned(), 6, "standard input"),
        ("ADD", String::new(), 7, "type"),
        ("ADD", with("name", json!("")), 7, "name"),
        ("ADD", with("socket", json!("relative.sock")), 7, "socket"),
        ("ADD", with("socket", json!("/nonexistent/cni.sock")), 11, "/nonexistent/cni.sock"),
        ("PREPARE", with("name", json!("pods")), 4, "CNI_COMMAND"),
    ];
    for (verb, input, code, named) in table {
        let vars = pod.vars(verb);
        let vars: Vec<(&str, &str)> = vars.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let (found, msg) = node.call(&vars, input).error();
        assert_eq!(found, *code, "{verb} {input}: {msg}");
        assert!(msg.contains(named), "{verb} {input}: {msg}");
    }
    assert!(!pod.is_wired());
    assert!(node.double.attached.lock().unwrap().is_empty());
    assert!(queue::list(&queue::directory(&node.socket())).unwrap().is_empty());
}

#[test]
fn c13_missing_variables_are_named() {
    let (netns, pod) = (Netns::new(), Container::new("web-0"));
    let table = [
        ("ADD", "CNI_CONTAINERID"),
        ("ADD", "CNI_NETNS"),
        ("ADD", "CNI_IFNAME"),
        ("ADD", "CNI_ARGS"),
        ("ADD", "CNI_COMMAND"),
        ("DEL", "CNI_CONTAINERID"),
        ("DEL", "CNI_IFNAME"),
        ("CHECK", "CNI_NETNS"),
    ];
    for (verb, missing) in table {
        let vars = pod.vars(verb);
        let vars: Vec<(&str, &str)> =
            vars.iter().filter(|(key, _)| *key != missing).map(|(k, v)| (*k, v.as_str())).collect();
        let conf = json!({"cniVersion": "1.0.0", "name": "pods", "type": "fairlead-cni"});
        let (code, msg) = crate::harness::call_in(&netns, &vars, conf.to_string()).error();
        assert_eq!(code, 4, "{verb} without {missing}");
        assert!(msg.contains(missing), "{verb} without {missing}: {msg}");
    }
}

#[test]
fn the_agent_refuses_nonsense_and_goes_on() {
    use std::io::{BufRead, BufReader, Write};
    let node = Node::new();
    let mut stream = std::os::unix::net::UnixStream::connect(node.socket()).unwrap();
    stream.write_all(b"nonsense\n{\"op\":\"of a later release\"}\n\xff\xfe\n{\"op\":\"status\"}\n").unwrap();
    let answers: Vec<String> = BufReader::new(stream).lines().take(4).map(Result::unwrap).collect();
    assert!(answers[..3].iter().all(|answer| answer.contains("\"code\":6")), "{answers:?}");
    assert_eq!(answers[3], "{\"reply\":\"done\"}");
}
