//! Flows that are opened towards a pod from elsewhere: from outside the node, or by the node itself.

use super::Action;
use super::address::Whose;
use super::address::stage::look_up;
use super::judge;
use super::opening::Opening;
use super::outside::{leads_out, leads_to_nodes};
use super::route::end_of;
use crate::drop::DropReason;
use crate::flow::stage::create;
use crate::flow::{End, FlowFlags, FlowState};
use crate::ifindex_of;
use crate::kernel::{Kernel, stages};
use crate::packet::{Class, Fragment};
use crate::peer::{NO_NODE, NO_SLOT, PeerFlags, PodWord};
use crate::register::variants;
use crate::scratch::{Ends, Walk, Way};

stages! {
    fn open_inbound(slot: u16, how: Inbound) -> Action, as OpenInbound;
    fn came_by_nodes() -> bool, as CameByNodes;
}

/// How a packet comes to a pod that did not ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Inbound {
    /// In by an uplink or through the tunnel, to be handed over.
    Uplink = 0,
    /// Forwarded by the host's stack, at the pod's veth.
    Forwarded = 1,
    /// Made by the node itself, at the pod's veth.
    Node = 2,
}

/// Whether a packet that the host's stack brings came in by a pod's interface. IPv6 fragments that the stack made have
/// come in nowhere. What a bridge has brought to the stack of another plugin's pod has come in by the bridge: the program at its
/// port has looked at its source. By an uplink, of which the bridge is none, no pod of this node sends.
#[inline(always)]
pub(super) fn came_from<K: Kernel>(k: &K, w: &Walk, slot: u16) -> bool {
    let by = k.ingress_ifindex();
    (k.host_side(slot) != 0 && !leads_out(k, by))
        || by == ifindex_of(slot)
        || (by == 0 && w.packet.v6 == 1 && w.packet.fragment != Fragment::NONE)
}

/// Whether a packet that the host's stack brings came in where other nodes are, as what their pods send does. IPv6 fragments that
/// the stack made have come in nowhere.
#[inline(always)]
fn came_by_nodes<K: Kernel>(k: &K, _: &mut Walk) -> bool {
    let by = k.ingress_ifindex();
    by == 0 || leads_to_nodes(k, by)
}

variants!(Inbound: Uplink, Forwarded; else Node);

/// A packet that opens a flow to the pod in a slot: ingress policy, entry, and in.
///
/// What the node itself sends is always allowed (P33). Its flow is kept so that the answers find their way past the
/// pod's egress policy.
#[inline(always)]
fn open_inbound<K: Kernel>(k: &K, w: &mut Walk, slot: u16, how: Inbound) -> Action {
    let word = PodWord(k.pod_word(slot));
    if word.is_pending() {
        return Action::drop(DropReason::Pending);
    }
    // The node tells a pod of the pod's own packets, whose flow is known. What it says of others is about what somebody sent
    // it in the pod's name.
    if how == Inbound::Node && w.packet.class == Class::ERROR {
        return Action::drop(DropReason::NotAsked);
    }
    let opening = match Opening::of(k, w) {
        Ok(opening) => opening,
        Err(reason) => return Action::drop(reason),
    };
    let t = &w.packet.tuple;
    w.ends = Ends { opener: t.src, responder: t.dst, port: t.dport, pad: [0; 3] };
    look_up(k, w, Whose::Opener);
    w.to = w.found;
    // Who is on this node does not come in from outside, a pod by its own interface alone, and one elsewhere where nodes are.
    let elsewhere = match how {
        Inbound::Uplink => w.to.slot != NO_SLOT || w.to.flags & PeerFlags::SELF != 0,
        Inbound::Forwarded if w.to.slot != NO_SLOT => !came_from(k, w, w.to.slot),
        Inbound::Forwarded if w.to.node != NO_NODE => w.to.flags & PeerFlags::POD != 0 && !stage::came_by_nodes(k, w),
        Inbound::Forwarded | Inbound::Node => false,
    };
    if elsewhere {
        return Action::drop(DropReason::LocalAddress);
    }
    // Begun before it is judged: whether it was turned is noted there, not on the stack, of which this chain leaves nothing.
    w.draft.open(&w.packet, k.udp_generation());
    if how != Inbound::Node
        && let Err(reason) = judge::ingress(k, w, word)
    {
        if !opening.may_answer() {
            return Action::drop(reason);
        }
        judge::turn(w);
        if judge::egress(k, w, word, w.to.class).is_err() {
            // It is the responder's policy that is told of.
            judge::turn(w);
            return Action::drop(reason);
        }
        w.draft.turned = 1;
        w.ingress.set = 0;
    }
    let own = End { slot, node: NO_NODE };
    // Answers to what did not come from the cluster go the way that the host's routes say.
    let theirs = end_of(k, &w.to, w.packet.v6 == 1);
    let through_stack = how != Inbound::Uplink || theirs.node == NO_NODE;
    w.way = Way::to(own, through_stack);
    if w.packet.class == Class::ERROR || !opening.is_kept() {
        return Action::DELIVER;
    }
    let theirs = if through_stack { End::ELSEWHERE } else { theirs };
    let turned = w.draft.turned != 0;
    let flow = &mut w.draft.flow;
    flow.flags = if through_stack { FlowFlags::STACK } else { 0 };
    if how == Inbound::Node {
        flow.flags |= FlowFlags::FROM_NODE;
    }
    (flow.opener, flow.responder) = if turned { (own, theirs) } else { (theirs, own) };
    flow.opener_epoch.value = word.epoch();
    flow.responder_epoch.value = word.epoch();
    flow.state.value = if opening.begins() { 0 } else { FlowState::SYN | FlowState::REPLIED };
    w.makes = 1;
    match create(k, w, false) {
        Ok(()) => Action::DELIVER,
        Err(reason) => Action::drop(reason),
    }
}
