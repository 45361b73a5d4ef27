//! Taking out flows that are over. User space finds them, since it has the time; they are taken out here, where what is counted
//! of them is counted.
//!
//! The request is a frame whose payload is a [`SweepRequest`] and the keys. It goes through no interface: the agent runs the
//! program with it (`BPF_PROG_TEST_RUN`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::flow::stage::end;
use crate::flow::{FlowKey, Over, Table};
use crate::kernel::Kernel;
use crate::packet::ETH_LEN;
use crate::register::Register;
use crate::scratch::Walk;

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

/// Takes out the flows of a request; says how many there were.
#[inline(always)]
pub fn sweep<K: Kernel>(k: &K, w: &mut Walk) -> u32 {
    const KEY: u32 = size_of::<FlowKey>() as u32;
    let Some(request) = k.load::<SweepRequest>(ETH_LEN) else { return 0 };
    let table = if request.established != 0 { Table::Established } else { Table::Any };
    let over = Over::unpack(u64::from(request.over));
    let mut ended = 0;
    for index in 0..MAX_KEYS {
        let Some(key) = k.load::<FlowKey>(ETH_LEN + size_of::<SweepRequest>() as u32 + index * KEY) else { break };
        w.draft.key = key;
        if end(k, w, table, over) {
            ended += 1;
        }
    }
    ended
}
