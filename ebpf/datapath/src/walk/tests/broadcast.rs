//! P82: addresses that mean all hosts of a network that the node is on.

use super::*;
use crate::Addr;
use crate::service::{FrontendFlags, NodeAddress};
use crate::testing::{Fate, Hook};

const ALL: &str = "172.18.255.255";

/// A node that is on such a network, with a NodePort.
fn node() -> (Node, IpAddr) {
    let (mut node, all) = (Node::new(), ALL.parse().unwrap());
    node.node_ports();
    node.host.services.node_addresses.insert(Addr::from(all), NodeAddress::BROADCAST);
    for proto in [TCP, UDP] {
        node.service(("0.0.0.0".parse().unwrap(), 30_080), proto, &[(Node::pod(1, false), 8080)]);
        node.flag(("0.0.0.0".parse().unwrap(), 30_080), proto, FrontendFlags::NODE_PORT);
    }
    (node, all)
}

#[test]
fn p82_what_a_pod_sends_to_all_hosts_goes_nowhere() {
    for proto in [TCP, UDP] {
        for port in [53, 30_080] {
            let (mut node, all) = node();
            let from = (Node::pod(0, false), CLIENT);
            let message = if proto == TCP { tcp(from, (all, port), SYN) } else { udp(from, (all, port)) };
            assert_eq!(node.pod_sends(0, &mut message.frame()), dropped(DropReason::Multicast));
        }
    }
    let (mut node, all) = node();
    let echo = Message::new(Node::pod(0, false), all, L4::Ask(5));
    assert_eq!(node.pod_sends(0, &mut echo.frame()), dropped(DropReason::Multicast));
    let nobody = "10.244.1.255".parse().unwrap();
    let to_range = udp((Node::pod(0, false), CLIENT), (nobody, 53));
    assert_eq!(node.pod_sends(0, &mut to_range.frame()), Landed::Refused(DropReason::NoSuchPod), "nobody has it");
}

#[test]
fn p82_what_comes_in_for_all_hosts_is_the_nodes_own_and_no_services() {
    for port in [53, 30_080] {
        let (mut node, all) = node();
        let message = udp((Node::world(false), CLIENT), (all, port));
        let mut frame = message.frame();
        assert_eq!(node.host.run(Hook::FromUplink(Node::UPLINK), &mut frame), Fate::Pass);
        assert_eq!(seen(&frame).ends(), ((Node::world(false), CLIENT), (all, port)), "as it came");
        // The same port of the node itself is the service's.
        let own = udp((Node::world(false), CLIENT), (Node::address(false), 30_080));
        assert_eq!(node.arrives(&mut own.frame()), Landed::Pod(1));
    }
    // Nobody is told who says that he is all hosts.
    let (mut node, all) = node();
    node.frontend((Node::vip(false), 80), UDP, 1, crate::service::Scope::REJECT);
    let message = udp((all, CLIENT), (Node::vip(false), 80));
    assert_eq!(node.arrives(&mut message.frame()), dropped(DropReason::Rejected));
}
