//! A node's packets, carried from hook to hook, and a host's stack that routes.

use std::net::IpAddr;

use super::frame::Frame;
use super::headers::{Headers, fold, sum};
use super::hook::{Fate, Hook};
use super::node::Node;
use crate::drop::DropReason;
use crate::ifindex_of;
use crate::overlay::{self, Outer};
use crate::peer::{self, NO_SLOT, Peer, PeerFlags};

/// Where a packet ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landed {
    /// In the pod in a slot.
    Pod(u16),
    /// On its way to another node, past the stack.
    Node(u16),
    /// On its way out of the uplink, by the stack.
    Outside,
    /// On its way out of the uplink, past the stack.
    Out,
    /// In the node itself.
    Host,
    /// Back where it came from, turned into an answer.
    Answered,
    /// Back where it came from, turned into an ICMP error.
    Refused(DropReason),
    /// Dropped.
    Dropped(DropReason),
    /// Dropped, and nobody counts it.
    Ignored,
    /// Dropped by the stack: it comes from an address of the node's own (`fib_validate_source`).
    Martian,
}

impl Node {
    /// Carries what a pod sends to where it ends.
    pub fn pod_sends(&mut self, slot: u16, frame: &mut Frame) -> Landed {
        frame.ingress = ifindex_of(slot);
        match self.host.run(Hook::FromPod(slot), frame) {
            Fate::Pass => panic!("what a pod sends is never let through unjudged"),
            fate => self.follow(fate, frame),
        }
    }

    /// Carries what comes in by the uplink to where it ends.
    pub fn arrives(&mut self, frame: &mut Frame) -> Landed {
        frame.ingress = Self::UPLINK;
        match self.host.run(Hook::FromUplink(Self::UPLINK), frame) {
            Fate::Pass => self.route(frame),
            fate => self.follow(fate, frame),
        }
    }

    /// Carries what comes through the tunnel, from this address, to where it ends.
    pub fn tunnelled(&mut self, remote: IpAddr, frame: &mut Frame) -> Landed {
        frame.ingress = overlay::IFINDEX;
        frame.outer = Some(Outer { remote: remote.into(), vni: overlay::VNI });
        match self.host.run(Hook::FromOverlay, frame) {
            Fate::Pass => self.route(frame),
            fate => self.follow(fate, frame),
        }
    }

    /// Carries what the node itself sends to where it ends.
    pub fn sends(&mut self, frame: &mut Frame) -> Landed {
        frame.ingress = 0;
        self.hand_out(frame)
    }

    /// Carries what the node itself sends to the address of a service, where its routes lead, to where it ends.
    pub fn asks(&mut self, frame: &mut Frame) -> Landed {
        frame.ingress = 0;
        match self.host.run(Hook::ToServices, frame) {
            Fate::Out => self.hand_out(frame),
            fate @ (Fate::Pass | Fate::Stack) => panic!("{fate:?} of what goes to a service"),
            fate => self.follow(fate, frame),
        }
    }

    fn follow(&mut self, fate: Fate, frame: &mut Frame) -> Landed {
        match fate {
            Fate::Stack | Fate::Pass => self.route(frame),
            Fate::Home => Landed::Host,
            Fate::ToPod(slot) => Landed::Pod(slot),
            Fate::ToNode(node) => Landed::Node(node),
            Fate::Out => self.leave(frame),
            Fate::Answer => Landed::Answered,
            Fate::Refused(reason) => Landed::Refused(reason),
            Fate::Drop(reason) => Landed::Dropped(reason),
            Fate::Ignore => Landed::Ignored,
        }
    }

    /// Out of the uplink past the stack, where the program at its egress has nothing to say.
    fn leave(&mut self, frame: &mut Frame) -> Landed {
        match self.host.run(Hook::ToUplink(Self::UPLINK), frame) {
            Fate::Pass => Landed::Out,
            other => panic!("{other:?} of what leaves past the stack"),
        }
    }

    /// What the host's stack does with a packet that came in somewhere.
    fn route(&mut self, frame: &mut Frame) -> Landed {
        let own = [Self::address(false), Self::address(true)];
        if frame.ingress != 0 && source(frame).is_some_and(|src| src.is_ipv4() && own.contains(&src)) {
            return Landed::Martian;
        }
        match destination(frame) {
            None => return Landed::Host,
            Some(dst) if dst == Self::address(true) || dst == Self::address(false) => return Landed::Host,
            Some(_) => {}
        }
        if !lower_ttl(frame) {
            return Landed::Dropped(DropReason::TtlExceeded);
        }
        self.hand_out(frame)
    }

    /// The last hop of the stack: to a pod, or out.
    fn hand_out(&mut self, frame: &mut Frame) -> Landed {
        let to = destination(frame).map_or(Peer::WORLD, |dst| peer::lookup(&self.host.peers, dst.into()));
        let through_tunnel = || {
            let v6 = destination(frame).is_some_and(|dst| dst.is_ipv6());
            self.host.peers.nodes.get(&to.node).is_some_and(|hop| hop.is_tunnelled(v6))
        };
        let (hook, done) = if to.slot != NO_SLOT {
            (Hook::ToPod(to.slot), Landed::Pod(to.slot))
        } else if to.flags & PeerFlags::NODE == 0 && through_tunnel() {
            (Hook::ToOverlay, Landed::Node(to.node))
        } else {
            (Hook::ToUplink(Self::UPLINK), Landed::Outside)
        };
        match self.host.run(hook, frame) {
            Fate::Pass => done,
            Fate::ToNode(node) if hook == Hook::ToOverlay => Landed::Node(node),
            Fate::Drop(reason) => Landed::Dropped(reason),
            Fate::Ignore => Landed::Ignored,
            other => panic!("{other:?} at an egress hook"),
        }
    }
}

fn source(frame: &Frame) -> Option<IpAddr> {
    Headers::read(&frame.bytes).ok().map(|headers| headers.src)
}

fn destination(frame: &Frame) -> Option<IpAddr> {
    Headers::read(&frame.bytes).ok().map(|headers| headers.dst)
}

/// As a router does, by computing the checksum anew.
fn lower_ttl(frame: &mut Frame) -> bool {
    let v4 = frame.bytes[14] >> 4 == 4;
    let at = if v4 { 22 } else { 21 };
    if frame.bytes[at] <= 1 {
        return false;
    }
    frame.bytes[at] -= 1;
    if v4 {
        let end = 14 + usize::from(frame.bytes[14] & 15) * 4;
        frame.bytes[24..26].fill(0);
        let csum = !fold(sum(&frame.bytes[14..end]));
        frame.bytes[24..26].copy_from_slice(&csum.to_be_bytes());
    }
    true
}
