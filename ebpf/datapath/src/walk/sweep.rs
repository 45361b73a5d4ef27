//! Taking out flows that are over. User space finds them, since it has the time; they are taken out here, where what is counted
//! of them is counted.
//!
//! The request is a frame whose payload is a [`SweepRequest`] and the keys. It goes through no interface: the agent runs the
//! program with it (`BPF_PROG_TEST_RUN`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::config::Lifetimes;
use crate::flow::stage::{bury, forget};
use crate::flow::{self, Flow, FlowKey, FlowState, Table};
use crate::kernel::{Kernel, stages};
use crate::packet::ETH_LEN;
use crate::register::Register;
use crate::scratch::Walk;

stages! {
    fn end(table: Table, over: Over, at: u32) -> bool, as End;
}

/// Which flows a sweep takes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Over {
    /// Those that have expired.
    Expired,
    /// Those of the pod in a slot.
    Of(u16),
    /// The same, but of connections the other end is told when it next sends: see [`crate::flow::outlives_its_pod`].
    Bury(u16),
    /// Those that are not established, and that nothing was seen of for so many seconds.
    Idle(u16),
}

impl Register for Over {
    #[inline(always)]
    fn pack(self) -> u64 {
        match self {
            Self::Expired => 0,
            Self::Of(slot) => 1 << 16 | u64::from(slot),
            Self::Idle(seconds) => 2 << 16 | u64::from(seconds),
            Self::Bury(slot) => 3 << 16 | u64::from(slot),
        }
    }

    #[inline(always)]
    fn unpack(word: u64) -> Self {
        match word >> 16 {
            1 => Self::Of(word as u16),
            2 => Self::Idle(word as u16),
            3 => Self::Bury(word as u16),
            _ => Self::Expired,
        }
    }
}

impl Over {
    /// Whether it is one of them.
    #[inline(always)]
    #[must_use]
    pub fn is(self, of: &Flow, proto: u8, now: u32, lifetimes: &Lifetimes) -> bool {
        match self {
            Self::Expired => flow::expired(of, proto, now, lifetimes),
            Self::Of(slot) | Self::Bury(slot) => of.opener.slot == slot || of.responder.slot == slot,
            Self::Idle(seconds) => {
                let state = of.state.value;
                // What has both FINs says how long its port is to rest.
                let lasts = state & (FlowState::ESTABLISHED | FlowState::STREAM | FlowState::FINS) != 0;
                (!lasts || state & FlowState::RESET != 0) && flow::idle_for(of, now) >= u32::from(seconds)
            }
        }
    }
}

/// Most keys of a request: the kernel takes a frame of less than a page.
pub const MAX_KEYS: u32 = 64;

/// What a request begins with, behind the Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SweepRequest {
    over: u32,
    established: u32,
}

impl SweepRequest {
    /// For flows in a table that are over.
    #[must_use]
    pub fn new(table: Table, over: Over) -> Self {
        Self { over: over.pack() as u32, established: u32::from(table == Table::Established) }
    }

    /// The whole frame.
    #[cfg(any(test, feature = "host"))]
    #[must_use]
    pub fn frame(&self, keys: &[FlowKey]) -> std::vec::Vec<u8> {
        let mut bytes = std::vec![0; ETH_LEN as usize];
        bytes.extend_from_slice(self.as_bytes());
        keys.iter().for_each(|key| bytes.extend_from_slice(key.as_bytes()));
        bytes
    }
}

/// Takes out the flows of a request; says how many of them stay, since the kernel or another CPU was busy with them.
#[inline(always)]
pub fn sweep<K: Kernel>(k: &K, w: &mut Walk) -> u32 {
    const KEY: u32 = size_of::<FlowKey>() as u32;
    let Some(request) = k.load::<SweepRequest>(ETH_LEN) else { return 0 };
    let table = if request.established != 0 { Table::Established } else { Table::Any };
    let over = Over::unpack(u64::from(request.over));
    let mut left = 0;
    for index in 0..MAX_KEYS {
        let at = ETH_LEN + size_of::<SweepRequest>() as u32 + index * KEY;
        if at + KEY > k.packet_len() {
            break;
        }
        if !stage::end(k, w, table, over, at) {
            left += 1;
        }
    }
    left
}

/// Takes out the flow whose key is at an offset of the request, if it still is one of those. False if it stays: the first of its
/// two entries takes the second along.
#[inline(always)]
fn end<K: Kernel>(k: &K, w: &mut Walk, table: Table, over: Over, at: u32) -> bool {
    let Some(key) = k.load::<FlowKey>(at) else { return true };
    w.draft.key = key.into();
    let Walk { draft, met, .. } = w;
    let (Some(entry), Some(config)) = (k.flow(table, &draft.key), k.config()) else { return true };
    if !k.copy(entry, draft.key.tag(), met) || !over.is(met, draft.key.proto, k.seconds(), &config.lifetimes) {
        return true;
    }
    match over {
        Over::Bury(slot) if flow::is_worth_a_reset(met, draft.key.proto, table) => bury(k, w, table, slot),
        _ => {
            forget(k, w, table);
            k.flow(table, &w.draft.key).is_none()
        }
    }
}
