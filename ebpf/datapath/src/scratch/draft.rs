//! A flow that is looked for or made.

use super::Packet;
use crate::Tuple;
use crate::tables::flow::{Flow, FlowKey};

/// What is needed to find a flow and to create one.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Draft {
    /// The key of the packet as it came: [`crate::flow::find`] leaves it.
    pub key: FlowKey,
    /// The key of the far side.
    pub far: FlowKey,
    /// The tuple that the responder is to see.
    pub target: Tuple,
    /// The entry.
    pub flow: Flow,
    /// Room for a copy of an entry.
    pub spare: Flow,
    /// 1 if the packet's source is the responder: an answer in a connection that is older than the tables.
    pub turned: u32,
    /// Zero.
    pub pad: u32,
}

impl Draft {
    /// Begins a new flow for a packet. The key stays as the search has left it; every other field is
    /// written, so that nothing of another packet's flow gets into this one's entry.
    #[inline(always)]
    pub fn open(&mut self, packet: &Packet, generation: u32) {
        // `far` and `spare` are written as a whole before they are read.
        let Self { key: _, far: _, target, flow, spare: _, turned, pad: _ } = self;
        *target = packet.tuple;
        flow.clear();
        flow.generation.store(generation);
        flow.isn = packet.seq;
        *turned = 0;
    }
}
