//! What comes to the node from outside, at the driver of an uplink: XDP, before the kernel has made anything of the packet.
//!
//! It decides nothing anew. A flow that [`super::from_uplink()`] has made for a client outside, to a backend elsewhere, is
//! served here in both directions as that walk serves it: by the same entry, to the same tuple, the same way. Whatever else a
//! packet is, or would change, is left to that walk, which has it next, untouched.

use super::Action;
use crate::config::Config;
use crate::drop::DropReason;
use crate::flow::{self, Flow, FlowFlags, FlowState, NO_BACKEND, Place};
use crate::kernel::Driver;
use crate::overlay;
use crate::packet::stage::parse;
use crate::packet::{Class, ETH_LEN, Fragment, Packet, TCP, UDP, decrement_ttl, rewrite};
use crate::peer::{NO_SLOT, NodeHop};
use crate::scratch::{Walk, Way};
use crate::service;
use crate::{Addr, WirePort};

/// Offset of the L4 header of packets that are served here, behind an IP header of either family with nothing more to it.
const L4: [u32; 2] = [ETH_LEN + 20, ETH_LEN + 40];

/// The walk of a packet at the driver: it is left as it is, or sent on, with the Ethernet addresses of its next hop.
#[inline(always)]
pub fn xdp_uplink<K: Driver>(k: &K, w: &mut Walk, ether_type: u16) -> Action {
    w.begin();
    let Some(config) = k.config() else { return Action::PASS };
    if parse(k, w, ether_type).is_err() || !is_plain(&w.packet) {
        return Action::PASS;
    }
    let Some(place) = flow::meet(k, w) else { return Action::PASS };
    if !is_served(k, w, place, config) {
        return Action::PASS;
    }
    let Some((action, macs)) = way(k, w, place, config) else { return Action::PASS };
    if !flow::keep(k, w, place) {
        return Action::PASS;
    }
    let target = w.draft.target;
    if decrement_ttl(k, &mut w.packet) && rewrite(k, &mut w.packet, &target) && k.store(0, &macs) {
        action
    } else {
        Action::drop(DropReason::Rewrite)
    }
}

/// Whether a packet is TCP or UDP, whole, and with nothing in its IP header but what is in every one. One that a router would
/// answer with an error is not.
#[inline(always)]
fn is_plain(p: &Packet) -> bool {
    let [v4, v6] = L4;
    let is_whole = p.fragment == Fragment::NONE && p.l4 == if p.v6 == 1 { v6 } else { v4 };
    is_whole && p.class == Class::PORTS && (p.proto == TCP || p.proto == UDP) && p.ttl > 1
}

/// Whether the flow in `w.met` is one that is served here, in the direction of the packet: a client outside has it with a
/// backend that is not on this node, and that it may go on with.
#[inline(always)]
fn is_served<K: Driver>(k: &K, w: &Walk, place: Place, config: &Config) -> bool {
    let Flow { flags, opener, responder, backend, generation, state, ref other, .. } = w.met;
    // The opener sends the near tuple, and the responder answers the far one.
    let side = if place.forward { FlowFlags::NEAR } else { FlowFlags::FAR };
    let kind =
        flags & (FlowFlags::NEAR | FlowFlags::FAR | FlowFlags::OUTSIDE | FlowFlags::STACK | FlowFlags::FROM_NODE);
    if kind != side | FlowFlags::OUTSIDE || opener.slot != NO_SLOT || responder.slot != NO_SLOT {
        return false;
    }
    if backend == NO_BACKEND || state.value & FlowState::GONE != 0 {
        return false;
    }
    if w.packet.proto == TCP {
        return true;
    }
    let lasts = state.value & FlowState::STREAM != 0;
    if place.forward && service::flow_is_stale(k, backend, generation.value, lasts) {
        return false;
    }
    let (t, port) = (&w.packet.tuple, config.tunnel_port);
    let is_tunnels = t.sport == port || t.dport == port || other.sport == port || other.dport == port;
    port == WirePort::NONE || !is_tunnels
}

/// Notes the tuple that the packet gets, and finds where it goes and by which Ethernet addresses. Nothing if it is too large for
/// the way, or that is not known for certain.
#[inline(always)]
fn way<K: Driver>(k: &K, w: &mut Walk, place: Place, config: &Config) -> Option<(Action, [[u8; 6]; 2])> {
    let (_, receiver) = w.met.ends(place.forward);
    w.way = Way::of(&w.met, receiver);
    w.draft.target = if place.forward { w.met.other } else { w.met.other.reversed() };
    w.way.translate = 1;
    let (v6, length) = (w.packet.v6 == 1, k.packet_len().saturating_sub(ETH_LEN));
    let mut to = Addr::UNSPECIFIED;
    let mut by = 0;
    if w.way.out == 0 {
        let node = k.node(receiver.node)?;
        if node.is_tunnelled(v6) || length > overlay::largest(config, &node, v6) {
            return None;
        }
        (to, by) = (next(&node, v6), node.ifindex);
    }
    let hop = k.hop(w, to, length)?;
    if w.way.out != 0 {
        Some((Action::out(v6, hop.ifindex), hop.macs))
    } else {
        (hop.ifindex == by).then_some((Action::to_node(receiver.node, v6), hop.macs))
    }
}

/// Whom packets go to that go to a node: itself, or whom the routes say (`::`).
#[inline(always)]
const fn next(node: &NodeHop, v6: bool) -> Addr {
    match (node.is_routed(v6), v6) {
        (true, _) => Addr::UNSPECIFIED,
        (false, true) => node.v6,
        (false, false) => node.v4,
    }
}
