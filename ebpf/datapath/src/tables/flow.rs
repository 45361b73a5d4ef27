//! Flows: `CT_EST` and `CT_ANY` (hashes), `POD_FLOWS` (array by slot), and `FRAGS` (LRU hash), the ports of datagrams in
//! fragments. Nothing is evicted from the tables of flows: what is in them is counted to who has it, and bounded.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use super::entry::{End, Entry, Flow, NO_BACKEND, Owned};
pub use super::key::{FlowFlags, FlowKey, FlowState, TaggedKey};
use super::peer::NO_SLOT;
use super::port::{Destination, PortSet, holder};
use super::reused::mixed;
use crate::{Addr, Long, MAX_PODS, WirePort, Word};

/// Element of `POD_FLOWS`: the flows that count against a pod, by its slot. Two elements more count those of nobody here,
/// and all.
#[derive(Debug, Default)]
#[cfg_attr(any(test, feature = "host"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct PodFlows {
    /// Flows in `CT_EST` that it opened.
    pub established: Long,
    /// Flows in `CT_EST` that were opened to it.
    pub accepted: Long,
    /// Flows in `CT_ANY` that it opened.
    pub outgoing: Long,
    /// Flows in `CT_ANY` that were opened to it.
    pub incoming: Long,
    /// The second that `opened` is about.
    pub second: Word,
    /// Flows that it opened in it. CPUs may lose a count to each other, which a limit of thousands can bear.
    pub opened: Word,
}

impl PodFlows {
    /// The element of flows that no pod of this node accounts for.
    pub const NOBODY: u16 = MAX_PODS;
    /// The element of all flows.
    pub const EVERYBODY: u16 = MAX_PODS + 1;
    /// Elements of `POD_FLOWS`.
    pub const ELEMENTS: u32 = MAX_PODS as u32 + 2;

    /// Index of the element that a flow counts in, by its ends' slots.
    #[inline(always)]
    #[must_use]
    pub const fn index(opener: u16, responder: u16) -> u16 {
        match (opener, responder) {
            (NO_SLOT, NO_SLOT) => Self::NOBODY,
            (NO_SLOT, responder) => responder,
            (opener, _) => opener,
        }
    }
}

/// Key of `FRAGS`: one of the places of who sends. So whoever sends many datagrams in fragments overwrites his own, and the
/// table has room for every place of everybody who may send at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentKey {
    /// [`FragmentKey::of_pod`] and its like.
    pub who: u32,
    /// Below [`FragmentKey::PLACES`].
    pub place: u32,
}

impl FragmentKey {
    /// Datagrams of one sender that are remembered at a time, some fewer where they meet in one place.
    pub const PLACES: u32 = 64;

    /// Networks outside that are told apart.
    pub const NETWORKS: u32 = 64;

    /// Groups of pods elsewhere that are told apart: of so many, one may take places of another.
    pub const GROUPS: u32 = 128;

    /// What a pod sends.
    #[inline(always)]
    #[must_use]
    pub const fn of_pod(slot: u16) -> u32 {
        slot as u32
    }

    /// What the host's stack sends to a pod.
    #[inline(always)]
    #[must_use]
    pub const fn to_pod(slot: u16) -> u32 {
        0x1_0000 | slot as u32
    }

    /// What comes from outside: senders in one network share places, and networks may. By the seed
    /// ([`crate::config::Config::seed`]) nobody outside knows which.
    #[inline(always)]
    #[must_use]
    pub const fn from_outside(seed: u32, client: Addr) -> u32 {
        0x2_0000 | mixed(mixed(seed as u64) ^ holder(NO_SLOT, client) as u64) as u32 & (Self::NETWORKS - 1)
    }

    /// What comes from a pod elsewhere: all pods of a node are in one network. Who is outside may take a pod's address, so these
    /// places are limited too.
    #[inline(always)]
    #[must_use]
    pub const fn from_elsewhere(seed: u32, pod: Addr) -> u32 {
        0x3_0000 | mixed(mixed(seed as u64) ^ pod.tag() as u64) as u32 & (Self::GROUPS - 1)
    }

    /// What leaves the node: of its pods and of itself, whose addresses were checked.
    #[inline(always)]
    #[must_use]
    pub const fn from_node(source: Addr) -> u32 {
        0x8000_0000 | source.tag()
    }

    /// The place of a datagram of a sender.
    #[inline(always)]
    #[must_use]
    pub const fn new(who: u32, datagram: u32) -> Self {
        Self { who, place: datagram >> 26 }
    }

    /// What goes into the check of a value under it.
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self) -> u32 {
        (self.who ^ self.place.rotate_right(8)).wrapping_mul(0x9e37_79b1)
    }
}

/// A word that tells datagrams (RFC 791, RFC 8200 section 4.5) apart: by their ends, protocol and identifier. Without the seed
/// nobody can make one that is taken for another, or aim at its place.
#[inline(always)]
#[must_use]
pub const fn datagram(seed: u32, src: Addr, dst: Addr, id: u32, proto: u8) -> u32 {
    let mut sum = mixed((seed as u64) << 8 | proto as u64);
    sum = mixed(sum ^ src.hi);
    sum = mixed(sum ^ src.lo);
    sum = mixed(sum ^ dst.hi);
    sum = mixed(sum ^ dst.lo);
    mixed(mixed(sum ^ id as u64)) as u32
}

/// Elements of `FRAGS`: all places of networks outside and of pods elsewhere, and of 80 pods that send, get and send out of the node
/// as many as they can by both families.
pub const MAX_FRAGMENTS: u32 = 32_768;

/// The ports that its first fragment had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct FragmentPorts {
    /// Check of key and content: see [`crate::tables::reused`].
    pub tag: u32,
    /// Source port.
    pub sport: WirePort,
    /// Destination port.
    pub dport: WirePort,
    /// Second (since boot) of the first fragment.
    pub seen: u32,
    /// Of which [`datagram()`].
    pub datagram: u32,
}

super::reused::tagged! { FragmentPorts, of 2 words; }

/// The two tables of flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `CT_EST`: TCP after the handshake.
    Established,
    /// `CT_ANY`: everything else.
    Any,
}

/// Why an entry could not be inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertError {
    /// There is one under this key.
    Exists,
    /// The table is full.
    Full,
}

/// Elements of `CT_EST`, and of `CT_ANY`. A translated flow takes two.
pub const MAX_FLOW_ENTRIES: u32 = 524_288;

/// The tables of flows.
pub trait Tables {
    /// The entry of a key. It may be removed, and its element reused, at any time: [`Entry::read`] tells.
    fn flow(&self, table: Table, key: &FlowKey) -> Option<&Entry>;
    /// Inserts an entry; `only_new`: not if the key has one.
    fn insert_flow(&self, table: Table, key: &FlowKey, flow: &Flow, only_new: bool) -> Result<(), InsertError>;
    /// Removes an entry.
    fn remove_flow(&self, table: Table, key: &FlowKey) -> bool;
    /// What is counted in an element of `POD_FLOWS`.
    fn pod_flows(&self, index: u16) -> Option<&PodFlows>;
    /// A counter of ports in use.
    fn share(&self, index: u32) -> Option<&Long>;
    /// Which ports of a destination are in use, if that is kept.
    fn ports(&self, key: &Destination) -> Option<&PortSet>;
    /// Begins to keep it. False if there is no room.
    fn keep_ports(&self, key: &Destination) -> bool;
    /// Keeps it no longer.
    fn drop_ports(&self, key: &Destination);
    /// The element of `FRAGS` under a key.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts>;
    /// Writes an element of `FRAGS`.
    fn insert_fragment(&self, key: &FragmentKey, ports: FragmentPorts);
}
