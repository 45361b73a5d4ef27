//! What the tables of policy and peers should say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairlead_datapath::Addr;
use fairlead_datapath::peer::{CidrKey, NodeHop};

use super::{Hashes, Met, PolicySet, Signature, ToldAtoms, WantedPod};
use crate::compile::peers::Lookup;

/// What the tables of policy and peers should say, before sets, classes and nodes have ids.
#[derive(Debug, Default)]
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
    /// Pairs of classes whose ids differ in [`fairlead_datapath::peer::PeerFlags::LINGERS`] alone, each once: that of new flows
    /// and that of flows that are known.
    pub pairs: Vec<(usize, usize)>,
    /// The names that sets ask about.
    pub told: ToldAtoms,
    /// What the hashes of classes are made from, where sets ask about names.
    pub hashes: Hashes,
    /// What each address that pods were told meets besides its prefix.
    pub met: BTreeMap<Addr, Arc<Met>>,
    /// Addresses that pods were told and that open nothing, since that would take more rows than [`MOST_TOLD_ROWS`].
    pub untold: usize,
    /// What addresses were looked up with.
    pub(crate) lookup: Lookup,
}

/// Most rows of `POLICY_PEERS` for addresses that pods were told: an eighth of the table, so that whatever pods ask for costs no
/// set its place. One for each pod of each set of pods that were told the same address, and for each tier's page.
pub const MOST_TOLD_ROWS: usize = fairlead_datapath::policy::MAX_PEER_ROWS as usize / 8;

/// What is known of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedPeer {
    /// Index in [`Wanted::classes`].
    pub class: usize,
    /// Index in [`Wanted::pairs`], where flows that are known have a class of their own.
    pub pair: Option<usize>,
    /// The slot of this node's pod that owns it.
    pub slot: Option<u16>,
    /// Index in [`Wanted::nodes`] of the node that it is behind.
    pub node: Option<usize>,
    /// [`fairlead_datapath::peer::PeerFlags`].
    pub flags: u32,
}
