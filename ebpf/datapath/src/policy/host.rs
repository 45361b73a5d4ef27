//! The tables in ordinary memory, for tests and for the agent's picture of the kernel's.

use crate::WirePort;
use std::collections::{BTreeMap, HashMap};

use super::{PeerKey, PolicySet, PortKey, RangeKey, Row, Tables};

/// The tables of policy. A row is never replaced, so plain maps behave as the kernel's do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostTables {
    /// `policy_sets`, by index; what is absent is zero.
    pub sets: BTreeMap<u32, PolicySet>,
    /// `policy_peers`.
    pub peers: HashMap<PeerKey, Row>,
    /// `policy_ports`.
    pub ports: HashMap<PortKey, Row>,
    /// `policy_ranges`.
    pub ranges: HashMap<RangeKey, Row>,
}

impl Tables for HostTables {
    fn policy_set(&self, index: u32) -> Option<PolicySet> {
        Some(self.sets.get(&index).copied().unwrap_or_default())
    }

    fn policy_peers(&self, key: &PeerKey) -> Option<Row> {
        self.peers.get(key).copied()
    }

    fn policy_ports(&self, key: &PortKey) -> Option<Row> {
        self.ports.get(key).copied()
    }

    fn policy_range(&self, key: &RangeKey) -> Option<Row> {
        (0..=16).rev().find_map(|bits| self.ranges.get(&RangeKey::block(key, bits)).copied())
    }
}

impl RangeKey {
    /// The block of ports of a size, `bits` of the port counting, that holds the port of another key.
    #[must_use]
    pub fn block(key: &Self, bits: u32) -> Self {
        let mask = u16::MAX.checked_shl(16 - bits).unwrap_or(0);
        Self { prefix_len: 48 + bits, port: WirePort::new(key.port.number() & mask), ..*key }
    }
}
