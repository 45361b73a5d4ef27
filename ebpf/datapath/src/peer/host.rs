//! The tables in ordinary memory, for tests and for the agent's picture of the kernel's.

use std::collections::{BTreeMap, HashMap};

use super::{CidrKey, HostSide, NodeHop, Peer, Pod, Tables};
use crate::{Addr, MAX_PODS};

/// Prefixes that are looked through faster than each length is looked up.
const FEW: usize = 32;

/// The tables of addresses, nodes and pods.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostTables {
    /// `peers`.
    pub peers: HashMap<Addr, Peer>,
    /// `cidrs`.
    pub cidrs: HashMap<CidrKey, Peer>,
    /// `nodes`; what is absent is zero.
    pub nodes: BTreeMap<u16, NodeHop>,
    /// `pods`; what is absent is zero.
    pub pods: BTreeMap<u16, Pod>,
    /// `host_sides`, and with it `foreign`; what is absent is zero.
    pub host_sides: BTreeMap<u16, u32>,
}

impl Tables for HostTables {
    fn peer(&self, addr: &Addr) -> Option<Peer> {
        self.peers.get(addr).copied()
    }

    fn cidr(&self, key: &CidrKey) -> Option<Peer> {
        // Few are looked through; of many, each length is looked up.
        if self.cidrs.len() <= FEW {
            let holding = self
                .cidrs
                .iter()
                .filter(|(cidr, _)| cidr.prefix_len <= key.prefix_len && key.shortened(cidr.prefix_len) == **cidr);
            return holding.max_by_key(|(cidr, _)| cidr.prefix_len).map(|(_, peer)| *peer);
        }
        (8..=key.prefix_len).rev().find_map(|len| self.cidrs.get(&key.shortened(len)).copied())
    }

    fn node(&self, index: u16) -> Option<NodeHop> {
        Some(self.nodes.get(&index).copied().unwrap_or_default())
    }

    fn pod(&self, slot: u16) -> Option<&Pod> {
        const NONE: &Pod = &Pod::NONE;
        (slot < MAX_PODS).then(|| self.pods.get(&slot).unwrap_or(NONE))
    }

    fn pod_word(&self, slot: u16) -> u64 {
        self.pods.get(&slot).map_or(0, |pod| pod.word)
    }

    fn foreign(&self, ifindex: u32) -> Option<HostSide> {
        let slot = self.host_sides.iter().find(|(_, side)| **side == ifindex).map(|(slot, _)| *slot)?;
        Some(HostSide { ifindex, slot: slot.into() })
    }

    fn host_side(&self, slot: u16) -> u32 {
        self.host_sides.get(&slot).copied().unwrap_or_default()
    }
}

impl CidrKey {
    /// The prefix of this key with fewer bits; its other bits are cleared.
    fn shortened(&self, prefix_len: u32) -> Self {
        let bits = prefix_len.saturating_sub(8).min(128);
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        Self { prefix_len, addr: (u128::from_be_bytes(self.addr) & mask).to_be_bytes(), ..*self }
    }
}
