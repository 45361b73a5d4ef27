//! A flow that is looked for or made.

use super::{Packet, TcpFlags};
use crate::tables::flow::{Flow, FlowFlags, FlowKey, FlowState, TaggedKey};
use crate::tables::peer::NO_SLOT;
use crate::tables::port::{Destination, holder};
use crate::{Tuple, WirePort};

/// What is needed to find a flow and to create one.
#[derive(Debug, Default, zerocopy::FromBytes)]
#[repr(C)]
pub struct Draft {
    /// The key of the packet as it came: [`crate::flow::find`] leaves it.
    pub key: TaggedKey,
    /// The key of the far side.
    pub far: TaggedKey,
    /// The tuple that the responder is to see.
    pub target: Tuple,
    /// The entry.
    pub flow: Flow,
    /// Where a flow that needs a source port goes.
    pub place: Destination,
    /// The other key of a flow that gives way to this one.
    pub loser: TaggedKey,
    /// What an entry that comes or goes is counted by.
    pub counted: Counted,
    /// 1 if the packet's source is the responder: an answer in a connection that is older than the tables.
    pub turned: u32,
    /// The timestamp of the SYN that opens the flow, 0 if it has none or nobody has asked.
    pub stamp: u32,
    /// Seconds after which an answered question gives up its source port, 0 if there is no need.
    pub idle: u32,
    /// 1 if end `a` of the entry that gives way is its flow's opener.
    pub loser_from_a: u32,
    /// How many of the destination's ports are in use, for [`crate::flow`]'s search.
    pub pressure: u32,
    /// The random number of that search.
    pub seed: u32,
    /// 1 if the flow may have no port but one that its pod already has, and no longer needs.
    pub over: u32,
    /// The source port that the connection had which this one follows, between the same ends: its server may remember it, and
    /// knows this one to be newer. None if it follows none.
    pub again: WirePort,
    /// Zero.
    pub pad: u16,
}

impl Draft {
    /// Begins a new flow for a packet. The key stays as the search has left it; every other field is
    /// written, so that nothing of another packet's flow gets into this one's entry.
    #[inline(always)]
    pub fn open(&mut self, packet: &Packet, generation: u32) {
        // `far`, `place`, `loser` and its opener's end, `counted`, `pressure` and `seed` are written as a whole before they are read; `again` is
        // what the packet has met before.
        let Self {
            key: _,
            far: _,
            target,
            flow,
            place: _,
            loser: _,
            counted: _,
            turned,
            stamp,
            idle,
            loser_from_a: _,
            pressure: _,
            seed: _,
            over,
            again: _,
            pad: _,
        } = self;
        *target = packet.tuple;
        *flow = Flow::new();
        flow.generation.value = generation;
        flow.isn = if packet.tcp & TcpFlags::SYN != 0 { packet.seq } else { 0 };
        *turned = 0;
        *stamp = 0;
        *idle = 0;
        *over = 0;
    }
}

/// What an entry is counted by.
#[derive(Debug, Default, zerocopy::FromBytes)]
#[repr(C)]
pub struct Counted {
    /// Where its packets go, if it is a far entry.
    pub place: Destination,
    /// [`Flow::flags`].
    pub flags: u32,
    /// The pod that opened it, or [`crate::peer::NO_SLOT`].
    pub opener: u16,
    /// The pod that it was opened to.
    pub responder: u16,
    /// Its source port, if it is a far entry.
    pub port: WirePort,
    /// Zero.
    pub pad: u16,
    /// Who holds that: [`crate::tables::port::holder`].
    pub holder: u32,
}

impl Counted {
    /// Notes an entry.
    #[inline(always)]
    pub fn set(&mut self, key: &FlowKey, flow: &Flow) {
        let Self { place, flags, opener, responder, port, pad: _, holder: who } = self;
        *port = place.set(key, flow.is(FlowFlags::OPENER_IS_A));
        *flags = flow.flags;
        // A connection of a pod that is gone counts for nobody.
        let gone = flow.state.value & FlowState::GONE != 0;
        *opener = if gone { NO_SLOT } else { flow.opener.slot };
        *responder = if gone { NO_SLOT } else { flow.responder.slot };
        *who = holder(flow.opener.slot, flow.other.src);
    }

    /// Whether any of these [`FlowFlags`] is set.
    #[inline(always)]
    #[must_use]
    pub const fn is(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }
}
