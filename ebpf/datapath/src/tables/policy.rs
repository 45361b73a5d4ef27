//! Maps of policy: `policy_sets` (array), `policy_peers` and `policy_ports` (hashes), `policy_ranges` (longest prefix).
//!
//! Everything but `policy_sets` holds rows of bits. Nothing that a pod's word leads to is ever changed: a change writes
//! new rows under new ids, moves the word, and deletes the old rows when nobody can be reading them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::WirePort;

/// Policy sets that exist at a time: size of `policy_sets`, 192 KiB.
pub const MAX_SETS: u32 = 8192;

/// Size of `policy_peers`: rows of (set, class).
pub const MAX_PEER_ROWS: u32 = 65_536;

/// Size of `policy_ports`: rows of (set, protocol, port).
pub const MAX_PORT_ROWS: u32 = 65_536;

/// Size of `policy_ranges`: rows of (set, protocol, block of ports).
pub const MAX_RANGE_ROWS: u32 = 16_384;

/// Size of `policy_hits`: counters of (set, bit). On each CPU an element has 32 bytes.
pub const MAX_HITS: u32 = 16_384;

/// Rules in one row.
pub const PAGE_BITS: u16 = 256;

/// Rows that the rules of one set may fill: 2048 rules. Each costs the verifier some 100 instructions.
pub const MAX_PAGES: u16 = 8;

/// [`crate::policy::Decision::bit`] when no rule decided.
pub const NO_BIT: u16 = u16::MAX;

/// [`PortKey::port`] of the row of rules that match whatever the port is. Also what a packet without a port, or with
/// one that is not known, asks for: no rule can name port 0.
pub const ANY_PORT: WirePort = WirePort::NONE;

/// [`PortKey::proto`] of the row of rules that match every protocol: what ICMP and all else but TCP, UDP and SCTP meet.
pub const OTHER_PROTOCOLS: u8 = 0;

/// Element of `policy_sets`: what a policy set is besides its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PolicySet {
    /// Its id. Another id than the one sought: the set does not exist, which denies.
    pub id: u32,
    /// Rows that its rules fill, at most [`MAX_PAGES`].
    pub pages: u16,
    /// [`SetFlags`]. A flag that the reader does not know denies.
    pub flags: u16,
    /// Hash of what it was compiled from, so that a new agent finds it again. Nothing depends on it.
    pub content: u64,
    /// Its first pages that hold the Admin tier.
    pub admin_pages: u16,
    /// Zero.
    pub pad: [u8; 6],
}

/// Bits of a rule in a tier whose rules have actions (Admin and Baseline): a pair, the first of them even. A rule that accepts
/// has the first, one that denies the second, and one that passes both. So the lowest bit that matches says what to do, and
/// no table of actions is asked. Rules of NetworkPolicies accept, and have one bit.
pub const RULE_BITS: u16 = 2;

impl PolicySet {
    /// Where the set with an id lives in `policy_sets`.
    #[inline(always)]
    #[must_use]
    pub const fn index(id: u32) -> u32 {
        id & (MAX_SETS - 1)
    }
}

flags! {
    /// Bits of [`PolicySet::flags`]. The pages after those of the Admin tier hold the NetworkPolicy tier, which denies what no
    /// rule accepts. A pod that no NetworkPolicy isolates has the Baseline tier there.
    pub struct SetFlags {
        /// The set has rows in `policy_ranges`.
        pub const RANGES: u16 = 1;
        /// The pages after the Admin tier hold the Baseline tier, and what no rule decides on may pass.
        pub const OPEN: u16 = 2;
        /// Every flag that this version of the decision knows.
        pub const KNOWN: u16 = Self::RANGES | Self::OPEN;
    }
}

/// Key of `policy_peers`.
///
/// Class 0 is that of an address that no rule of this node tells from others; its row holds the rules for every peer.
/// A class whose row would be the same has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PeerKey {
    /// The policy set.
    pub set: u32,
    /// The peer's class.
    pub class: u32,
    /// Which 256 rules.
    pub page: u32,
}

impl PeerKey {
    /// What its row carries to be recognised.
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self) -> u32 {
        mix(self.set, self.class ^ (self.page << 28))
    }
}

/// Key of `policy_ports`.
///
/// For each page a set has four rows with [`ANY_PORT`] ([`OTHER_PROTOCOLS`], TCP, UDP, SCTP); a port has a row only
/// where that differs from its protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PortKey {
    /// The policy set.
    pub set: u32,
    /// The port, or [`ANY_PORT`].
    pub port: WirePort,
    /// The IP protocol number, or [`OTHER_PROTOCOLS`].
    pub proto: u8,
    /// Which 256 rules.
    pub page: u8,
}

impl PortKey {
    /// What its row carries to be recognised.
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self) -> u32 {
        mix(self.set, (self.port.bits() as u32) << 16 | (self.proto as u32) << 8 | self.page as u32)
    }
}

/// Key of `policy_ranges`, an LPM trie (`struct bpf_lpm_trie_key`): a block of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RangeKey {
    /// Bits that count: 48 for what stands before the port, then up to 16 of the port.
    pub prefix_len: u32,
    /// The policy set.
    pub set: u32,
    /// Which 256 rules.
    pub page: u8,
    /// The IP protocol number.
    pub proto: u8,
    /// The first port of the block.
    pub port: WirePort,
}

impl RangeKey {
    /// The key that finds the block of a port.
    #[inline(always)]
    #[must_use]
    pub const fn lookup(key: &PortKey) -> Self {
        Self { prefix_len: 64, set: key.set, page: key.page, proto: key.proto, port: key.port }
    }

    /// What the rows of all blocks of this set, page and protocol carry to be recognised.
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self) -> u32 {
        mix(self.set, (self.proto as u32) << 8 | self.page as u32)
    }
}

/// 256 rules, a bit each: value of `policy_peers`, `policy_ports` and `policy_ranges`. Never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Row {
    /// Check of its key and content: [`Row::is_of`].
    pub tag: u32,
    /// Zero.
    pub pad: u32,
    /// Rule `n` of the page is bit `n % 64` of word `n / 64`.
    pub bits: [u64; 4],
}

impl Row {
    /// A row without a tag.
    #[must_use]
    pub const fn new(bits: [u64; 4]) -> Self {
        Self { tag: 0, pad: 0, bits }
    }
}

super::reused::tagged! { Row, of 5 words; }

/// Key of `policy_hits`. The agent alone makes elements, for as many sets as there is room for, and takes them out when
/// nobody can be judged by the set any more: so what is counted under a key is never another rule's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HitKey {
    /// The policy set.
    pub set: u32,
    /// The bit that matched, or [`NO_BIT`] where no rule of the pod's NetworkPolicies did.
    pub bit: u32,
}

/// Value of `policy_hits`: what a rule has decided on, on one CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Hits {
    /// Hash of what the rule says, so that an agent that starts anew knows whose numbers these are. Nothing depends on it.
    pub rule: u64,
    /// Flows that were made because of it. Their packets are not counted.
    pub flows: u64,
    /// Packets that were dropped because of it.
    pub denied: u64,
    /// When it was last met, in seconds since boot; 0 if it never was.
    pub last: u64,
}

const fn mix(a: u32, b: u32) -> u32 {
    let x = ((a as u64) << 32 | b as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x >> 32) as u32 ^ x as u32
}

/// The tables of policy. Methods copy values out.
///
/// An implementation over memory that others write copies by [`super::reused::copy`]; whoever asks checks what it got by
/// [`Row::is_of`].
pub trait Tables {
    /// The element of `policy_sets` that a set lives in ([`PolicySet::index`]).
    fn policy_set(&self, index: u32) -> Option<PolicySet>;

    /// The row of `policy_peers` under a key.
    fn policy_peers(&self, key: &PeerKey) -> Option<Row>;

    /// The row of `policy_ports` under a key.
    fn policy_ports(&self, key: &PortKey) -> Option<Row>;

    /// The row of the longest prefix in `policy_ranges`.
    fn policy_range(&self, key: &RangeKey) -> Option<Row>;
}
