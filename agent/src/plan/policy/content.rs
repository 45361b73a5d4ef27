//! What the tables hold, in ordinary memory.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::peer::{self, Peer, PodWord};
use fairlead_datapath::policy::{self, ALLOW_ALL, PeerKey, PolicySet, is_closed};

use crate::plan::Op;

/// The tables of policies and peers. As they are pinned, or as they will be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// `policy_sets`, `policy_peers`, `policy_ports`, `policy_ranges`.
    pub policy: policy::HostTables,
    /// `peers`, `cidrs`, `nodes`, `pods`.
    pub peer: peer::HostTables,
}

fn put<K: Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

impl Content {
    /// Does what an operation does. Those on other tables do nothing.
    pub fn apply(&mut self, op: &Op) {
        let Self { policy, peer } = self;
        match op {
            Op::PolicyPeers { key, value } => put(&mut policy.peers, *key, *value),
            Op::PolicyPorts { key, value } => put(&mut policy.ports, *key, *value),
            Op::PolicyRange { key, value } => put(&mut policy.ranges, *key, *value),
            Op::Peer { addr, value } => put(&mut peer.peers, *addr, *value),
            Op::Cidr { key, value } => put(&mut peer.cidrs, *key, *value),
            Op::PolicySet { index, value } if *value == PolicySet::default() => drop(policy.sets.remove(index)),
            Op::PolicySet { index, value } => drop(policy.sets.insert(*index, *value)),
            Op::Node { index, value } if *value == peer::NodeHop::default() => drop(peer.nodes.remove(index)),
            Op::Node { index, value } => drop(peer.nodes.insert(*index, *value)),
            Op::Pod { slot, value } => drop(peer.pods.insert(*slot, *value)),
            Op::PodWord { slot, word } => peer.pods.entry(*slot).or_default().word = *word,
            _ => {}
        }
    }

    /// Elements in use, by table.
    #[must_use]
    pub fn sizes(&self) -> [(TableId, usize); 8] {
        let Self { policy, peer } = self;
        [
            (TableId::PolicySets, policy.sets.len()),
            (TableId::PolicyPeers, policy.peers.len()),
            (TableId::PolicyPorts, policy.ports.len()),
            (TableId::PolicyRanges, policy.ranges.len()),
            (TableId::Peers, peer.peers.len()),
            (TableId::Cidrs, peer.cidrs.len()),
            (TableId::Nodes, peer.nodes.len()),
            (TableId::Pods, peer.pods.len()),
        ]
    }

    /// The policy sets that pods are judged by.
    #[must_use]
    pub fn sets(&self) -> BTreeSet<u32> {
        let words = self.peer.pods.values().map(|pod| PodWord(pod.word));
        words
            .flat_map(|word| [word.ingress(), word.egress()])
            .filter(|id| *id != ALLOW_ALL && !is_closed(*id))
            .collect()
    }

    /// The classes that addresses have.
    #[must_use]
    pub fn classes(&self) -> BTreeSet<u32> {
        let peers = self.peer.peers.values().chain(self.peer.cidrs.values());
        peers.flat_map(|peer: &Peer| [peer.class, peer.known_class()]).chain([0]).collect()
    }

    /// The rules of a set that a class meets, as a reader finds them.
    #[must_use]
    pub fn rules(&self, set: u32, class: u32) -> Vec<[u64; 4]> {
        let meta = self.policy.sets.get(&PolicySet::index(set)).filter(|meta| meta.id == set);
        let pages = meta.map_or(0, |meta| u32::from(meta.pages));
        let row = |class, page| self.policy.peers.get(&PeerKey { set, class, page }).map(|row| row.bits);
        (0..pages).map(|page| row(class, page).or_else(|| row(0, page)).unwrap_or_default()).collect()
    }
}
