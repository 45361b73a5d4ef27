//! What the tables of policy and peers should say.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_datapath::Addr;
use fairlead_datapath::peer::{CidrKey, NodeHop};

use super::{PolicySet, Signature, WantedPod};

/// What the tables of policy and peers should say, before sets, classes and nodes have ids.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The policy sets in use, each once.
    pub sets: Vec<PolicySet>,
    /// The signatures of the classes in use, each once, with the hash that its id is made from. The first is that of
    /// an address that meets no atom.
    pub classes: Vec<(Signature, u64)>,
    /// The other nodes of the cluster.
    pub nodes: Vec<NodeHop>,
    /// What is known of each address of a pod or node.
    pub peers: BTreeMap<Addr, WantedPeer>,
    /// What is known of the addresses of each prefix.
    pub cidrs: BTreeMap<CidrKey, WantedPeer>,
    /// Those of the prefixes that policies name.
    pub named: BTreeSet<CidrKey>,
    /// This node's pods by slot.
    pub pods: BTreeMap<u16, WantedPod>,
}

/// What is known of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedPeer {
    /// Index in [`Wanted::classes`].
    pub class: usize,
    /// The slot of this node's pod that owns it.
    pub slot: Option<u16>,
    /// Index in [`Wanted::nodes`] of the node that it is behind.
    pub node: Option<usize>,
    /// [`fairlead_datapath::peer::PeerFlags`].
    pub flags: u32,
}
