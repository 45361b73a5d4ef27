//! The walks that most packets take, a test each. `cargo xtask bench walk` runs the last packet of each in a kernel, again and
//! again.

use super::outside::{NODE_PORT, node_port};
use super::*;

const SEND: Send = Send { partial: false };

/// Has pod 0 shake hands with who gets what it sends to an address, and send something: who that is.
fn connect(node: &mut Node, to: (IpAddr, u16)) -> (Landed, Seen) {
    let own = (Node::pod(0, to.0.is_ipv6()), CLIENT);
    let (landed, got) = SEND.pod(node, 0, &tcp(own, to, SYN));
    let back = answer(&got, SYN_ACK);
    let landed_back = match landed {
        Landed::Pod(slot) => SEND.pod(node, slot, &back).0,
        _ => SEND.arrives(node, &back).0,
    };
    assert_eq!(landed_back, Landed::Pod(0));
    for _ in 0..2 {
        assert_eq!(SEND.pod(node, 0, &tcp(own, to, ACK)).0, landed);
    }
    (landed, got)
}

#[test]
fn a_pod_to_a_pod_here_v4() {
    assert_eq!(connect(&mut Node::new(), (Node::pod(1, false), 80)).0, Landed::Pod(1));
}

#[test]
fn a_pod_to_a_pod_here_v6() {
    assert_eq!(connect(&mut Node::new(), (Node::pod(1, true), 80)).0, Landed::Pod(1));
}

#[test]
fn a_pod_to_a_pod_elsewhere() {
    assert_eq!(connect(&mut Node::new(), (Node::far_pod(false), 80)).0, Landed::Node(0));
}

/// A node with a service whose backend is pod 1.
fn served() -> Node {
    let mut node = Node::new();
    node.service((Node::vip(false), 80), TCP, &[(Node::pod(1, false), 8080)]);
    node
}

#[test]
fn a_pod_to_a_service() {
    assert_eq!(connect(&mut served(), (Node::vip(false), 80)).0, Landed::Pod(1));
}

#[test]
fn a_service_answers_a_pod() {
    let mut node = served();
    let (_, got) = connect(&mut node, (Node::vip(false), 80));
    assert_eq!(SEND.pod(&mut node, 1, &answer(&got, ACK)).0, Landed::Pod(0));
}

#[test]
fn a_pod_to_the_outside_at_the_uplink() {
    assert_eq!(connect(&mut Node::new(), (Node::world(false), 80)).0, Landed::Outside);
}

#[test]
fn the_outside_to_a_node_port() {
    let (mut node, _) = node_port(false, TCP, &[(Node::pod(1, false), 8080)], 0);
    let (client, to) = ((Node::world(false), CLIENT), (Node::address(false), NODE_PORT));
    let (landed, got) = SEND.arrives(&mut node, &tcp(client, to, SYN));
    assert_eq!((landed, SEND.pod(&mut node, 1, &answer(&got, SYN_ACK)).0), (Landed::Pod(1), Landed::Out));
    for _ in 0..2 {
        assert_eq!(SEND.arrives(&mut node, &tcp(client, to, ACK)).0, landed);
    }
}

#[test]
fn the_outside_to_the_node_itself() {
    let sent = tcp((Node::world(false), CLIENT), (Node::address(false), 22), ACK);
    assert_eq!(SEND.arrives(&mut Node::new(), &sent).0, Landed::Host);
}

#[test]
fn new_from_a_pod_to_a_pod() {
    let sent = tcp((Node::pod(0, false), CLIENT), (Node::pod(1, false), 80), SYN);
    assert_eq!(SEND.pod(&mut Node::new(), 0, &sent).0, Landed::Pod(1));
}

#[test]
fn new_from_a_pod_to_a_service() {
    let sent = tcp((Node::pod(0, false), CLIENT), (Node::vip(false), 80), SYN);
    assert_eq!(SEND.pod(&mut served(), 0, &sent).0, Landed::Pod(1));
}

#[test]
fn new_from_the_outside_to_a_node_port() {
    let (mut node, _) = node_port(false, TCP, &[(Node::pod(1, false), 8080)], 0);
    let sent = tcp((Node::world(false), CLIENT), (Node::address(false), NODE_PORT), SYN);
    assert_eq!(SEND.arrives(&mut node, &sent).0, Landed::Pod(1));
}
