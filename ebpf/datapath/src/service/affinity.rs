//! Session affinity: a client stays with a backend, from new flow to new flow.

use super::{Affinity, AffinityKey, BackendState, Chosen, From, Tables};
use crate::Addr;

/// Halvings of the largest block.
const STEPS: u32 = 24;

/// The backend that a client had last by this service port, if it still is one that the client may choose and the time-out
/// since the client's last new flow has not passed; else the one that was chosen for it. Remembers it (S38, S39).
#[inline(always)]
pub fn stick<T: Tables>(tables: &T, chosen: Chosen, client: Addr, from: From, now: u32) -> Chosen {
    if chosen.affinity_seconds == 0 {
        return chosen;
    }
    let (key, before) = find(tables, client, chosen.service, from, now);
    let before = before.filter(|before| age(before, now) < chosen.affinity_seconds);
    let kept = before.and_then(|before| again(tables, &chosen, &before)).unwrap_or(chosen);
    let memory = Affinity {
        tag: 0,
        service: chosen.service,
        client,
        backend: kept.id,
        generation: kept.generation,
        seen: now,
        pad: 0,
    };
    tables.remember_affinity(&key, &memory.sealed(key.tag()));
    kept
}

/// The place that a client's memory is in, with what is there; else the one of its places that is free or was not in use for
/// longest.
#[inline(always)]
fn find<T: Tables>(tables: &T, client: Addr, service: u32, from: From, now: u32) -> (AffinityKey, Option<Affinity>) {
    let who = match from {
        From::Inside => AffinityKey::inside(client),
        From::Outside => AffinityKey::outside(client),
    };
    let whose = Affinity::whose(client, service);
    let mut free = AffinityKey::new(who, whose, 0);
    let mut oldest = 0;
    let mut choice = 0;
    while choice < AffinityKey::CHOICES {
        let key = AffinityKey::new(who, whose, choice);
        let unused = match tables.affinity(&key).filter(|there| there.is_of(key.tag())) {
            Some(there) if there.client == client && there.service == service => return (key, Some(there)),
            Some(there) => age(&there, now),
            None => u32::MAX,
        };
        if unused > oldest {
            (free, oldest) = (key, unused);
        }
        choice += 1;
    }
    (free, None)
}

/// Seconds since a memory was in use. Another CPU may have written a later second than this one has read.
#[inline(always)]
const fn age(memory: &Affinity, now: u32) -> u32 {
    let age = now.wrapping_sub(memory.seen);
    if age > u32::MAX / 2 { 0 } else { age }
}

/// The backend of before, if it is among those that could have been chosen.
#[inline(always)]
fn again<T: Tables>(tables: &T, chosen: &Chosen, before: &Affinity) -> Option<Chosen> {
    let backend = tables.backend(before.backend)?;
    let state = BackendState(backend.state);
    let same = backend.service == chosen.service && state.serving() && state.generation() == before.generation;
    if !same || !is_in_block(tables, chosen, before.backend) {
        return None;
    }
    Some(Chosen {
        id: before.backend,
        generation: before.generation,
        addr: backend.addr,
        port: backend.port,
        ..*chosen
    })
}

/// Whether an id is in the block that a backend was chosen from, whose ids are in order.
#[inline(always)]
fn is_in_block<T: Tables>(tables: &T, chosen: &Chosen, id: u32) -> bool {
    let (mut low, mut high) = (0, chosen.block.count());
    let mut step = 0;
    while step < STEPS && low < high {
        let middle = low + (high - low) / 2;
        let Some(found) = tables.slot(chosen.block.offset().wrapping_add(middle)) else { return false };
        if found == id {
            return true;
        }
        if found < id {
            low = middle + 1;
        } else {
            high = middle;
        }
        step += 1;
    }
    false
}
