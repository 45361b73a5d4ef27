//! Maps of policy.

use core::ptr;

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuHashMap};
use aya_ebpf::macros::btf_map;
use fairlead_datapath::catalog;
use fairlead_datapath::policy::{HitKey, PeerKey, PolicySet, PortKey, RangeKey, Row, Tables};

use super::{Maps, words};

#[btf_map]
static POLICY_SETS: map_of!(Array, PolicySets) = Array::new();

#[btf_map]
static POLICY_PEERS: map_of!(HashMap, PolicyPeers) = HashMap::new();

#[btf_map]
static POLICY_PORTS: map_of!(HashMap, PolicyPorts) = HashMap::new();

#[btf_map]
static POLICY_RANGES: map_of!(LpmTrie, PolicyRanges) = LpmTrie::new();

/// What rules have decided on. The agent makes and removes elements.
#[btf_map]
static POLICY_HITS: map_of!(PerCpuHashMap, PolicyHits) = PerCpuHashMap::new();

impl Tables for Maps {
    #[inline(always)]
    fn policy_set(&self, index: u32) -> Option<PolicySet> {
        POLICY_SETS.get(index).copied()
    }

    #[inline(always)]
    fn policy_peers(&self, key: &PeerKey) -> Option<Row> {
        POLICY_PEERS.get_ptr(key).map(read)
    }

    #[inline(always)]
    fn policy_ports(&self, key: &PortKey) -> Option<Row> {
        POLICY_PORTS.get_ptr(key).map(read)
    }

    #[inline(always)]
    fn policy_range(&self, key: &RangeKey) -> Option<Row> {
        const { assert!(size_of::<RangeKey>() == size_of::<Key<[u8; 8]>>()) };
        // SAFETY: both are a length in bits and the bytes that it counts in, and the cast relaxes the alignment.
        let key = unsafe { &*ptr::from_ref(key).cast::<Key<[u8; 8]>>() };
        POLICY_RANGES.get(key).map(|row| read(row))
    }
}

/// Counts a flow that was made, or a packet that is dropped, to a rule.
#[inline(always)]
pub(crate) fn count_hit(key: &HitKey, denied: bool, second: u32) {
    if let Some(hits) = POLICY_HITS.get_ptr_mut(key) {
        // SAFETY: this CPU's own counters.
        let hits = unsafe { &mut *hits };
        if denied {
            hits.denied += 1;
        } else {
            hits.flows += 1;
        }
        hits.last = u64::from(second);
    }
}

/// Copies a row out.
#[inline(always)]
fn read(row: *const Row) -> Row {
    zerocopy::transmute!(words::<_, 5>(row))
}
