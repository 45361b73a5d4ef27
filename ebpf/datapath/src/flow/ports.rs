//! The source ports of translated flows.
//!
//! A flow keeps its client's port if nobody has it and it is one of the node's range (or below 1024, where the range has none);
//! one that follows another between the same ends keeps that one's. Else it gets one of the node's range: drawn by chance while
//! the destination has few in use, out of those that are known to be free once it is crowded, and at last one whose flow is over.
//! Each is one that no flow, no socket of the node and no service has.
//!
//! A pod, or a network that clients outside are in, may have as many ports of a destination as there are while few are in use:
//! from half of them on a quarter of all, and of the last tenth only who has few. Beyond that a question over UDP gets the port
//! of one that its pod asked before, and that was answered.

use super::pair::stage::aim_far;
use super::pair::{insert_far, put_far};
use crate::WirePort;
use crate::bits::lowest_bit;
use crate::config::Config;
use crate::drop::DropReason;
use crate::kernel::{Kernel, stages};
use crate::packet::stage::read_stamp;
use crate::packet::{Class, ICMP, ICMPV6, Packet, SCTP, TCP, UDP};
use crate::register::{Answer, variants};
use crate::scratch::{Draft, Walk};
use crate::service::service_port;
use crate::tables::flow::{FlowFlags, InsertError};
use crate::tables::port::{PortSet, crowded_from, holder};

stages! {
    fn reserve(new_source: bool) -> Result<(), DropReason>, as Reserve;
    fn aim(round: u32, host: bool) -> Aim, as AimAtPort;
    fn find_free(from: u32) -> u32, as FindFreePort;
}

/// The round of the search that tries the port which the connection before had.
const AGAIN: u32 = 0;
/// And the one that tries the client's own.
const OWN: u32 = 1;

/// Tries after those. Where fewer than an eighth of the ports are in use, one in 10^14 flows finds
/// none of 16 free.
const DRAWS: u32 = 16;

/// Tries of ports in use, when ports are short: in the first half of them a question has to be answered for [`IDLE`]'s
/// first number of seconds, then for its second.
const LAST: u32 = 24;

/// And more of those, for a question of a pod that is above its share: few of the ports in use may be its own, and answered for a while.
/// Where it is one of sixteen, one in a thousand questions finds none.
const OF_ITS_OWN: u32 = 64;

/// Rounds of the search.
const ROUNDS: u32 = OWN + 1 + DRAWS + LAST + OF_ITS_OWN;

/// Seconds after its last packet from which on an answered question gives up its port when ports are short.
const IDLE: [u32; 2] = [10, 1];

/// Words of a set of ports that are looked at for one with a free port.
const WORDS: u32 = 32;

/// Ports of a destination that a pod may have however few there are.
const FEW: u64 = 16;

/// What comes of a round of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// There is a port to try.
    Try,
    /// Not this time.
    Skip,
    /// There is none left.
    Stop,
}

variants!(Aim: Try, Skip; else Stop);

impl Answer for Aim {
    const BROKEN: Self = Self::Stop;
}

/// How many of a destination's ports are in use.
struct Pressure;

impl Pressure {
    /// Few.
    const NONE: u32 = 0;
    /// So many that it is kept which.
    const CROWDED: u32 = 1;
    /// Nearly all.
    const SHORT: u32 = 2;
}

/// Inserts the far entry, under the first source port that is free.
#[inline(always)]
fn reserve<K: Kernel>(k: &K, w: &mut Walk, new_source: bool) -> Result<(), DropReason> {
    // The uplink begins no draft of its own.
    (w.draft.stamp, w.draft.idle, w.draft.over) = (0, 0, 0);
    w.draft.flow.other = w.packet.tuple;
    if w.draft.key.alternate != 0 {
        w.draft.flow.flags |= FlowFlags::OTHER_ALTERNATE;
    }
    // Nothing tells two flows apart that have no ports; one goes if nobody has the tuple. So does SCTP, whose checksum would
    // have to be computed anew if a port changed.
    let fixed = w.packet.class != Class::PORTS || w.packet.proto == SCTP;
    let mut first = OWN + 1;
    if !new_source || fixed {
        match insert_far(k, w, new_source) {
            Ok(()) => return Ok(()),
            Err(InsertError::Full) => return Err(DropReason::FlowTableFull),
            Err(InsertError::Exists) if fixed => return Err(DropReason::NoSourcePort),
            Err(InsertError::Exists) => {}
        }
    } else {
        first = AGAIN;
    }
    admit(k, w)?;
    for round in first..ROUNDS {
        match stage::aim(k, w, round, new_source) {
            Aim::Stop => break,
            Aim::Skip => {}
            Aim::Try => match put_far(k, w) {
                Ok(()) => return Ok(()),
                Err(InsertError::Full) => return Err(DropReason::FlowTableFull),
                Err(InsertError::Exists) => {}
            },
        }
    }
    Err(if w.draft.over != 0 { DropReason::PortShare } else { DropReason::NoSourcePort })
}

/// Whether there is a port for the flow's pod, and how hard it may be to find.
#[inline(always)]
fn admit<K: Kernel>(k: &K, w: &mut Walk) -> Result<(), DropReason> {
    if w.packet.proto == TCP {
        w.draft.stamp = read_stamp(k, w);
    }
    let Some(config) = k.config() else { return Err(DropReason::Internal) };
    let draft = &mut w.draft;
    draft.place.set_of(&draft.target, w.packet.proto);
    draft.seed = k.random();
    draft.flow.flags |= FlowFlags::PORT | FlowFlags::HELD;
    let count = |index: u32| k.share(index).map_or(0, |word| k.count(word));
    let (all, in_use) = (u64::from(config.snat_count), count(draft.place.total(config.seed)));
    let own = count(draft.place.share(config.seed, holder(draft.flow.opener.slot, w.packet.tuple.src)));
    let (share, few) = ((all / 4).max(FEW), (all / 64).max(FEW));
    let over = (in_use >= all / 2 && own >= share) || (in_use >= all - all / 10 && own >= few);
    if over && !draft.flow.is(FlowFlags::FROM_NODE) {
        if w.packet.proto != UDP {
            return Err(DropReason::PortShare);
        }
        draft.over = 1;
    }
    draft.pressure = if in_use >= all - all / 8 {
        Pressure::SHORT
    } else if in_use >= crowded_from(config.snat_count) {
        Pressure::CROWDED
    } else {
        Pressure::NONE
    };
    Ok(())
}

/// Gives the target the source port that a round of the search tries, and makes the draft's flow its far entry. `host`: as
/// [`super::pair::aim_far`] takes it.
#[inline(always)]
fn aim<K: Kernel>(k: &K, w: &mut Walk, round: u32, host: bool) -> Aim {
    let Some(config) = k.config() else { return Aim::Stop };
    let (proto, draft) = (w.packet.proto, &mut w.draft);
    // An echo has its identifier at the end that asks and nothing at the other.
    let asked = is_echo(&w.packet) && draft.target.sport == WirePort::NONE;
    if round > OWN {
        if draft.over != 0 {
            draft.idle = IDLE[1];
        } else if round > OWN + DRAWS {
            if draft.pressure != Pressure::SHORT || round > OWN + DRAWS + LAST {
                return Aim::Stop;
            }
            draft.idle = if round <= OWN + DRAWS + LAST / 2 { IDLE[0] } else { IDLE[1] };
        }
        draft.seed = draft.seed.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
        let mut offset = ((u64::from(draft.seed) * u64::from(config.snat_count)) >> 32) as u16;
        if draft.over != 0 || (round <= OWN + DRAWS && draft.pressure != Pressure::NONE) {
            // Somebody had it, whether or not that was known.
            let tried = if asked { draft.target.dport } else { draft.target.sport };
            if draft.over == 0
                && let Some((word, bit)) = k.ports(&draft.place).and_then(|set| set.place(tried.number()))
            {
                k.set_bits(word, bit);
            }
            let over = draft.over != 0;
            let found = stage::find_free(k, w, u32::from(config.snat_first.wrapping_add(offset)));
            offset = (found as u16).wrapping_sub(config.snat_first);
            // What its pod has already may be of any range.
            if over && found == 0 {
                return Aim::Skip;
            }
        }
        if offset >= config.snat_count && w.draft.over == 0 {
            return Aim::Skip;
        }
        aim_at(&mut w.draft, WirePort::new(config.snat_first.wrapping_add(offset)), asked);
    }
    let (own, draft) = (w.packet.tuple.sport, &mut w.draft);
    if round <= OWN && draft.over != 0 {
        return Aim::Skip;
    }
    if draft.again != WirePort::NONE && round <= OWN {
        draft.target.sport = if round == AGAIN { draft.again } else { own };
    } else if round == AGAIN {
        return Aim::Skip;
    }
    let port = if asked { draft.target.dport } else { draft.target.sport };
    // A client's own port that no privilege is needed for is one of the range, or it is not kept.
    if round <= OWN && port.number() >= Config::SNAT_FIRST && !config.is_snat_port(port) {
        return Aim::Skip;
    }
    let of_service = service_port(port, proto).is_some_and(|(index, bit)| k.service_ports(index) & bit != 0);
    if !of_service && aim_far(k, w, host) { Aim::Try } else { Aim::Skip }
}

#[inline(always)]
fn aim_at(draft: &mut Draft, port: WirePort, asked: bool) {
    if asked {
        draft.target.dport = port;
    } else {
        draft.target.sport = port;
    }
}

/// A port of the destination that is free, or in use if it may have no other, of the word that has a port or one of those
/// behind it. That port itself if nothing is known, 0 if there is none.
#[inline(always)]
fn find_free<K: Kernel>(k: &K, w: &mut Walk, from: u32) -> u32 {
    match k.ports(&w.draft.place) {
        Some(set) => {
            let wanted = if w.draft.over != 0 { u64::MAX } else { 0 };
            find_in(set, wanted, from as u16, w.draft.seed).map_or(0, u32::from)
        }
        None => from,
    }
}

/// A port whose bit is as those of `wanted`, of the word that has a port or one of those behind it.
#[inline(always)]
fn find_in(set: &PortSet, wanted: u64, from: u16, random: u32) -> Option<u16> {
    let (mut index, mut free) = (from >> 6, 0);
    for _ in 0..WORDS {
        free = !(set.words.get(usize::from(index & 1023))?.load() ^ wanted);
        if free != 0 {
            break;
        }
        index = index.wrapping_add(1);
    }
    if free == 0 {
        return None;
    }
    let turn = random & 63;
    let place = lowest_bit(free.rotate_right(turn)) + turn;
    Some((index & 1023) << 6 | (place & 63) as u16)
}

#[inline(always)]
const fn is_echo(p: &Packet) -> bool {
    p.proto == ICMP || p.proto == ICMPV6
}

#[cfg(test)]
mod tests;
