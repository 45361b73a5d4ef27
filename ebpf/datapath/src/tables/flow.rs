//! Flows: `CT_EST` and `CT_ANY` (hashes), `POD_FLOWS` (array by slot), and `FRAGS` (LRU hash), the ports of datagrams in
//! fragments. Nothing is evicted from the tables of flows: what is in them is counted to who has it, and bounded.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::peer::{NO_NODE, NO_SLOT};
use super::port::{Destination, PortSet};
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
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self) -> u32 {
        let ports = (self.a_port.bits() as u32) << 16 | self.b_port.bits() as u32;
        let rest = (self.proto as u32) << 8 | self.alternate as u32;
        self.a.tag().rotate_left(7) ^ self.b.tag() ^ ports.wrapping_mul(0x9e37_79b1) ^ rest
    }
}

/// `backend` of a flow that has none.
pub const NO_BACKEND: u32 = u32::MAX;

/// One end of a flow, as far as this node has to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct End {
    /// Slot of this node's pod, or [`NO_SLOT`].
    pub slot: u16,
    /// Index in `NODES` of the node that it is behind, or [`NO_NODE`].
    pub node: u16,
}

impl Default for End {
    fn default() -> Self {
        Self::ELSEWHERE
    }
}

impl End {
    /// Neither a pod of this node nor behind another.
    pub const ELSEWHERE: Self = Self { slot: NO_SLOT, node: NO_NODE };
}

/// Value of `CT_EST` and `CT_ANY`. What changes while packets pass are aligned words, written through the pointer.
#[derive(Debug)]
#[cfg_attr(any(test, feature = "host"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Flow {
    /// Of a near entry the far tuple, of a far entry the near one, always from opener to responder. Else zero.
    pub other: Tuple,
    /// [`FlowKey::tag`] of its key.
    pub tag: u32,
    /// [`FlowFlags`]; fixed.
    pub flags: u32,
    /// The opener's end.
    pub opener: End,
    /// The responder's end.
    pub responder: End,
    /// The backend that a service chose, or [`NO_BACKEND`].
    pub backend: u32,
    /// The service port that it belongs to.
    pub service: u32,
    /// Second (since boot) of its last packet.
    pub seen: Word,
    /// [`FlowState`].
    pub state: Word,
    /// Epoch at which the opener's pod let it out.
    pub opener_epoch: Word,
    /// Epoch at which the responder's pod let it in.
    pub responder_epoch: Word,
    /// Generation of the backend; without one, of the set of UDP frontends.
    pub generation: Word,
    /// Second (since boot) in which it was made; fixed.
    pub opened: u32,
    /// TCP: the sequence number of the SYN that opened it, as on the wire, by which that is known when it is sent again;
    /// fixed. Zero of a connection that is older than the tables.
    pub isn: u32,
    /// ICMP errors about it that were let through: the second (low 24 bits) shifted by 8, and how many in it.
    pub errors: Word,
    /// 1 once a CPU has claimed it: that one, and no other, takes it out or replaces it, and counts that.
    pub claim: Long,
    /// TCP, once one side has closed: the opener's last timestamp (RFC 7323), 0 without one.
    pub last_stamp: Word,
    /// TCP, once one side has closed: the sequence number that the responder expects next of the opener, host order.
    pub last_seq: Word,
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
    }
}

impl Flow {
    /// An empty entry, to be filled in.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            other: Tuple::NONE,
            tag: 0,
            flags: 0,
            opener: End::ELSEWHERE,
            responder: End::ELSEWHERE,
            backend: NO_BACKEND,
            service: 0,
            seen: Word::new(0),
            state: Word::new(0),
            opener_epoch: Word::new(0),
            responder_epoch: Word::new(0),
            generation: Word::new(0),
            opened: 0,
            isn: 0,
            errors: Word::new(0),
            claim: Long::new(0),
            last_stamp: Word::new(0),
            last_seq: Word::new(0),
        }
    }

    /// Becomes an empty entry again, in place.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.copy_from(&Self::new());
    }

    /// Takes over everything from another entry, but for the claim on that.
    #[inline(always)]
    pub fn copy_from(&mut self, from: &Self) {
        let Self {
            other,
            tag,
            flags,
            opener,
            responder,
            backend,
            service,
            seen,
            state,
            opener_epoch,
            responder_epoch,
            generation,
            opened,
            isn,
            errors,
            claim: _,
            last_stamp,
            last_seq,
        } = from;
        self.other = *other;
        self.tag = *tag;
        self.flags = *flags;
        self.opener = *opener;
        self.responder = *responder;
        self.backend = *backend;
        self.service = *service;
        self.opened = *opened;
        self.isn = *isn;
        self.claim.store(0);
        self.errors.store(errors.load());
        self.last_stamp.store(last_stamp.load());
        self.last_seq.store(last_seq.load());
        self.seen.store(seen.load());
        self.state.store(state.load());
        self.opener_epoch.store(opener_epoch.load());
        self.responder_epoch.store(responder_epoch.load());
        self.generation.store(generation.load());
    }

    /// Whether any of these flags is set.
    #[inline(always)]
    #[must_use]
    pub const fn is(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }

    /// Whether it has two entries.
    #[inline(always)]
    #[must_use]
    pub const fn is_translated(&self) -> bool {
        self.is(FlowFlags::NEAR | FlowFlags::FAR)
    }

    /// Makes `key` that of a translated flow's other entry.
    #[inline(always)]
    pub fn set_other_key(&self, key: &mut FlowKey, proto: u8) {
        key.set(&self.other, proto);
        key.alternate = u8::from(self.is(FlowFlags::OTHER_ALTERNATE));
    }

    /// Whether the pod that accounts for it opened it.
    #[inline(always)]
    #[must_use]
    pub const fn is_outgoing(&self) -> bool {
        self.opener.slot != NO_SLOT
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self::new()
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

/// A datagram that comes in fragments (RFC 791, RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Its identifier.
    pub id: u32,
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// The ports that its first fragment had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentPorts {
    /// Source port.
    pub sport: WirePort,
    /// Destination port.
    pub dport: WirePort,
    /// Second (since boot) of the first fragment.
    pub seen: u32,
}

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
    /// The entry of a key. What it refers to may be removed and reused at any time: [`Flow::tag`] tells.
    fn flow(&self, table: Table, key: &FlowKey) -> Option<&Flow>;
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
    /// Ports of a datagram whose first fragment was seen.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts>;
    /// Remembers the ports of a first fragment.
    fn insert_fragment(&self, key: &FragmentKey, ports: FragmentPorts);
}
