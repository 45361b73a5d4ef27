//! A packet's way, hook by hook. Each walk reads from top to bottom and ends in an [`Action`].
//!
//! - [`from_pod`]: what a pod sends. Parse, source check, flow; on a miss service, policy of both ends, new flow; rewrite,
//!   hand over.
//! - [`to_pod`]: what the host's stack sends to a pod.
//! - [`from_uplink`]: what comes to the node from outside: of a known flow, to a service (`outside`), to a pod.
//! - [`to_uplink`]: what leaves the node, for the masquerade, and for what processes of the node answer as a service.
//! - [`from_overlay`]: what comes from other nodes through the tunnel.
//! - [`to_overlay`]: what the host's stack sends to other nodes through the tunnel.
//!
//! Whoever hands a packet to a pod has judged it: the direct way skips the veth's egress hook.

mod action;
mod answer;
mod deliver;
mod errors;
mod from_overlay;
mod from_pod;
mod from_uplink;
mod inbound;
mod judge;
mod outside;
mod to_overlay;
mod to_pod;
mod to_uplink;

use crate::Addr;
use crate::flow::{Draft, End, Flow, FlowFlags};
use crate::kernel::Kernel;
use crate::packet::{Packet, Tuple};
use crate::peer::{self, NO_NODE, NO_SLOT, Peer, PeerFlags};
use crate::policy::NO_BIT;

pub use action::{Action, Step};
pub use errors::relate;
pub use from_overlay::from_overlay;
pub use from_pod::{answer_neighbour, choose_backend, from_pod, open as open_from_pod, still_no_service};
pub use from_uplink::from_uplink;
pub use inbound::{Inbound, open as open_inbound};
pub use judge::{Ends, judge_again};
pub use outside::open as open_from_outside;
pub use to_overlay::to_overlay;
pub use to_pod::to_pod;
pub use to_uplink::to_uplink;

/// What a walk remembers of its packet. It lives in scratch memory of the CPU, since the stack is small.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Walk {
    /// The packet's headers, kept up to date as it is rewritten.
    pub packet: Packet,
    /// The flow that is being looked for or made.
    pub draft: Draft,
    /// The policy set that was asked last, for the explanation of a drop.
    pub set: u32,
    /// The bit of that set that decided.
    pub bit: u32,
    /// Who talks to whom, where policy is concerned.
    pub ends: Ends,
    /// What is known of the other end.
    pub to: Peer,
    /// What [`look_up`] found.
    pub found: Peer,
    /// Where the packet goes.
    pub way: Way,
    /// [`crate::service::FrontendFlags`] of the frontend that a backend was chosen for.
    pub frontend: u32,
}

impl Walk {
    /// Forgets what the report of a drop would take for this packet's and is the one's before.
    #[inline(always)]
    fn begin(&mut self) {
        self.packet.tuple = Tuple { src: Addr::UNSPECIFIED, dst: Addr::UNSPECIFIED, sport: 0, dport: 0, pad: 0 };
        self.packet.proto = 0;
        self.set = 0;
        self.bit = u32::from(NO_BIT);
    }
}

/// Where a packet goes, once that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Way {
    /// The end of its flow that it goes to.
    pub end: End,
    /// 1 if it goes through the host's stack.
    pub stack: u32,
    /// 1 if it gets the tuple `draft.target` first.
    pub translate: u32,
    /// 1 if it leaves the node by the route to its destination, past the stack.
    pub out: u32,
}

impl Way {
    /// To an end, as the packet is.
    #[inline(always)]
    #[must_use]
    pub const fn to(end: End, stack: bool) -> Self {
        Self { end, stack: stack as u32, translate: 0, out: 0 }
    }

    /// To an end of a flow, as the packet is.
    #[inline(always)]
    #[must_use]
    pub const fn of(flow: &Flow, end: End) -> Self {
        let elsewhere = end.slot == NO_SLOT && end.node == NO_NODE;
        let way = Self::to(end, flow.is(FlowFlags::STACK));
        Self { out: (way.stack == 0 && elsewhere && flow.is(FlowFlags::OUTSIDE)) as u32, ..way }
    }
}

/// Notes in `w.found` what is known of an address.
#[inline(always)]
pub fn look_up<K: Kernel>(k: &K, w: &mut Walk, addr: Addr) {
    w.found = peer::lookup(k, addr);
}

/// The end of a flow that an address is. A node itself is reached by the host's stack, unless what goes to that node goes
/// through the tunnel: then its network need not know of pods' addresses.
#[inline(always)]
fn end_of<K: Kernel>(k: &K, peer: &Peer, v6: bool) -> End {
    let by_stack = peer.flags & PeerFlags::NODE != 0 && !k.node(peer.node).is_some_and(|hop| hop.is_tunnelled(v6));
    End { slot: peer.slot, node: if by_stack { NO_NODE } else { peer.node } }
}

#[cfg(test)]
mod tests;
