//! The source ports of translated flows.

use super::pair::stage::insert_far;
use crate::WirePort;
use crate::drop::DropReason;
use crate::kernel::Kernel;
use crate::packet::{Class, ICMP, ICMPV6, Packet, SCTP};
use crate::scratch::Walk;
use crate::tables::flow::{FlowFlags, InsertError};

/// Source ports that are tried before a flow is refused.
const TRIES: u32 = 24;

/// Inserts the far entry, under the first source port that is free.
#[inline(always)]
pub(super) fn reserve<K: Kernel>(k: &K, w: &mut Walk, new_source: bool) -> Result<(), DropReason> {
    w.draft.flow.other = w.packet.tuple;
    if w.draft.key.alternate != 0 {
        w.draft.flow.flags |= FlowFlags::OTHER_ALTERNATE;
    }
    if !new_source {
        match insert_far(k, w, false) {
            Ok(()) => return Ok(()),
            Err(InsertError::Full) => return Err(DropReason::FlowTableFull),
            Err(InsertError::Exists) => {}
        }
    }
    if w.packet.class != Class::PORTS || w.packet.proto == SCTP {
        // Nothing to tell two such flows apart by; one without ports goes if nobody has the tuple. So does SCTP, whose
        // checksum would have to be computed anew if a port changed.
        return match insert_far(k, w, new_source) {
            Ok(()) => Ok(()),
            Err(_) => Err(DropReason::NoSourcePort),
        };
    }
    let Some(config) = k.config() else { return Err(DropReason::NoSourcePort) };
    // Asked once: what a stage may have written is asked again in each round otherwise.
    let echo = is_echo(&w.packet);
    let mut place = k.random();
    for _ in 0..TRIES {
        let offset = ((u64::from(place) * u64::from(config.snat_count)) >> 32) as u16;
        let port = WirePort::new(config.snat_first.wrapping_add(offset));
        // An echo has its identifier at the end that asks and nothing at the other.
        if echo && w.draft.target.sport == WirePort::NONE {
            w.draft.target.dport = port;
        } else {
            w.draft.target.sport = port;
        }
        match insert_far(k, w, new_source) {
            Ok(()) => return Ok(()),
            Err(InsertError::Full) => return Err(DropReason::FlowTableFull),
            Err(InsertError::Exists) => place = place.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15),
        }
    }
    Err(DropReason::NoSourcePort)
}

#[inline(always)]
const fn is_echo(p: &Packet) -> bool {
    p.proto == ICMP || p.proto == ICMPV6
}
