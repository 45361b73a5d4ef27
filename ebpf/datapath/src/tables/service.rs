//! Maps of services: `FRONTENDS` (hash), `SLOTS` (array of backend ids), `BACKENDS` (array), `SERVICE_STATE` (one record).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::peer::NO_SLOT;
use crate::{Addr, WirePort};

/// Elements of `FRONTENDS`: addresses times ports of all services.
pub const MAX_FRONTENDS: u32 = 1 << 17;

/// Elements of `SLOTS` (8 MiB): endpoints of all services, each block rounded up to a power of two. Four for each backend, so
/// that this never is what is short: a port has two blocks at most, and rounding doubles one at most.
pub const MAX_SLOTS: u32 = 1 << 21;

/// Elements of `BACKENDS` (16 MiB): endpoints times ports of all services; one namespace may have half of it. The first is
/// nobody's, so that a slot that was never written leads nowhere.
pub const MAX_BACKENDS: u32 = 1 << 19;

/// Key of `FRONTENDS`: what a client aims at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FrontendKey {
    /// The address, or [`Addr::wildcard`] of a family: the node's addresses that are in `NODE_ADDRESSES` for the kind of
    /// port that it is (NodePort or hostPort).
    pub addr: Addr,
    /// The port.
    pub port: WirePort,
    /// The IP protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 5],
}

impl FrontendKey {
    /// A key.
    #[inline(always)]
    #[must_use]
    pub const fn new(addr: Addr, port: WirePort, proto: u8) -> Self {
        Self { addr, port, proto, pad: [0; 5] }
    }

    /// What a [`Frontend`] carries to be recognised: a reader that is slow may find another key's value where this
    /// key's was (kernel/bpf/hashtab.c reuses elements at once).
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self) -> u32 {
        self.addr.tag() ^ (((self.port.bits() as u32) << 8) | self.proto as u32).wrapping_mul(0x9e37_79b1)
    }
}

/// Value of `FRONTENDS`. Replaced as a whole: that is the commit point of every change to a service.
///
/// The kernel may give its element to another key while a slow reader still holds it: see [`super::reused`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Frontend {
    /// Check of its key and content: [`Frontend::is_of`].
    pub tag: u32,
    /// The service port that it belongs to, the same for all its addresses: affinity and metrics go by it.
    pub service: u32,
    /// For clients inside the cluster.
    pub internal: Scope,
    /// For clients outside.
    pub external: Scope,
    /// Seconds of client-IP affinity, 0 for none.
    pub affinity_seconds: u32,
    /// [`FrontendFlags`].
    pub flags: u32,
}

flags! {
    /// Bits of [`Frontend::flags`].
    pub struct FrontendFlags {
        /// A NodePort. Under a wildcard it is reached by the addresses that have this bit in `NODE_ADDRESSES`.
        pub const NODE_PORT: u32 = 1;
        /// A hostPort, likewise.
        pub const HOST_PORT: u32 = 2;
        /// Clients outside keep their address on their way to a pod of this node (S35): policy Local, and hostPorts.
        pub const KEEP_SOURCE: u32 = 4;
        /// A NodePort that processes of the node may not bind to (S7).
        pub const GUARDED: u32 = 8;
        /// An address that the cluster gives out itself: a cluster IP, or node-local DNS. Nobody sends from there.
        pub const CLUSTER: u32 = 16;
        /// Every kind of wildcard.
        pub const WILDCARDS: u32 = Self::NODE_PORT | Self::HOST_PORT;
    }
}

impl FrontendFlags {
    /// The flag that only clients in a set of `SOURCE_RANGES` (from 1 on, 24 bits) may use it (S12).
    #[must_use]
    pub const fn source_set(set: u32) -> u32 {
        set << 8
    }

    /// The set of `SOURCE_RANGES` that its clients must be in, 0 if everybody may use it.
    #[inline(always)]
    #[must_use]
    pub const fn source_set_of(flags: u32) -> u32 {
        flags >> 8
    }
}

/// Elements of `NODE_ADDRESSES`: the node's own addresses, each with the bits of [`FrontendFlags`] of the wildcards that
/// are reached by it.
pub const MAX_NODE_ADDRESSES: u32 = 1024;

/// Elements of `SERVICE_PORTS`: 64 ports each, of TCP, then UDP, then SCTP. A port that any frontend ever had is set, and
/// never cleared, since flows outlive their service: what comes to the node itself at other ports is none of services'
/// business, and that is all that has to be asked about it.
pub const SERVICE_PORT_WORDS: u32 = 3 * (1 << 16) / 64;

/// The element of `SERVICE_PORTS` that a port (as on the wire) is in, and its bit there. `None` for a protocol without
/// ports.
#[inline(always)]
#[must_use]
pub const fn service_port(port: WirePort, proto: u8) -> Option<(u32, u64)> {
    let of_protocol = match proto {
        6 => 0,
        17 => 1 << 10,
        132 => 2 << 10,
        _ => return None,
    };
    let port = port.number();
    Some((of_protocol + (port as u32 >> 6), 1 << (port & 63)))
}

/// Elements of `SOURCE_RANGES`: prefixes times ports of services that have them. A set is never changed: a frontend gets
/// another one, and with it another answer, by the one write that replaces it.
pub const MAX_SOURCE_RANGES: u32 = 1 << 15;

/// Key of `SOURCE_RANGES`, an LPM trie: `struct bpf_lpm_trie_key` with the set before the address. A set has one family,
/// so `::/0` of one can't hold an IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SourceRangeKey {
    /// Bits that count: 32 for the set, then the prefix (96 more for IPv4, which is v4-mapped).
    pub prefix_len: u32,
    /// The set.
    pub set: u32,
    /// The address as on the wire, host bits zero.
    pub addr: [u8; 16],
}

impl SourceRangeKey {
    /// The key that finds the range of a client.
    #[inline(always)]
    #[must_use]
    pub fn lookup(set: u32, client: Addr) -> Self {
        Self { prefix_len: 32 + 128, set, addr: client.bytes() }
    }

    /// The key of a prefix: `len` in the family's own terms (0..=32 or 0..=128).
    #[must_use]
    pub fn prefix(set: u32, addr: Addr, len: u8) -> Self {
        let bits = if addr.is_v4() { 96 + u32::from(len) } else { u32::from(len) };
        Self { prefix_len: 32 + bits, set, addr: addr.bytes() }
    }
}

/// What becomes of a new flow to a frontend: a verdict and, for FORWARD, a block of `SLOTS`.
///
/// One word, `verdict << 56 | count << 32 | offset`, so that a reader never sees half of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Scope(u64);

/// The three answers of a frontend. Never inferred from an empty block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// To one of the backends.
    Forward = 1,
    /// Refused at once (ICMP port unreachable, `ECONNREFUSED`): no endpoint anywhere.
    Reject = 2,
    /// Silence, so that a load balancer in front looks elsewhere: endpoints exist, none that this scope may use.
    Drop = 3,
}

impl Scope {
    /// Refuse.
    pub const REJECT: Self = Self((Verdict::Reject as u64) << 56);
    /// Drop.
    pub const DROP: Self = Self((Verdict::Drop as u64) << 56);

    /// Forward to `count` (24 bits) slots from `offset` on.
    #[must_use]
    pub const fn forward(offset: u32, count: u32) -> Self {
        Self((Verdict::Forward as u64) << 56 | ((count & 0x00ff_ffff) as u64) << 32 | offset as u64)
    }

    /// The verdict; what can't be read is DROP.
    #[inline(always)]
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        match self.0 >> 56 {
            1 => Verdict::Forward,
            2 => Verdict::Reject,
            _ => Verdict::Drop,
        }
    }

    /// Number of slots.
    #[inline(always)]
    #[must_use]
    pub const fn count(self) -> u32 {
        (self.0 >> 32) as u32 & 0x00ff_ffff
    }

    /// First index in `SLOTS`.
    #[inline(always)]
    #[must_use]
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }
}

/// Element of `BACKENDS`: one endpoint of one service port. Never changed once a slot refers to it, except `state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Backend {
    /// Address of the endpoint.
    pub addr: Addr,
    /// Port of the endpoint.
    pub port: WirePort,
    /// The IP protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
    /// The service port that it serves.
    pub service: u32,
    /// [`BackendState`], written as one aligned word.
    pub state: u64,
}

/// The word of a backend that changes while flows refer to it: `generation << 32 | flags`.
///
/// A flow remembers the generation that it was made with. When it differs, or the backend no longer serves, a UDP flow
/// is stale and decided anew; a TCP flow goes on (its endpoint may be finishing its work). While the backend ends, a UDP flow that is
/// no stream is stale too: what comes by its ports is another question, and may be another socket's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendState(pub u64);

impl BackendState {
    /// New flows may use it, and UDP flows may stay.
    pub const SERVING: u64 = 1;
    /// It is about to end, and serves until then.
    pub const ENDING: u64 = 2;

    /// From its parts.
    #[must_use]
    pub const fn new(generation: u32, serving: bool) -> Self {
        Self((generation as u64) << 32 | if serving { Self::SERVING } else { 0 })
    }

    /// The same, about to end or not.
    #[must_use]
    pub const fn with_ending(self, ending: bool) -> Self {
        Self(self.0 & !Self::ENDING | if ending { Self::ENDING } else { 0 })
    }

    /// Whether it is about to end.
    #[inline(always)]
    #[must_use]
    pub const fn ending(self) -> bool {
        self.0 & Self::ENDING != 0
    }

    /// How often this id has been given out.
    #[inline(always)]
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether it still serves its service.
    #[inline(always)]
    #[must_use]
    pub const fn serving(self) -> bool {
        self.0 & Self::SERVING != 0
    }
}

/// Elements of `AFFINITY`: every place of all networks outside, and of a thousand pods and nodes.
pub const MAX_AFFINITIES: u32 = AffinityKey::PLACES * (AffinityKey::NETWORKS + 1024);

/// Key of `AFFINITY`: one of the places of whoever connects. So a client that connects to ever more services overwrites its
/// own, and nobody else's. What is in a place says whose it is ([`Affinity::whose`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AffinityKey {
    /// [`AffinityKey::inside`] or [`AffinityKey::outside`].
    pub who: u32,
    /// Below [`AffinityKey::PLACES`].
    pub place: u32,
}

impl AffinityKey {
    /// Places of one client in the cluster, or of one group of networks outside.
    pub const PLACES: u32 = 64;

    /// Groups of networks outside.
    pub const NETWORKS: u32 = 1024;

    /// Places that one memory may be in: where clients are many, few lose theirs because they meet.
    pub const CHOICES: u32 = 4;

    /// A pod of this node, or the node: by its address, which has been checked.
    #[inline(always)]
    #[must_use]
    pub const fn inside(client: Addr) -> u32 {
        client.tag() | 1 << 31
    }

    /// A client outside: those of one network share places, and networks may.
    #[inline(always)]
    #[must_use]
    pub const fn outside(client: Addr) -> u32 {
        super::port::holder(NO_SLOT, client) & (Self::NETWORKS - 1)
    }

    /// A place in which a memory may be; `choice` is below [`AffinityKey::CHOICES`], and each is another place.
    #[inline(always)]
    #[must_use]
    pub const fn new(who: u32, whose: u32, choice: u32) -> Self {
        let step = whose >> 8 | 1;
        Self { who, place: whose.wrapping_add(step.wrapping_mul(choice)) & (Self::PLACES - 1) }
    }

    /// What an [`Affinity`] carries to be recognised, as [`FrontendKey::tag`].
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self) -> u32 {
        (self.who ^ self.place.rotate_right(8)).wrapping_mul(0x9e37_79b1)
    }
}

/// Value of `AFFINITY`: the backend that a client had last by a service port, whichever of its addresses the client used (S38).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Affinity {
    /// Check of its key and content: [`Affinity::is_of`].
    pub tag: u32,
    /// The service port.
    pub service: u32,
    /// The client's address.
    pub client: Addr,
    /// The backend's id.
    pub backend: u32,
    /// The generation of that id.
    pub generation: u32,
    /// Second (since boot) of the client's last new flow.
    pub seen: u32,
    /// Zero.
    pub pad: u32,
}

impl Affinity {
    /// A word that spreads the memories of a client, or of clients of a network, over places.
    #[inline(always)]
    #[must_use]
    pub const fn whose(client: Addr, service: u32) -> u32 {
        let x = (client.tag() ^ service.rotate_right(12)).wrapping_mul(0x9e37_79b1);
        x ^ x >> 15
    }
}

super::reused::tagged! { Frontend, of 4 words; Affinity, of 5 words; }

/// Value of `NODE_ADDRESSES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct NodeAddress {
    /// Check of key and content: see [`super::reused`].
    pub tag: u32,
    /// What is at it: [`FrontendFlags::NODE_PORT`], [`FrontendFlags::HOST_PORT`] or both; or [`NodeAddress::BROADCAST`].
    pub kinds: u32,
}

impl NodeAddress {
    /// It is no host's: what is sent there goes to all of a network that the node is on (RFC 919). No frontend has this bit.
    pub const BROADCAST: u32 = 1 << 7;
}

super::reused::tagged! { NodeAddress, of 1 words; }

/// The one element of `SERVICE_STATE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServiceState {
    /// How often the set of UDP frontends has changed, written as one aligned word. A UDP flow that goes to no backend
    /// carries its low half: when a frontend appears where there was none, the flow is decided anew.
    pub udp_generation: u64,
}

/// The tables of services.
pub trait Tables {
    /// The element of `FRONTENDS` under this key, copied out: [`Frontend::is_of`] says whether it is that key's.
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend>;

    /// The value of an address of the node in `NODE_ADDRESSES`: kinds of wildcards that it reaches, or
    /// [`NodeAddress::BROADCAST`]. 0 of any other.
    fn node_address(&self, addr: &Addr) -> u32;

    /// An element of `SERVICE_PORTS`, see [`service_port`]; 0 beyond the end.
    fn service_ports(&self, index: u32) -> u64;

    /// Whether `SOURCE_RANGES` has a prefix for a key.
    fn in_source_range(&self, key: &SourceRangeKey) -> bool;

    /// The backend id in an element of `SLOTS`, `None` beyond its end.
    fn slot(&self, index: u32) -> Option<u32>;

    /// The element of `AFFINITY` under a key, copied out: [`Affinity::is_of`] says whether it is that key's.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;

    /// Writes an element of `AFFINITY`.
    fn remember_affinity(&self, key: &AffinityKey, value: &Affinity);

    /// An element of `BACKENDS`, which stays where it is; `None` beyond its end.
    fn backend(&self, id: u32) -> Option<&Backend>;

    /// [`Backend::state`], read as one word; 0 beyond the end.
    fn backend_state(&self, id: u32) -> u64;

    /// The low half of [`ServiceState::udp_generation`].
    fn udp_generation(&self) -> u32;
}
