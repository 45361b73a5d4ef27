//! Values of `CT_EST` and `CT_ANY`: a flow's entry as it is in a table, and a copy of it.
//!
//! The kernel reuses an element as soon as it is deleted ([`super::reused`]), so nobody works with what is in a table: a reader
//! copies it ([`Entry::read`]) and asks whether the copy is that of its key. What was decided when the flow was made never
//! changes, and has a check of key and content. What packets change are words of 64 bits, each of which says whose it is and
//! is changed by compare-and-swap: a CPU that comes late changes nothing of somebody else's.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::key::{FlowFlags, TaggedKey};
use super::peer::{NO_NODE, NO_SLOT};
use crate::{Long, Tuple};

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

/// A word that packets change, of the flow whose key has the tag `owner`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Owned {
    /// What it says.
    pub value: u32,
    /// [`super::key::FlowKey::tag`] of the entry's key.
    pub owner: u32,
}

impl Owned {
    /// Of nobody yet.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self { value, owner: 0 }
    }

    /// What a word says of an owner: 0 if it is another's by now.
    #[inline(always)]
    pub fn of(word: &Long, owner: u32) -> Self {
        let word = word.load();
        Self { value: if (word >> 32) as u32 == owner { word as u32 } else { 0 }, owner }
    }

    /// The word with this value of an owner.
    #[inline(always)]
    #[must_use]
    pub const fn word(value: u32, owner: u32) -> u64 {
        (owner as u64) << 32 | value as u64
    }
}

/// A copy of an entry, or one in the making.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Flow {
    /// Check of the key and of all that never changes.
    pub tag: u32,
    /// [`FlowFlags`]; fixed, like everything up to `other`.
    pub flags: u32,
    /// The opener's end.
    pub opener: End,
    /// The responder's end.
    pub responder: End,
    /// The backend that a service chose, or [`NO_BACKEND`].
    pub backend: u32,
    /// The service port that it belongs to.
    pub service: u32,
    /// Second (since boot) in which it was made.
    pub opened: u32,
    /// TCP: the sequence number of the SYN that opened it, as on the wire, by which that is known when it is sent again.
    /// Zero of a connection that is older than the tables.
    pub isn: u32,
    /// Of a near entry the far tuple, of a far entry the near one, always from opener to responder. Of a flow whose source is to
    /// be translated at the uplink, the source port that it has there if it can; of others it says nothing.
    pub other: Tuple,
    /// [`super::key::FlowState`].
    pub state: Owned,
    /// Epoch at which the opener's pod let it out.
    pub opener_epoch: Owned,
    /// Epoch at which the responder's pod let it in.
    pub responder_epoch: Owned,
    /// Generation of the backend; without one, of the set of UDP frontends.
    pub generation: Owned,
    /// TCP: how far each end has acknowledged the other, coarsely (`flow/window.rs`).
    pub acked: Owned,
    /// 1 once a CPU has claimed it: that one, and no other, takes it out or replaces it, and counts that.
    pub claim: Owned,
    /// TCP, once one side has closed: the opener's last timestamp (RFC 7323), 0 without one.
    pub last_stamp: Owned,
    /// TCP, once one side has closed: the sequence number that the responder expects next of the opener, host order.
    pub last_seq: Owned,
    /// TCP: what acknowledges the SYN that was passed on last though the connection lives, with what it carried, host order, 0
    /// without one.
    pub aside: Owned,
    /// ICMP errors about it that were let through: the second (low 24 bits) shifted by 8, and how many in it.
    pub errors: Owned,
    /// Second (since boot) of its last packet.
    pub seen: u64,
}

/// Words of a [`Flow`].
const WORDS: usize = 20;
/// Words of it that never change: its head, and the other tuple.
const HEAD: usize = 4;
const OTHER: usize = 5;

/// Flags of those whose other tuple counts: the translated ones, and those that wait for the uplink.
const HAS_OTHER: u32 = FlowFlags::NEAR | FlowFlags::FAR | FlowFlags::MASQUERADE;

/// Odd numbers without a pattern: the words of what never changes are multiplied by one each. (A sum of products has no chain
/// of results that wait for each other, which every packet would wait for.)
const FACTORS: [u64; HEAD + OTHER] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0xd6e8_feb8_6659_fd93,
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
    0x8ebc_6af0_9c88_c6e3,
    0x5899_65cc_7537_4cc3,
    0x1d8e_4e27_c47d_124f,
];

/// Adds a word to a sum, by its factor.
#[inline(always)]
const fn add(sum: u64, word: u64, factor: usize) -> u64 {
    sum.wrapping_add(word.wrapping_mul(FACTORS[factor]))
}

impl Flow {
    /// An empty entry, to be filled in.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            tag: 0,
            flags: 0,
            opener: End::ELSEWHERE,
            responder: End::ELSEWHERE,
            backend: NO_BACKEND,
            service: 0,
            opened: 0,
            isn: 0,
            other: Tuple::NONE,
            state: Owned::new(0),
            opener_epoch: Owned::new(0),
            responder_epoch: Owned::new(0),
            generation: Owned::new(0),
            acked: Owned::new(0),
            claim: Owned::new(0),
            last_stamp: Owned::new(0),
            last_seq: Owned::new(0),
            aside: Owned::new(0),
            errors: Owned::new(0),
            seen: 0,
        }
    }

    /// The check of an entry under a key with this tag.
    #[inline(always)]
    fn check(&self, key: u32) -> u32 {
        let [w0, w1, w2, w3, x0, x1, x2, x3, x4, ..]: &[u64; WORDS] = zerocopy::transmute_ref!(self);
        let mut sum = add(0, *w0 & !0xffff_ffff | u64::from(key), 0);
        sum = add(add(add(sum, *w1, 1), *w2, 2), *w3, 3);
        if self.is(HAS_OTHER) {
            sum = add(add(add(add(add(sum, *x0, 4), *x1, 5), *x2, 6), *x3, 7), *x4, 8);
        }
        (sum >> 32) as u32
    }

    /// Becomes an entry of the key with this tag.
    #[inline(always)]
    pub fn seal(&mut self, key: u32) {
        self.tag = self.check(key);
        let Self {
            tag: _,
            flags: _,
            opener: _,
            responder: _,
            backend: _,
            service: _,
            opened: _,
            isn: _,
            other: _,
            state,
            opener_epoch,
            responder_epoch,
            generation,
            acked,
            claim,
            last_stamp,
            last_seq,
            aside,
            errors,
            seen: _,
        } = self;
        for word in
            [state, opener_epoch, responder_epoch, generation, acked, claim, last_stamp, last_seq, aside, errors]
        {
            word.owner = key;
        }
    }

    /// Whether a copy is the entry of a key with this tag, and its fixed part of one write.
    #[inline(always)]
    #[must_use]
    pub fn is_of(&self, key: u32) -> bool {
        self.state.owner == key && self.tag == self.check(key)
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

    /// Whether the node itself opened it to a service, past the socket hooks ([`crate::svc`]).
    #[inline(always)]
    #[must_use]
    pub const fn is_of_svc(&self) -> bool {
        self.is(FlowFlags::FROM_NODE) && self.backend != NO_BACKEND
    }

    /// Makes `key` that of a translated flow's other entry.
    #[inline(always)]
    pub fn set_other_key(&self, key: &mut TaggedKey, proto: u8) {
        key.set(&self.other, proto);
        key.set_alternate(self.is(FlowFlags::OTHER_ALTERNATE));
    }

    /// Whether the pod that accounts for it opened it.
    #[inline(always)]
    #[must_use]
    pub const fn is_outgoing(&self) -> bool {
        self.opener.slot != NO_SLOT
    }

    /// The ends that a packet comes from and goes to. `forward`: it goes from opener to responder.
    #[inline(always)]
    #[must_use]
    pub const fn ends(&self, forward: bool) -> (End, End) {
        if forward { (self.opener, self.responder) } else { (self.responder, self.opener) }
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self::new()
    }
}

/// An entry in a table. It has the layout of a [`Flow`].
#[derive(Debug)]
#[cfg_attr(any(test, feature = "host"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Entry {
    fixed: [Long; HEAD + OTHER],
    /// [`Flow::state`].
    pub state: Long,
    /// [`Flow::opener_epoch`].
    pub opener_epoch: Long,
    /// [`Flow::responder_epoch`].
    pub responder_epoch: Long,
    /// [`Flow::generation`].
    pub generation: Long,
    /// [`Flow::acked`].
    pub acked: Long,
    /// [`Flow::claim`].
    pub claim: Long,
    /// [`Flow::last_stamp`].
    pub last_stamp: Long,
    /// [`Flow::last_seq`].
    pub last_seq: Long,
    /// [`Flow::aside`].
    pub aside: Long,
    /// [`Flow::errors`].
    pub errors: Long,
    /// [`Flow::seen`].
    pub seen: Long,
}

const _: () = assert!(size_of::<Entry>() == size_of::<Flow>() && size_of::<Flow>() == WORDS * size_of::<u64>());

impl Entry {
    /// Copies what a walk needs of the entry: what never changes, state, epochs, generation, how far either end has come, and second. False if it is not that of a
    /// key with this tag, or was not while it was copied; then nothing in `into` counts.
    #[inline(always)]
    pub fn read(&self, key: u32, into: &mut Flow) -> bool {
        let words: &mut [u64; WORDS] = zerocopy::transmute_mut!(into);
        let [w0, w1, w2, w3, x0, x1, x2, x3, x4, state, opener_epoch, responder_epoch, generation, acked, .., seen] =
            words;
        let [a, b, c, d, e, f, g, h, i] = &self.fixed;
        let (owner, mut sum, mut others) = (u64::from(key) << 32, 0, 0);
        // Each word is added up as it is copied: a program has few registers.
        let mut copy = |to: &mut u64, from: &Long, factor: usize| {
            *to = from.load();
            sum = add(sum, *to, factor);
        };
        *w0 = a.load();
        let (tag, first) = (*w0 as u32, *w0 & !0xffff_ffff | u64::from(key));
        copy(w1, b, 1);
        copy(w2, c, 2);
        copy(w3, d, 3);
        if (*w0 >> 32) as u32 & HAS_OTHER != 0 {
            copy(x0, e, 4);
            copy(x1, f, 5);
            copy(x2, g, 6);
            copy(x3, h, 7);
            copy(x4, i, 8);
        } else {
            // Nothing of another flow that was copied here before.
            (*x0, *x1, *x2, *x3, *x4) = (0, 0, 0, 0, 0);
        }
        let mut live = |to: &mut u64, from: &Long| {
            *to = from.load();
            others |= *to ^ owner;
        };
        live(state, &self.state);
        live(opener_epoch, &self.opener_epoch);
        live(responder_epoch, &self.responder_epoch);
        live(generation, &self.generation);
        live(acked, &self.acked);
        *seen = self.seen.load();
        others >> 32 == 0 && tag == (add(sum, first, 0) >> 32) as u32
    }

    /// All of it, whoever's it is.
    #[cfg(any(test, feature = "host"))]
    #[must_use]
    pub fn plain(&self) -> Flow {
        let [a, b, c, d, e, f, g, h, i] = &self.fixed;
        let Self {
            fixed: _,
            state,
            opener_epoch,
            responder_epoch,
            generation,
            acked,
            claim,
            last_stamp,
            last_seq,
            aside,
            errors,
            seen,
        } = self;
        let words: [u64; WORDS] = [
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            state,
            opener_epoch,
            responder_epoch,
            generation,
            acked,
            claim,
            last_stamp,
            last_seq,
            aside,
            errors,
            seen,
        ]
        .map(Long::load);
        zerocopy::transmute!(words)
    }

    /// The same, and the words that only the end of a connection and errors change.
    #[inline(always)]
    pub fn read_all(&self, key: u32, into: &mut Flow) -> bool {
        into.last_stamp = Owned::of(&self.last_stamp, key);
        into.last_seq = Owned::of(&self.last_seq, key);
        into.aside = Owned::of(&self.aside, key);
        into.errors = Owned::of(&self.errors, key);
        into.claim = Owned { value: 0, owner: key };
        self.read(key, into)
    }
}

#[cfg(test)]
mod tests;
