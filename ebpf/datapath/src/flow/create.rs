//! New flows, and the source ports of translated ones.

use super::find::{find_key, live};
use super::layout::{Flow, FlowFlags, FlowKey};
use super::track::{expired, insert_into};
use super::{InsertError, Table};
use crate::drop::DropReason;
use crate::kernel::Kernel;
use crate::packet::{Class, ICMP, ICMPV6, Packet, SCTP, TCP, Tuple};
use crate::peer::NO_SLOT;

/// Source ports that are tried before a flow is refused.
const TRIES: u32 = 24;

/// What is needed to create a flow, kept in scratch memory: the stack is small.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Draft {
    /// The key of the packet as it came.
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

/// Creates the flow of a packet that has none: `draft.key` as [`super::find`] left it, `draft.target` what the
/// responder is to see, `draft.flow` with everything but tuples, tags and NEAR, FAR and OPENER flags.
///
/// `new_source`: the source address changes, so its port has to be a free one. The target's source port is filled in.
#[inline(always)]
pub fn create<K: Kernel>(k: &K, p: &Packet, draft: &mut Draft, new_source: bool) -> Result<(), DropReason> {
    admit(k, &draft.flow)?;
    let now = k.seconds();
    draft.flow.seen.store(now);
    draft.flow.opened = now;
    let from_a = draft.key.is_from_a(&p.tuple);
    let alternate = draft.key.alternate != 0;
    if draft.target == p.tuple && !alternate {
        draft.flow.tag = draft.key.tag();
        draft.flow.flags |= opener_flag(from_a == (draft.turned == 0));
        return match insert_into(k, Table::Any, &draft.key, &draft.flow) {
            // Another CPU had the same packet's twin, and decided the same.
            Ok(()) | Err(InsertError::Exists) => Ok(()),
            Err(InsertError::Full) => Err(DropReason::FlowTableFull),
        };
    }
    reserve(k, p, draft, new_source || alternate)?;
    insert_near(k, draft, from_a)
}

/// Whether the accountable pod may open another flow.
#[inline(always)]
fn admit<K: Kernel>(k: &K, flow: &Flow) -> Result<(), DropReason> {
    let slot = flow.accountable();
    if slot == NO_SLOT || flow.is(FlowFlags::FROM_NODE) {
        return Ok(());
    }
    let (Some(flows), Some(config), Some(pod)) = (k.pod_flows(slot), k.config(), k.pod(slot)) else { return Ok(()) };
    let limit = |own: u32, default: u32| if own == 0 { default } else { own };
    if flows.established.get() >= u64::from(limit(pod.max_flows, config.max_flows)) {
        return Err(DropReason::FlowLimit);
    }
    let now = k.seconds();
    if flows.second.load() != now {
        flows.second.store(now);
        flows.opened.store(0);
    }
    let opened = flows.opened.load();
    if opened >= limit(pod.max_rate, config.max_rate) {
        return Err(DropReason::FlowRate);
    }
    flows.opened.store(opened + 1);
    Ok(())
}

#[inline(always)]
const fn opener_flag(from_a: bool) -> u32 {
    if from_a { FlowFlags::OPENER_IS_A } else { 0 }
}

/// Inserts the far entry, under the first source port that is free.
#[inline(always)]
fn reserve<K: Kernel>(k: &K, p: &Packet, draft: &mut Draft, new_source: bool) -> Result<(), DropReason> {
    draft.flow.other = p.tuple;
    if draft.key.alternate != 0 {
        draft.flow.flags |= FlowFlags::OTHER_ALTERNATE;
    }
    if !new_source {
        match k.insert_far(p, draft, false) {
            Ok(()) => return Ok(()),
            Err(InsertError::Full) => return Err(DropReason::FlowTableFull),
            Err(InsertError::Exists) => {}
        }
    }
    if p.class != Class::PORTS || p.proto == SCTP {
        // Nothing to tell two such flows apart by; one without ports goes if nobody has the tuple. So does SCTP, whose
        // checksum would have to be computed anew if a port changed.
        return match k.insert_far(p, draft, new_source) {
            Ok(()) => Ok(()),
            Err(_) => Err(DropReason::NoSourcePort),
        };
    }
    let Some(config) = k.config() else { return Err(DropReason::NoSourcePort) };
    let mut place = k.random();
    for _ in 0..TRIES {
        let offset = ((u64::from(place) * u64::from(config.snat_count)) >> 32) as u16;
        let port = config.snat_first.wrapping_add(offset).to_be();
        // An echo has its identifier at the end that asks and nothing at the other.
        if is_echo(p) && draft.target.sport == 0 {
            draft.target.dport = port;
        } else {
            draft.target.sport = port;
        }
        match k.insert_far(p, draft, new_source) {
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

/// Inserts the far entry for the target as it stands. `host`: the source is the node's address, so a socket of the node
/// may have the port.
#[inline(always)]
pub fn insert_far<K: Kernel>(k: &K, proto: u8, draft: &mut Draft, host: bool) -> Result<(), InsertError> {
    let from_a = draft.far.set(&draft.target, proto);
    if host && k.host_socket(&draft.far, from_a) {
        return Err(InsertError::Exists);
    }
    let common = draft.flow.flags & !(FlowFlags::NEAR | FlowFlags::OPENER_IS_A);
    draft.flow.flags = common | FlowFlags::FAR | opener_flag(from_a);
    draft.flow.tag = draft.far.tag();
    // A connection may live under this tuple among the established ones.
    if proto == TCP && live(k, Table::Established, &draft.far).is_some() {
        return Err(InsertError::Exists);
    }
    match k.insert_flow(Table::Any, &draft.far, &draft.flow, true) {
        Err(InsertError::Exists) if is_free(k, proto, draft) => {
            k.insert_flow(Table::Any, &draft.far, &draft.flow, false)
        }
        other => other,
    }
}

/// Whether the entry in the far entry's place may be replaced: it has expired, or is this flow's own, whose near entry
/// was evicted.
#[inline(always)]
fn is_free<K: Kernel>(k: &K, proto: u8, draft: &Draft) -> bool {
    let Some(there) = k.flow(Table::Any, &draft.far) else { return true };
    expired(there, proto, k.seconds()) || (there.is(FlowFlags::FAR) && there.other == draft.flow.other)
}

/// Inserts the near entry. If another CPU was faster, what it decided holds.
#[inline(always)]
fn insert_near<K: Kernel>(k: &K, draft: &mut Draft, from_a: bool) -> Result<(), DropReason> {
    let common = draft.flow.flags & !(FlowFlags::FAR | FlowFlags::OPENER_IS_A | FlowFlags::OTHER_ALTERNATE);
    draft.flow.flags = common | FlowFlags::NEAR | opener_flag(from_a);
    draft.flow.tag = draft.key.tag();
    draft.flow.other = draft.target;
    match insert_into(k, Table::Any, &draft.key, &draft.flow) {
        Ok(()) => Ok(()),
        Err(InsertError::Full) => {
            k.remove_flow(Table::Any, &draft.far);
            Err(DropReason::FlowTableFull)
        }
        Err(InsertError::Exists) => {
            let Some(theirs) = k.flow(Table::Any, &draft.key) else { return Err(DropReason::Race) };
            if theirs.tag != draft.key.tag() || !theirs.is(FlowFlags::NEAR) {
                k.remove_flow(Table::Any, &draft.far);
                return Err(DropReason::Race);
            }
            // Another backend or port: then this one's place is given back.
            if theirs.other != draft.target {
                k.remove_flow(Table::Any, &draft.far);
            }
            draft.target = theirs.other;
            Ok(())
        }
    }
}

/// Gives a flow that leaves the cluster its source at the uplink: `draft.target` is the tuple that the outside is to
/// see, but for the port. The flow's one entry becomes two.
#[inline(always)]
pub fn translate_at_uplink<K: Kernel>(k: &K, p: &Packet, draft: &mut Draft) -> Result<(), DropReason> {
    let source_is_a = draft.key.is_from_a(&p.tuple);
    let Some(hit) = find_key(k, &draft.key, source_is_a, Table::Any) else { return Err(DropReason::Race) };
    draft.flow.copy_from(hit.flow);
    let from_a = hit.flow.is(FlowFlags::OPENER_IS_A);
    draft.flow.flags = (hit.flow.flags & !FlowFlags::MASQUERADE) | FlowFlags::AT_UPLINK;
    reserve(k, p, draft, true)?;
    draft.flow.flags = (draft.flow.flags & !(FlowFlags::FAR | FlowFlags::OPENER_IS_A | FlowFlags::OTHER_ALTERNATE))
        | FlowFlags::NEAR
        | opener_flag(from_a);
    draft.flow.tag = draft.key.tag();
    draft.flow.other = draft.target;
    match k.insert_flow(hit.table, &draft.key, &draft.flow, false) {
        Ok(()) => Ok(()),
        Err(_) => {
            k.remove_flow(Table::Any, &draft.far);
            Err(DropReason::FlowTableFull)
        }
    }
}
