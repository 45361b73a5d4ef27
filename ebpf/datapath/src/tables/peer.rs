//! Maps of addresses, nodes and this node's pods.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Addr;

/// `slot` of an address that is no pod of this node.
pub const NO_SLOT: u16 = u16::MAX;

/// `node` of an address that is behind no node of the cluster.
pub const NO_NODE: u16 = u16::MAX;

/// Size of `peers`: addresses of pods and nodes in the whole cluster. 2 MiB, and 96 bytes for each that exists.
pub const MAX_PEERS: u32 = 131_072;

/// Size of `cidrs`: prefixes that policies name, and those of nodes.
pub const MAX_CIDRS: u32 = 16_384;

/// Size of `nodes`: other nodes of the cluster, 320 KiB.
pub const MAX_NODES: u16 = 8192;

/// Value of `peers` (key: [`Addr`]) and of `cidrs`: what is known of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Peer {
    /// Check of its key and content in `peers` ([`Peer::is_of`]); 0 in `cidrs`, whose elements are freed after a grace
    /// period.
    pub tag: u32,
    /// What the policies in force on this node can tell about it. 0: nothing, as for any address that has no row.
    /// In one aligned word with `tag`, so that no reader takes one without the other.
    pub class: u32,
    /// The slot of this node's pod that owns it, or [`NO_SLOT`].
    pub slot: u16,
    /// Index in `nodes` of the node that it is behind or that it is, or [`NO_NODE`]. For what is on this node,
    /// [`NO_NODE`].
    pub node: u16,
    /// [`PeerFlags`].
    pub flags: u32,
}

flags! {
    /// Bits of [`Peer::flags`].
    pub struct PeerFlags {
        /// A pod's address, or a prefix that pods get theirs from.
        pub const POD: u32 = 1;
        /// An address of a node.
        pub const NODE: u32 = 2;
        /// An address of this node (always with `NODE`).
        pub const SELF: u32 = 4;
        /// The address is a pod's and that pod exists; a prefix never has it.
        pub const EXISTS: u32 = 8;
        /// Outside of the cluster, and by setting pods go there with their own addresses. A prefix has it.
        pub const KEEP_SOURCE: u32 = 16;
        /// Flows that a pod of this node has opened are judged by another class than new ones: see [`Peer::known_class`].
        pub const LINGERS: u32 = 1 << 30;
        /// Never in a table: what [`crate::peer::lookup()`] gives when it could not read one.
        pub const RACED: u32 = 1 << 31;
    }
}

impl Peer {
    /// What an address has that nothing is known of: the world outside.
    pub const WORLD: Self = Self { tag: 0, class: 0, slot: NO_SLOT, node: NO_NODE, flags: 0 };

    /// The class by which a flow to the address is judged again when its opener's policy has changed: that of new flows, or the
    /// one whose id differs from it in the bit [`PeerFlags::LINGERS`].
    #[inline(always)]
    #[must_use]
    pub const fn known_class(&self) -> u32 {
        self.class ^ (self.flags & PeerFlags::LINGERS)
    }
}

super::reused::tagged! { Peer, of 2 words; }

impl Default for Peer {
    fn default() -> Self {
        Self::WORLD
    }
}

/// Key of `cidrs`, an LPM trie: `struct bpf_lpm_trie_key` with a family byte before the address, or `::/0` would hold
/// all of IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CidrKey {
    /// Bits that count: 8 for the family, then the prefix (96 more for IPv4, which is v4-mapped).
    pub prefix_len: u32,
    /// 4 or 6.
    pub family: u8,
    /// The address as on the wire, host bits zero.
    pub addr: [u8; 16],
    /// Zero, and beyond every prefix.
    pub pad: [u8; 3],
}

impl CidrKey {
    /// The key that finds the longest prefix of an address.
    #[inline(always)]
    #[must_use]
    pub fn lookup(addr: Addr) -> Self {
        Self { prefix_len: 8 + 128, family: if addr.is_v4() { 4 } else { 6 }, addr: addr.bytes(), pad: [0; 3] }
    }

    /// The key of a prefix: `len` in the family's own terms (0..=32 or 0..=128).
    #[must_use]
    pub fn prefix(addr: Addr, len: u8) -> Self {
        let (family, bits) = if addr.is_v4() { (4, 96 + u32::from(len)) } else { (6, u32::from(len)) };
        Self { prefix_len: 8 + bits, family, addr: addr.bytes(), pad: [0; 3] }
    }
}

/// Element of `nodes`: the way to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NodeHop {
    /// Its IPv4 address, v4-mapped, or `::`.
    pub v4: Addr,
    /// Its IPv6 address, or `::`.
    pub v6: Addr,
    /// The uplink towards it, 0 when there is none.
    pub ifindex: u32,
    /// [`HopFlags`]. In one aligned word with `ifindex`, behind the addresses: one may come or go while the other stays.
    pub flags: u32,
}

flags! {
    /// Bits of [`NodeHop::flags`]. Packets of a family that has none of its own go to the node's own address.
    pub struct HopFlags {
        /// IPv4 packets go through the tunnel.
        pub const TUNNEL_V4: u32 = 1;
        /// IPv6 packets do.
        pub const TUNNEL_V6: u32 = 2;
        /// IPv4 packets go where the node's routes lead, by a network that knows the ranges of pods.
        pub const ROUTED_V4: u32 = 4;
        /// IPv6 packets do.
        pub const ROUTED_V6: u32 = 8;
        /// What it sends through the tunnel is accepted. Bits from [`NodeHop::END`] on: for how long yet.
        pub const SENDS: u32 = 16;
    }
}

impl NodeHop {
    /// The first of the bits of [`Self::flags`] that say when what the node sends through the tunnel is no longer accepted: the
    /// second since boot, divided by [`Self::STEP`] and rounded up; 0 for no end. The agent reads it again after a restart.
    pub const END: u32 = 8;
    /// Seconds that the end is counted in.
    pub const STEP: u32 = 16;

    /// The bits of an end.
    #[must_use]
    pub const fn end(second: u32) -> u32 {
        second.div_ceil(Self::STEP) << Self::END
    }

    /// The second (since boot) from which on what it sends through the tunnel is not accepted, if that ends.
    #[inline(always)]
    #[must_use]
    pub const fn sends_until(&self) -> Option<u32> {
        match self.flags >> Self::END {
            0 => None,
            steps => Some(steps.saturating_mul(Self::STEP)),
        }
    }

    /// Whether packets of a family go through the tunnel.
    #[inline(always)]
    #[must_use]
    pub const fn is_tunnelled(&self, v6: bool) -> bool {
        self.flags & if v6 { HopFlags::TUNNEL_V6 } else { HopFlags::TUNNEL_V4 } != 0
    }

    /// Whether what it sends through the tunnel is accepted.
    #[inline(always)]
    #[must_use]
    pub const fn sends(&self) -> bool {
        self.flags & HopFlags::SENDS != 0
    }

    /// Whether packets of a family go where the node's routes lead.
    #[inline(always)]
    #[must_use]
    pub const fn is_routed(&self, v6: bool) -> bool {
        self.flags & if v6 { HopFlags::ROUTED_V6 } else { HopFlags::ROUTED_V4 } != 0
    }
}

/// Element of `pods`, by slot: a pod of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Pod {
    /// [`PodWord`], published as one aligned word; see [`PodWord::is_pending`].
    pub word: u64,
    /// Its IPv4 address, v4-mapped, or `::`.
    pub v4: Addr,
    /// Its IPv6 address, or `::`.
    pub v6: Addr,
    /// Largest number of established flows, 0 for the default.
    pub max_flows: u32,
    /// New flows a second, 0 for the default.
    pub max_rate: u32,
    /// MAC of the pod's side.
    pub pod_mac: [u8; 6],
    /// MAC of the host's side: the gateway's.
    pub host_mac: [u8; 6],
    /// Zero.
    pub pad: [u8; 4],
}

impl Pod {
    /// What a slot without a pod holds.
    pub const NONE: Self = Self {
        word: 0,
        v4: Addr::UNSPECIFIED,
        v6: Addr::UNSPECIFIED,
        max_flows: 0,
        max_rate: 0,
        pod_mac: [0; 6],
        host_mac: [0; 6],
        pad: [0; 4],
    };
}

/// Value of `foreign` (key: an interface's index): the pod of this node whose host side another plugin has made.
///
/// One aligned word, so that no reader takes a part of it that belongs to the next key ([`super::reused`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct HostSide {
    /// Its key again.
    pub ifindex: u32,
    /// The pod's slot.
    pub slot: u32,
}

/// The policy sets of a pod and the epoch at which they came into force: `ingress << 44 | egress << 24 | epoch`.
///
/// A flow remembers the epoch it was judged at; when it differs, the flow is judged again on its next packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PodWord(pub u64);

impl PodWord {
    /// Largest policy set id (20 bits).
    pub const MAX_SET: u32 = (1 << 20) - 1;
    /// Epochs count modulo this (24 bits).
    pub const EPOCHS: u32 = 1 << 24;

    /// From its parts.
    #[must_use]
    pub const fn new(ingress: u32, egress: u32, epoch: u32) -> Self {
        Self(
            ((ingress & Self::MAX_SET) as u64) << 44
                | ((egress & Self::MAX_SET) as u64) << 24
                | (epoch & (Self::EPOCHS - 1)) as u64,
        )
    }

    /// The set that judges what the pod receives.
    #[inline(always)]
    #[must_use]
    pub const fn ingress(self) -> u32 {
        (self.0 >> 44) as u32
    }

    /// The set that judges what the pod sends.
    #[inline(always)]
    #[must_use]
    pub const fn egress(self) -> u32 {
        (self.0 >> 24) as u32 & Self::MAX_SET
    }

    /// Whether the pod may not talk at all: no pod, or no policy in force yet. The epoch counts on all the same.
    #[inline(always)]
    #[must_use]
    pub const fn is_pending(self) -> bool {
        self.0 >> 24 == 0
    }

    /// The epoch.
    #[inline(always)]
    #[must_use]
    pub const fn epoch(self) -> u32 {
        self.0 as u32 & (Self::EPOCHS - 1)
    }
}

/// The tables of addresses, nodes and pods. Methods copy values out.
///
/// An implementation over memory that others write copies by [`super::reused::copy`]; whoever asks checks what it got by
/// [`Peer::is_of`].
pub trait Tables {
    /// The value of `peers` under an address.
    fn peer(&self, addr: &Addr) -> Option<Peer>;

    /// The value of the longest prefix in `cidrs`.
    fn cidr(&self, key: &CidrKey) -> Option<Peer>;

    /// An element of `nodes`.
    fn node(&self, index: u16) -> Option<NodeHop>;

    /// An element of `pods`. Read before any address is looked up for it: what its word leads to is written in the
    /// opposite order.
    fn pod(&self, slot: u16) -> Option<&Pod>;

    /// The word of an element of `pods`, read as one; 0 where there is no such slot.
    fn pod_word(&self, slot: u16) -> u64;

    /// The value of `foreign` under an interface's index.
    fn foreign(&self, ifindex: u32) -> Option<HostSide>;

    /// An element of `host_sides`: the interface of a pod that another plugin has wired, 0 of any other slot.
    fn host_side(&self, slot: u16) -> u32;
}
