//! Keys of `CT_EST` and `CT_ANY`, and the bits of their values.

use core::ops::Deref;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr, Tuple, WirePort};

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

    /// What a [`super::flow::Flow`] carries to be recognised.
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

/// A key with its tag, which is asked for more often than the key changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes)]
#[repr(C)]
pub struct TaggedKey {
    key: FlowKey,
    tag: u32,
    pad: u32,
}

impl TaggedKey {
    /// As [`FlowKey::set`].
    #[inline(always)]
    pub fn set(&mut self, t: &Tuple, proto: u8) -> bool {
        let from_a = self.key.set(t, proto);
        self.tag = self.key.tag();
        from_a
    }

    /// Becomes the key beside: see [`FlowKey::alternate`].
    #[inline(always)]
    pub fn set_alternate(&mut self, alternate: bool) {
        let alternate = u8::from(alternate);
        // The flag is one bit of the tag.
        self.tag ^= u32::from(self.key.alternate ^ alternate);
        self.key.alternate = alternate;
    }

    /// [`FlowKey::tag`].
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self) -> u32 {
        self.tag
    }
}

impl From<FlowKey> for TaggedKey {
    #[inline(always)]
    fn from(key: FlowKey) -> Self {
        Self { key, tag: key.tag(), pad: 0 }
    }
}

impl Deref for TaggedKey {
    type Target = FlowKey;

    #[inline(always)]
    fn deref(&self) -> &FlowKey {
        &self.key
    }
}

flags! {
    /// Bits of [`super::flow::Flow::flags`].
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
    /// Bits of [`super::flow::Flow::state`].
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
