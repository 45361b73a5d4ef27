//! Handing a packet on: what a router does to it, and where it goes.

use super::{Action, Related, Walk};
use crate::drop::DropReason;
use crate::flow::{End, Flow, FlowFlags, Hit};
use crate::kernel::Kernel;
use crate::packet::{ETH_LEN, IcmpError, Packet, TCP, decrement_ttl, rewrite};
use crate::peer::{NO_NODE, NO_SLOT};

/// Sends a packet of a known flow to the other end, rewritten if the flow is translated.
#[inline(always)]
pub(super) fn along<K: Kernel>(k: &K, w: &mut Walk, hit: &Hit<'_>) -> Action {
    let flow = hit.flow;
    if !translate(k, w, flow, hit.forward) {
        return Action::drop(DropReason::Rewrite);
    }
    let end = if hit.forward { flow.responder } else { flow.opener };
    hand_over(k, w, end, flow.is(FlowFlags::STACK))
}

/// Sends an ICMP error the way of the flow that it is about.
#[inline(always)]
pub(super) fn error<K: Kernel>(k: &K, w: &mut Walk, related: Related) -> Action {
    if related.whole() { hand_over(k, w, related.end(), related.stack()) } else { Action::drop(DropReason::Rewrite) }
}

/// Sends the last packet of a flow, and forgets the flow. One that goes through the stack is met again on its way out,
/// and forgotten there.
#[inline(always)]
pub(super) fn last<K: Kernel>(k: &K, w: &mut Walk, hit: &Hit<'_>) -> Action {
    let action = along(k, w, hit);
    if !hit.flow.is(FlowFlags::STACK) {
        k.forget_flow(w, hit.table);
    }
    action
}

/// Gives a packet of a translated flow the tuple of the other side, if that is done here. False if it can't be.
#[inline(always)]
pub(super) fn translate<K: Kernel>(k: &K, w: &mut Walk, flow: &Flow, forward: bool) -> bool {
    let out = forward && flow.is(FlowFlags::NEAR) && !flow.is(FlowFlags::AT_UPLINK);
    let back = !forward && flow.is(FlowFlags::FAR);
    if !out && !back {
        return true;
    }
    w.draft.target = flow.other;
    if back {
        w.draft.target = flow.other.reversed();
    }
    rewrite(k, &mut w.packet, &w.draft.target)
}

/// Hands a packet to an end of its flow: into the pod, to the node, or to the host's stack.
#[inline(always)]
pub(super) fn hand_over<K: Kernel>(k: &K, w: &mut Walk, end: End, stack: bool) -> Action {
    if stack || (end.slot == NO_SLOT && end.node == NO_NODE) {
        return Action::STACK;
    }
    let Some(config) = k.config() else { return Action::STACK };
    if !fits(k, &w.packet, config.mtu) {
        // The stack cuts what may be cut; the flow's entry lets the pieces pass.
        return if w.packet.no_fragment == 0 {
            Action::STACK
        } else {
            Action::refuse(IcmpError::TooBig(config.mtu), DropReason::TooLarge)
        };
    }
    if !decrement_ttl(k, &mut w.packet) {
        return Action::refuse(IcmpError::TimeExceeded, DropReason::TtlExceeded);
    }
    if end.slot == NO_SLOT { Action::to_node(end.node, w.packet.v6 == 1) } else { Action::to_pod(end.slot) }
}

/// Whether a packet, or each segment of an aggregate, is within the MTU.
#[inline(always)]
fn fits<K: Kernel>(k: &K, p: &Packet, mtu: u32) -> bool {
    if k.packet_len() <= mtu + ETH_LEN {
        return true;
    }
    let payload = k.segment_size();
    if payload == 0 {
        return false;
    }
    let l4 = if p.proto == TCP {
        let Some([offset, _]) = k.load::<[u8; 2]>(p.l4 + 12) else { return false };
        u32::from(offset >> 4) * 4
    } else {
        8
    };
    p.l4 - ETH_LEN + l4 + payload <= mtu
}
