//! Flows: `CT_EST` and `CT_ANY` (hashes), `POD_FLOWS` (array by slot), and `FRAGS` (LRU hash), the ports of datagrams in
//! fragments. Nothing is evicted from the tables of flows: what is in them is counted to who has it, and bounded.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use super::entry::{End, Entry, Flow, NO_BACKEND, Owned};
use super::peer::NO_SLOT;
use super::port::{Destination, PortSet, holder};
use crate::{Addr, Long, MAX_PODS, Tuple, WirePort, Word};

/// A tuple with its ends in canonical order, so that both directions have one key.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowKey {
    /// The lower end's address.
    pub a: Addr,
    /// The higher end's address.
    pub b: Addr,
    /// The lower end's port.
    pub a_port: WirePort,
    /// The higher end's port.
    pub b_port: WirePort,
    /// IP protocol number.
    pub proto: u8,
    /// 1 for a flow whose opener uses the tuple that another flow has as its far one: see [`crate::flow::find`].
    pub alternate: u8,
    /// Zero.
    pub pad: u16,
}

impl FlowKey {
    /// Becomes the key of a tuple, in place. True if the tuple's source is end `a`.
    #[inline(always)]
    pub fn set(&mut self, t: &Tuple, proto: u8) -> bool {
        let from_a = (t.src.hi, t.src.lo, t.sport.bits()) <= (t.dst.hi, t.dst.lo, t.dport.bits());
        if from_a {
            (self.a, self.b, self.a_port, self.b_port) = (t.src, t.dst, t.sport, t.dport);
        } else {
            (self.a, self.b, self.a_port, self.b_port) = (t.dst, t.src, t.dport, t.sport);
        }
        self.proto = proto;
        self.alternate = 0;
        self.pad = 0;
        from_a
    }

    /// The key of a tuple, and whether its source is end `a`.
    #[must_use]
    pub fn of(t: &Tuple, proto: u8) -> (Self, bool) {
        let mut key = Self::default();
        let from_a = key.set(t, proto);
        (key, from_a)
    }

    /// Whether end `a` of a tuple's key is this source.
    #[inline(always)]
    #[must_use]
    pub fn is_from_a(&self, t: &Tuple) -> bool {
        self.a == t.src && self.a_port == t.sport
    }

    /// Whether it is the key of this tuple, seen from one of its ends.
    #[inline(always)]
    #[must_use]
    pub fn is(&self, from_a: bool, t: &Tuple) -> bool {
        if from_a {
            self.a == t.src && self.b == t.dst && self.a_port == t.sport && self.b_port == t.dport
        } else {
            self.b == t.src && self.a == t.dst && self.b_port == t.sport && self.a_port == t.dport
        }
    }

    /// The tuple, seen from one of its ends.
    #[inline(always)]
    #[must_use]
    pub const fn tuple(&self, from_a: bool) -> Tuple {
        let t = Tuple { src: self.a, dst: self.b, sport: self.a_port, dport: self.b_port, pad: 0 };
        if from_a { t } else { t.reversed() }
    }

    /// What a [`Flow`] carries to be recognised.
    ///
    /// It is no secret: whoever chooses ports can have two keys of one tag, and then a reader who is overtaken ([`super::entry`])
    /// takes one flow's entry for the other's. That opens nothing. Each walk asks whether the flow's sender is who the packet comes
    /// from (a pod by its interface, or nobody here), so a packet of a pod can only be taken for another of the same pod's, which it
    /// could have sent; and of what comes from outside, where anybody may send in anybody's name, for another client's. Neither
    /// is rewritten to more than the other flow's own tuple. What it can do to the other's entry is what a packet of that flow can.
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self) -> u32 {
        let ports = (self.a_port.bits() as u32) << 16 | self.b_port.bits() as u32;
        let rest = (self.proto as u32) << 8 | self.alternate as u32;
        self.a.tag().rotate_left(7) ^ self.b.tag() ^ ports.wrapping_mul(0x9e37_79b1) ^ rest
    }
}

flags! {
    /// Bits of [`Flow::flags`].
    pub struct FlowFlags {
        /// End `a` of the key is the opener.
        pub const OPENER_IS_A: u32 = 1;
        /// The entry of a translated flow's near tuple.
        pub const NEAR: u32 = 2;
        /// The entry of a translated flow's far tuple.
        pub const FAR: u32 = 4;
        /// Both directions go through the host's stack.
        pub const STACK: u32 = 8;
        /// The translation is made where the packet leaves the node, after the stack has routed it.
        pub const AT_UPLINK: u32 = 16;
        /// The opener is this node itself: no policy of a pod keeps the node from it (P33).
        pub const FROM_NODE: u32 = 32;
        /// Leaves the cluster from a pod's address: gets its source translated at the uplink.
        pub const MASQUERADE: u32 = 64;
        /// The other entry's key has `alternate` set.
        pub const OTHER_ALTERNATE: u32 = 128;
        /// A client outside opened it to a service, by an uplink. What goes to an end elsewhere leaves by the route to it but not
        /// by the host's stack, which takes no packet that comes from an address of its own (`fib_validate_source`).
        pub const OUTSIDE: u32 = 256;
        /// Of a far entry: its source port is one of those that translated flows share, and is counted to its destination.
        pub const PORT: u32 = 512;
        /// Of a far entry: it is counted to its pod's share of the destination's ports.
        pub const HELD: u32 = 1024;
        /// A pod opened it to a service whose endpoint is outside of the cluster. It leaves as [`Self::OUTSIDE`]'s do.
        pub const BY_ROUTE: u32 = 2048;
    }
}

flags! {
    /// Bits of [`Flow::state`].
    pub struct FlowState {
        /// TCP: the opener's SYN was seen.
        pub const SYN: u32 = 1;
        /// TCP: the responder's SYN-ACK was seen. Others: the responder answered.
        pub const REPLIED: u32 = 2;
        /// TCP: the handshake is over.
        pub const ESTABLISHED: u32 = 4;
        /// TCP: the opener's FIN was seen.
        pub const FIN_OPENER: u32 = 8;
        /// TCP: the responder's FIN was seen.
        pub const FIN_RESPONDER: u32 = 16;
        /// Both.
        pub const FINS: u32 = Self::FIN_OPENER | Self::FIN_RESPONDER;
        /// TCP: an RST was seen.
        pub const RESET: u32 = 32;
        /// TCP: the responder's FIN came before the opener's, so it is the one that waits (`TIME_WAIT`).
        pub const RESPONDER_FIRST: u32 = 64;
        /// Not of TCP: answered, and in use for longer than a question and its answer are.
        pub const STREAM: u32 = 128;
        /// TCP: after both FINs the opener has acknowledged.
        pub const LAST_ACK: u32 = 256;
        /// TCP: one end was a pod of this node, which is gone. The other end's next packet is answered with a reset.
        pub const GONE: u32 = 512;
    }
}

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

    /// What comes from outside: senders in one network share places, and networks may.
    #[inline(always)]
    #[must_use]
    pub const fn from_outside(client: Addr) -> u32 {
        0x2_0000 | holder(NO_SLOT, client) & (Self::NETWORKS - 1)
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

/// A word that tells datagrams (RFC 791, RFC 8200 section 4.5) apart: by their ends, protocol and identifier.
#[inline(always)]
#[must_use]
pub const fn datagram(src: Addr, dst: Addr, id: u32, proto: u8) -> u32 {
    let which = (id ^ (proto as u32).rotate_right(8)).wrapping_mul(0x9e37_79b1);
    src.tag().rotate_left(7) ^ dst.tag() ^ which
}

/// Elements of `FRAGS`: all places of networks outside, and of 112 pods that send,
/// get and send out of the node as many as they can by both families.
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
