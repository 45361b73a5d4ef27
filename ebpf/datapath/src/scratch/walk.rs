//! What a walk remembers.

use super::{Draft, Packet, Question};
use crate::tables::flow::{End, Flow, FlowFlags};
use crate::tables::peer::{NO_NODE, NO_SLOT, Peer};
use crate::tables::policy::NO_BIT;
use crate::{Addr, Tuple, WirePort};

/// What a walk remembers of its packet. It lives in scratch memory of the CPU, since the stack is small.
#[derive(Debug, Default, zerocopy::FromBytes)]
#[repr(C)]
pub struct Walk {
    /// The packet's headers, kept up to date as it is rewritten.
    pub packet: Packet,
    /// The flow that is being looked for or made.
    pub draft: Draft,
    /// The entry that the packet met, as [`crate::flow::find`] copied it.
    pub met: Flow,
    /// Of a flow that changes: a copy of the entry that was met as it is now.
    pub own: Flow,
    /// And of its other entry.
    pub pair: Flow,
    /// Copies of entries that are in the way, or go.
    pub there: Flow,
    /// The bit by which the Admin tier passed on what is being judged, or [`NO_BIT`].
    pub passed: u32,
    /// 1 if the packet makes a flow, unless it is dropped.
    pub makes: u32,
    /// What the egress policy of the opener's pod answered.
    pub egress: Asked,
    /// What the ingress policy of the responder's pod answered.
    pub ingress: Asked,
    /// Who talks to whom, where policy is concerned.
    pub ends: Ends,
    /// What the packet can be if it has no entry: the number of a `walk::opening::Opening`.
    pub opening: u32,
    /// Which of a CPU's memories this is: 0 that of packets, 1 that of a sweep, which packets may interrupt.
    pub memory: u32,
    /// What is known of the other end.
    pub to: Peer,
    /// Where that is.
    pub route: Route,
    /// What [`crate::walk::stage::look_up`] found.
    pub found: Peer,
    /// What becomes of the packet once it is translated: a [`crate::walk::Action`], packed.
    pub action: u64,
    /// Where the packet goes.
    pub way: Way,
    /// [`crate::service::FrontendFlags`] of the frontend that a backend was chosen for.
    pub frontend: u32,
    /// The second in which the packet met [`Self::met`].
    pub now: u32,
    /// What an ICMP error quotes.
    pub quoted: Quoted,
    /// What a DNS query asks, and what is to be said.
    pub question: Question,
}

impl Walk {
    /// Begins with a packet: nothing of the one before is left where it could be taken for this one's. Every field is
    /// named here, so a new one can't be forgotten.
    #[inline(always)]
    pub fn begin(&mut self) {
        // A flow that is made begins with `Draft::open`; what is left of a search is its key, which it writes, and `again`.
        // `ends`, `opening`, `to`, `route`, `found`, `action`, `quoted`, `question`, and the copies of entries with their second are written as a whole before they are read.
        let Self {
            packet,
            draft,
            met: _,
            own: _,
            pair: _,
            there: _,
            passed: _,
            makes,
            egress,
            ingress,
            ends: _,
            opening: _,
            memory: _,
            to: _,
            route: _,
            found: _,
            action: _,
            way,
            frontend,
            now: _,
            quoted: _,
            question: _,
        } = self;
        *packet = Packet::UNREAD;
        draft.again = WirePort::NONE;
        *makes = 0;
        egress.set = 0;
        ingress.set = 0;
        *way = Way::to(End::ELSEWHERE, false);
        *frontend = 0;
    }
}

/// The packet that an ICMP error quotes, as [`crate::packet::quoted`] read it.
#[derive(Debug, Clone, Copy, Default, zerocopy::FromBytes)]
#[repr(C)]
pub struct Quoted {
    /// Who sent it to whom.
    pub tuple: Tuple,
    /// Offset of its L4 header.
    pub l4: u32,
    /// IP protocol number of that.
    pub proto: u32,
}

/// A policy set that was asked, and the rules that it went by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, zerocopy::FromBytes)]
#[repr(C)]
pub struct Asked {
    /// The set, 0 if none was asked: then the rest means nothing.
    pub set: u32,
    /// The bit that decided, or [`NO_BIT`].
    pub bit: u32,
    /// The bit by which the Admin tier passed it on, or [`NO_BIT`].
    pub passed: u32,
}

impl Asked {
    /// None was asked.
    pub const NOBODY: Self = Self { set: 0, bit: NO_BIT as u32, passed: NO_BIT as u32 };
}

/// Where an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, zerocopy::FromBytes)]
#[repr(C)]
pub struct Route {
    /// The end of a flow that it is.
    pub end: End,
    /// [`RouteFlags`].
    pub flags: u32,
}

flags! {
    /// Bits of [`Route::flags`].
    pub struct RouteFlags {
        /// The node itself is the destination.
        pub const OWN: u32 = 1;
        /// Out of the cluster.
        pub const LEAVES: u32 = 2;
        /// Out of the cluster, and with an address of the node.
        pub const MASQUERADE: u32 = 4;
    }
}

/// Where a packet goes, once that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, zerocopy::FromBytes)]
#[repr(C)]
pub struct Way {
    /// The end of its flow that it goes to.
    pub end: End,
    /// 1 if it goes through the host's stack, [`Way::HOME`] if by the device that the node's own packets to services leave by.
    pub stack: u32,
    /// 1 if it gets the tuple `draft.target` first.
    pub translate: u32,
    /// 1 if it leaves the node by the route to its destination, past the stack; [`Way::UNCUT`] if the stack has sent it already.
    pub out: u32,
    /// Of a packet of a known flow: index in `NODES` of the node that its sender is behind, or [`NO_NODE`].
    pub from: u32,
}

impl Way {
    /// [`Self::stack`] of what the node itself gets in the name of a service ([`crate::svc`]).
    pub const HOME: u32 = 2;

    /// [`Self::out`] of what the stack has sent, and so neither cuts nor sends on another way.
    pub const UNCUT: u32 = 2;

    /// To an end, as the packet is.
    #[inline(always)]
    #[must_use]
    pub const fn to(end: End, stack: bool) -> Self {
        Self { end, stack: stack as u32, translate: 0, out: 0, from: NO_NODE as u32 }
    }

    /// To an end of a flow, as the packet is.
    #[inline(always)]
    #[must_use]
    pub const fn of(flow: &Flow, end: End) -> Self {
        let elsewhere = end.slot == NO_SLOT && end.node == NO_NODE;
        let way = Self::to(end, flow.is(FlowFlags::STACK));
        Self { out: (way.stack == 0 && elsewhere && flow.is(FlowFlags::OUTSIDE | FlowFlags::BY_ROUTE)) as u32, ..way }
    }
}

/// Who talks to whom, where policy is concerned: the opener as it really is (before any change of its source), the
/// responder as it really is (a service's backend, P27 and P28).
#[derive(Debug, Clone, Copy, Default, zerocopy::FromBytes)]
#[repr(C)]
pub struct Ends {
    /// The opener's address.
    pub opener: Addr,
    /// The responder's.
    pub responder: Addr,
    /// The responder's port.
    pub port: WirePort,
    /// Zero.
    pub pad: [u16; 3],
}
