//! The choice of a backend for a new flow.

use super::{Backend, BackendState, Frontend, FrontendFlags, FrontendKey, Scope, SourceRangeKey, Tables, Verdict};
use crate::{Addr, WirePort};

/// Where a client is. It decides which [`super::Scope`] of a frontend counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A pod, or a node.
    Inside,
    /// Outside the cluster.
    Outside,
}

/// A backend that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// Its address.
    pub addr: Addr,
    /// Its id, for the flow to remember.
    pub id: u32,
    /// The generation of the id, for the flow to remember: see [`flow_is_stale`].
    pub generation: u32,
    /// The service port.
    pub service: u32,
    /// [`FrontendFlags`] of the frontend that it is behind.
    pub flags: u32,
    /// [`Frontend::affinity_seconds`] of that: see [`super::stick`].
    pub affinity_seconds: u32,
    /// The block that it was chosen from.
    pub block: Scope,
    /// Its port.
    pub port: WirePort,
}

/// What becomes of a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// The address is no service's: the flow goes where it was aimed.
    NotAService,
    /// To this backend.
    Forward(Chosen),
    /// Refused at once.
    Reject,
    /// Dropped in silence: endpoints exist, none that this client may use.
    Drop,
    /// Dropped since twice the tables changed under the reader. The client's next try will do.
    Raced,
}

/// Chooses the backend of a new flow to `addr` and `port` (as on the wire) from 32 random bits, each with the same
/// probability. The same bits choose the same backend for as long as the service does not change.
///
/// The tables may change at any point in it. A frontend that is another key's, or a backend that is another service's
/// or has stopped serving, was replaced a moment ago: the decision is made once more, with the tables as they are then.
#[inline(always)]
pub fn select<T: Tables>(tables: &T, addr: Addr, port: WirePort, proto: u8, from: From, random: u32) -> Selection {
    let mut key = FrontendKey::new(addr, port, proto);
    let Some(frontend) = find(tables, &mut key) else {
        return Selection::NotAService;
    };
    if let Some(selection) = answer(tables, &key, &frontend, from, random) {
        return selection;
    }
    key.addr = addr;
    let Some(frontend) = find(tables, &mut key) else {
        return Selection::NotAService;
    };
    match answer(tables, &key, &frontend, from, again(random)) {
        Some(selection) => selection,
        None => Selection::Raced,
    }
}

/// The frontend that a key leads to: its own, else that of every address of the node, whose key it becomes then.
#[inline(always)]
fn find<T: Tables>(tables: &T, key: &mut FrontendKey) -> Option<Frontend> {
    if let Some(frontend) = tables.frontend(key) {
        return Some(frontend);
    }
    let kinds = tables.node_address(&key.addr);
    if kinds == 0 {
        return None;
    }
    key.addr = key.addr.wildcard();
    // One that was replaced under the reader is told by its tag, later.
    tables.frontend(key).filter(|frontend| !frontend.is_of(key.tag()) || frontend.flags & kinds != 0)
}

/// Whether a client may use the frontend that it chose a backend by (S12).
#[inline(always)]
pub fn admits<T: Tables>(tables: &T, chosen: &Chosen, client: Addr) -> bool {
    let set = FrontendFlags::source_set_of(chosen.flags);
    set == 0 || tables.in_source_range(&SourceRangeKey::lookup(set, client))
}

/// As [`select`], but stays with the backend of before (id and generation) for as long as that serves this service,
/// whether or not a new flow could choose it: as a flow does that is remembered elsewhere.
#[inline(always)]
pub fn select_again<T: Tables>(
    tables: &T,
    addr: Addr,
    port: WirePort,
    proto: u8,
    from: From,
    random: u32,
    (id, generation): (u32, u32),
) -> Selection {
    let mut key = FrontendKey::new(addr, port, proto);
    if let Some(frontend) = find(tables, &mut key)
        && frontend.is_of(key.tag())
        && let Some(backend) = tables.backend(id)
        && BackendState(backend.state).generation() == generation
        && let Some(selection) = chosen(id, backend, &frontend, Scope::REJECT)
    {
        return selection;
    }
    select(tables, addr, port, proto, from, random)
}

/// What a frontend answers, or `None` when it can't be trusted.
#[inline(always)]
fn answer<T: Tables>(tables: &T, key: &FrontendKey, frontend: &Frontend, from: From, random: u32) -> Option<Selection> {
    if !frontend.is_of(key.tag()) {
        return None;
    }
    let scope = match from {
        From::Inside => frontend.internal,
        From::Outside => frontend.external,
    };
    match scope.verdict() {
        Verdict::Reject => Some(Selection::Reject),
        Verdict::Drop => Some(Selection::Drop),
        Verdict::Forward => {
            // Below `count` for every `random`; with a count of 0 it is the slot of somebody else, whose backend does
            // not belong to this service.
            let index = ((u64::from(random) * u64::from(scope.count())) >> 32) as u32;
            let id = tables.slot(scope.offset().wrapping_add(index))?;
            let backend = tables.backend(id)?;
            chosen(id, backend, frontend, scope)
        }
    }
}

/// The backend, if it serves the frontend's service.
#[inline(always)]
fn chosen(id: u32, backend: &Backend, frontend: &Frontend, block: Scope) -> Option<Selection> {
    let state = BackendState(backend.state);
    if backend.service != frontend.service || !state.serving() {
        return None;
    }
    let Backend { addr, port, service, .. } = *backend;
    let Frontend { flags, affinity_seconds, .. } = *frontend;
    let generation = state.generation();
    Some(Selection::Forward(Chosen { id, generation, service, flags, affinity_seconds, block, addr, port }))
}

/// Other random bits from the same: a second choice that depends on the first in no obvious way.
#[inline(always)]
const fn again(random: u32) -> u32 {
    (random ^ (random >> 15)).wrapping_mul(0x2c1b_3c6d).wrapping_add(0x9e37_79b9)
}

/// Whether a UDP flow must be decided anew: its backend has left its service since, or the id is another's by now, or it is about to
/// end and the flow does not last (`lasts`). `generation` is [`Chosen::generation`].
#[inline(always)]
pub fn flow_is_stale<T: Tables>(tables: &T, backend: u32, generation: u32, lasts: bool) -> bool {
    let state = BackendState(tables.backend_state(backend));
    state.generation() != generation || !state.serving() || (state.ending() && !lasts)
}
