//! From a frontend to a backend.

use super::{BackendState, Frontend, FrontendKey, Tables, Verdict};
use crate::Addr;

/// Where a client is, which decides the endpoints that it may have.
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
    /// Its id.
    pub id: u32,
    /// The generation of the id.
    pub generation: u32,
    /// The service port.
    pub service: u32,
    /// Its port, as on the wire.
    pub port: u16,
}

/// What becomes of a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// The address is no service's.
    NotAService,
    /// To this backend.
    Forward(Chosen),
    /// Refused.
    Reject,
    /// Dropped.
    Drop,
}

/// Chooses a backend for a new flow: every one of the frontend's block is as likely as another (S1).
///
/// A backend that has just stopped serving is passed over once for its neighbour; after that the packet is dropped, and
/// the client's next one meets the frontend as it is by then.
#[inline(always)]
pub fn select<T: Tables>(tables: &T, addr: Addr, port: u16, proto: u8, from: From, random: u32) -> Selection {
    let key = FrontendKey::new(addr, port, proto);
    let Some(frontend) = frontend(tables, &key) else { return Selection::NotAService };
    if frontend.tag != key.tag() {
        return Selection::Drop;
    }
    let scope = match from {
        From::Inside => frontend.internal,
        From::Outside => frontend.external,
    };
    match scope.verdict() {
        Verdict::Reject => return Selection::Reject,
        Verdict::Drop => return Selection::Drop,
        Verdict::Forward => {}
    }
    let count = scope.count();
    let first = ((u64::from(random) * u64::from(count)) >> 32) as u32;
    if let Some(chosen) = pick(tables, scope.offset.wrapping_add(first), &frontend) {
        return Selection::Forward(chosen);
    }
    let next = if first + 1 < count { first + 1 } else { 0 };
    match pick(tables, scope.offset.wrapping_add(next), &frontend) {
        Some(chosen) => Selection::Forward(chosen),
        None => Selection::Drop,
    }
}

/// The frontend of a key; read again if it turns out to be another key's.
#[inline(always)]
fn frontend<T: Tables>(tables: &T, key: &FrontendKey) -> Option<Frontend> {
    let frontend = tables.frontend(key)?;
    if frontend.tag == key.tag() { Some(frontend) } else { tables.frontend(key) }
}

/// The backend in a slot, if it is one of this service and serves.
#[inline(always)]
fn pick<T: Tables>(tables: &T, slot: u32, frontend: &Frontend) -> Option<Chosen> {
    let id = tables.slot(slot)?;
    let state = BackendState(tables.backend_state(id));
    let backend = tables.backend(id)?;
    if !state.serving() || backend.service != frontend.service {
        return None;
    }
    Some(Chosen {
        addr: backend.addr,
        id,
        generation: state.generation(),
        service: backend.service,
        port: backend.port,
    })
}

/// Whether a UDP flow's backend is no longer the one that it was made with, or no longer serves its service.
#[inline(always)]
pub fn flow_is_stale<T: Tables>(tables: &T, backend: u32, generation: u32) -> bool {
    let state = BackendState(tables.backend_state(backend));
    !state.serving() || state.generation() != generation
}
