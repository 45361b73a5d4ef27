//! Maps of addresses, nodes and pods.

use core::ptr;

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie};
use aya_ebpf::macros::btf_map;
use fairlead_datapath::Addr;
use fairlead_datapath::catalog;
use fairlead_datapath::peer::{CidrKey, HostSide, NodeHop, Peer, Pod, Tables};

use super::{Maps, words};

#[btf_map]
static PEERS: map_of!(HashMap, Peers) = HashMap::new();

#[btf_map]
static CIDRS: map_of!(LpmTrie, Cidrs) = LpmTrie::new();

#[btf_map]
static NODES: map_of!(Array, Nodes) = Array::new();

#[btf_map]
static PODS: map_of!(Array, Pods) = Array::new();

#[btf_map]
static FOREIGN: map_of!(HashMap, Foreign) = HashMap::new();

#[btf_map]
static HOST_SIDES: map_of!(Array, HostSides) = Array::new();

impl Tables for Maps {
    #[inline(always)]
    fn peer(&self, addr: &Addr) -> Option<Peer> {
        PEERS.get_ptr(addr).map(|value| zerocopy::transmute!(words::<_, 2>(value)))
    }

    #[inline(always)]
    fn cidr(&self, key: &CidrKey) -> Option<Peer> {
        const { assert!(size_of::<CidrKey>() == size_of::<Key<[u8; 20]>>()) };
        // SAFETY: both are a length in bits and the bytes that it counts in, and the cast relaxes the alignment.
        let key = unsafe { &*ptr::from_ref(key).cast::<Key<[u8; 20]>>() };
        CIDRS.get(key).copied()
    }

    #[inline(always)]
    fn node(&self, index: u16) -> Option<NodeHop> {
        NODES.get(u32::from(index)).copied()
    }

    #[inline(always)]
    fn pod(&self, slot: u16) -> Option<&Pod> {
        PODS.get(u32::from(slot))
    }

    #[inline(always)]
    fn pod_word(&self, slot: u16) -> u64 {
        // SAFETY: an array's element stays where it is, and its word is written as one.
        PODS.get_ptr(u32::from(slot)).map_or(0, |pod| unsafe { ptr::read_volatile(&raw const (*pod).word) })
    }

    #[inline(always)]
    fn foreign(&self, ifindex: u32) -> Option<HostSide> {
        FOREIGN.get_ptr(ifindex).map(|value| zerocopy::transmute!(words::<_, 1>(value)))
    }

    #[inline(always)]
    fn host_side(&self, slot: u16) -> u32 {
        HOST_SIDES.get(u32::from(slot)).copied().unwrap_or_default()
    }
}
