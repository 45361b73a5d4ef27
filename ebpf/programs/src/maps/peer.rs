//! Maps of addresses, nodes and pods.

use core::ptr;

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie};
use aya_ebpf::macros::btf_map;
use fairlead_datapath::peer::{CidrKey, MAX_CIDRS, MAX_NODES, MAX_PEERS, NodeHop, Peer, Pod, Tables};
use fairlead_datapath::{Addr, MAX_PODS};

use super::Maps;

#[btf_map]
static PEERS: HashMap<Addr, Peer, { MAX_PEERS as usize }, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

#[btf_map]
static CIDRS: LpmTrie<[u8; 20], Peer, { MAX_CIDRS as usize }> = LpmTrie::new();

#[btf_map]
static NODES: Array<NodeHop, { MAX_NODES as usize }> = Array::new();

#[btf_map]
static PODS: Array<Pod, { MAX_PODS as usize }> = Array::new();

impl Tables for Maps {
    #[inline(always)]
    fn peer(&self, addr: &Addr) -> Option<Peer> {
        let words = PEERS.get_ptr(addr)?.cast::<u64>();
        // SAFETY: a map's value is aligned to 8 and stays mapped while the program runs. The element may be reused
        // meanwhile, which the tag, read last, shows; volatile reads stay in their order.
        let words = unsafe {
            let last = ptr::read_volatile(words.add(1));
            [ptr::read_volatile(words), last]
        };
        Some(zerocopy::transmute!(words))
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
}
