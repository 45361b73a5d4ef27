//! Maps of services.

use core::ptr;

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap};
use aya_ebpf::macros::btf_map;
use fairlead_datapath::Addr;
use fairlead_datapath::catalog;
use fairlead_datapath::service::{
    Affinity, AffinityKey, Backend, Frontend, FrontendKey, NodeAddress, SourceRangeKey, Tables,
};

use super::{Maps, words};

#[btf_map]
static FRONTENDS: map_of!(HashMap, Frontends) = HashMap::new();

#[btf_map]
static SLOTS: map_of!(Array, Slots) = Array::new();

#[btf_map]
static BACKENDS: map_of!(Array, Backends) = Array::new();

#[btf_map]
static SERVICE_STATE: map_of!(Array, ServiceGeneration) = Array::new();

/// The node's addresses, with the kinds of ports that are reached by each.
#[btf_map]
static NODE_ADDRESSES: map_of!(HashMap, NodeAddresses) = HashMap::new();

/// The backends that clients had last.
#[btf_map]
static AFFINITY: map_of!(LruHashMap, Affinities) = LruHashMap::new();

/// The ports that frontends have had.
#[btf_map]
static SERVICE_PORTS: map_of!(Array, ServicePorts) = Array::new();

/// The clients that may use a service port by its load balancer's addresses.
#[btf_map]
static SOURCE_RANGES: map_of!(LpmTrie, SourceRanges) = LpmTrie::new();

impl Tables for Maps {
    #[inline(always)]
    fn node_address(&self, addr: &Addr) -> u32 {
        // An element that is another address' by now was this one's a moment ago: it is the node's no longer.
        NODE_ADDRESSES.get_ptr(addr).map_or(0, |value| {
            let value: NodeAddress = zerocopy::transmute!(words::<_, 1>(value));
            if value.is_of(addr.tag()) { value.kinds } else { 0 }
        })
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        AFFINITY.get_ptr(key).map(|value| zerocopy::transmute!(words::<_, 5>(value)))
    }

    #[inline(always)]
    fn remember_affinity(&self, key: &AffinityKey, value: &Affinity) {
        // A full table evicts; a client that is not remembered is only not kept.
        let _full = AFFINITY.insert(key, value, 0);
    }

    #[inline(always)]
    fn service_ports(&self, index: u32) -> u64 {
        SERVICE_PORTS.get(index).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn in_source_range(&self, key: &SourceRangeKey) -> bool {
        const { assert!(size_of::<SourceRangeKey>() == size_of::<Key<[u8; 20]>>()) };
        // SAFETY: both are a length in bits and the bytes that it counts in, and the cast relaxes the alignment.
        let key = unsafe { &*ptr::from_ref(key).cast::<Key<[u8; 20]>>() };
        SOURCE_RANGES.get(key).is_some()
    }

    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        FRONTENDS.get_ptr(key).map(|value| zerocopy::transmute!(words::<_, 4>(value)))
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        SLOTS.get(index).copied()
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        BACKENDS.get(id)
    }

    #[inline(always)]
    fn backend_state(&self, id: u32) -> u64 {
        // SAFETY: an array's element stays where it is, and its state is written as one word.
        BACKENDS.get_ptr(id).map_or(0, |backend| unsafe { ptr::read_volatile(&raw const (*backend).state) })
    }

    #[inline(always)]
    fn udp_generation(&self) -> u32 {
        SERVICE_STATE.get(0).map_or(0, |state| state.udp_generation as u32)
    }
}
