//! CHECK

use serde_json::Value;

use crate::harness::{Container, Node};

fn wired() -> (Node, Container, Value) {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    let mut conf = node.conf("1.1.0");
    conf["prevResult"] = node.add(&pod);
    (node, pod, conf)
}

#[test]
fn c8_check_is_content_with_what_add_left() {
    let (node, pod, mut conf) = wired();
    let answer = node.verb("CHECK", &pod, &conf);
    assert!(answer.is_empty_success(), "{answer:?}");
    // What others add is no concern of ours.
    pod.netns.command("ip link add other type veth peer name another");
    pod.netns.command("ip addr add 192.0.2.1/32 dev eth0");
    conf["prevResult"]["interfaces"].as_array_mut().unwrap().push(serde_json::json!({"name": "other"}));
    assert!(node.verb("CHECK", &pod, &conf).is_empty_success());
}

/// What a runtime or the pod has set of its namespace since ADD stays as it is.
#[test]
fn c8_check_changes_nothing() {
    const OFF: &str = "net.ipv6.conf.default.disable_ipv6";
    let (node, pod, conf) = wired();
    pod.netns.command(&format!("sysctl -w {OFF}=1"));
    assert!(node.verb("CHECK", &pod, &conf).is_empty_success());
    assert_eq!(pod.netns.command(&format!("sysctl -n {OFF}")).trim(), "1");
}

#[test]
fn c8_check_finds_what_is_missing() {
    let table = [
        ("ip link set eth0 down", "is down"),
        ("ip addr del 10.244.1.2/32 dev eth0", "10.244.1.2/32"),
        ("ip addr del fd00:10:244:1::2/128 dev eth0", "fd00:10:244:1::2/128"),
        ("ip route del default", "0.0.0.0/0"),
        ("ip -6 route del default", "::/0"),
        ("ip link set eth0 address 02:00:00:00:00:99", "MAC"),
        ("ip link del eth0", "missing"),
    ];
    for (command, expected) in table {
        let (node, pod, conf) = wired();
        pod.netns.command(command);
        let (code, msg) = node.verb("CHECK", &pod, &conf).error();
        assert_eq!(code, 101, "{command}: {msg}");
        assert!(msg.contains(expected), "{command}: {msg}");
    }
}

#[test]
fn c8_check_finds_a_host_side_that_is_down() {
    let (node, pod, conf) = wired();
    node.netns.command(&format!("ip link set {} down", pod.attachment().host_link()));
    let (code, msg) = node.verb("CHECK", &pod, &conf).error();
    assert_eq!(code, 101);
    assert!(msg.contains(&pod.attachment().host_link()), "{msg}");
}

#[test]
fn c8_check_of_an_unknown_container_fails() {
    let (node, _, conf) = wired();
    let (code, msg) = node.verb("CHECK", &Container::new("web-9"), &conf).error();
    assert_eq!(code, 101);
    assert!(msg.contains("no reservation"), "{msg}");
}

#[test]
fn c8_check_needs_prev_result() {
    let (node, pod, _) = wired();
    let (code, msg) = node.verb("CHECK", &pod, &node.conf("1.1.0")).error();
    assert_eq!(code, 7);
    assert!(msg.contains("prevResult"), "{msg}");
}

#[test]
fn c12_check_needs_0_4_0() {
    let (node, pod, _) = wired();
    let (code, msg) = node.verb("CHECK", &pod, &node.conf("0.3.1")).error();
    assert_eq!(code, 1);
    assert!(msg.contains("does not allow CHECK"), "{msg}");
}

#[test]
fn c8_check_without_an_agent_says_try_again() {
    let (mut node, pod, conf) = wired();
    node.stop_agent();
    assert_eq!(node.verb("CHECK", &pod, &conf).error().0, 11);
}
