//! Maps of services: `FRONTENDS` (hash), `SLOTS` (array of backend ids), `BACKENDS` (array), `SERVICE_STATE` (one record).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Addr;

/// Elements of `FRONTENDS`: addresses times ports of all services.
pub const MAX_FRONTENDS: u32 = 1 << 17;

/// Elements of `SLOTS`: endpoints of all services, each block rounded up to a power of two.
pub const MAX_SLOTS: u32 = 1 << 20;

/// Elements of `BACKENDS`: endpoints times ports of all services. The first is nobody's, so that a slot that was never
/// written leads nowhere.
pub const MAX_BACKENDS: u32 = 1 << 18;

/// Key of `FRONTENDS`: what a client aims at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FrontendKey {
    /// The address, or [`Addr::UNSPECIFIED`] for a NodePort, which is every node address.
    pub addr: Addr,
    /// The port, as on the wire.
    pub port: u16,
    /// The IP protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 5],
}

impl FrontendKey {
    /// A key; `port` as on the wire.
    #[inline(always)]
    #[must_use]
    pub const fn new(addr: Addr, port: u16, proto: u8) -> Self {
        Self { addr, port, proto, pad: [0; 5] }
    }

    /// What a [`Frontend`] carries to be recognised: a reader that is slow may find another key's value where this
    /// key's was (kernel/bpf/hashtab.c reuses elements at once).
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self) -> u32 {
        self.addr.tag() ^ (((self.port as u32) << 8) | self.proto as u32).wrapping_mul(0x9e37_79b1)
    }
}

/// Value of `FRONTENDS`. Replaced as a whole: that is the commit point of every change to a service.
///
/// The kernel writes an element that it reuses from its first byte to its last while a slow reader may still hold it.
/// So a reader takes `tag` after everything else: if that is still its key's, so is the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Frontend {
    /// [`FrontendKey::tag`] of its key.
    pub tag: u32,
    /// The service port that it belongs to, the same for all its addresses: affinity and metrics go by it.
    pub service: u32,
    /// For clients inside the cluster.
    pub internal: Scope,
    /// For clients outside.
    pub external: Scope,
    /// Seconds of client-IP affinity, 0 for none.
    pub affinity_seconds: u32,
    /// Reserved, zero.
    pub flags: u32,
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
    /// Port of the endpoint, as on the wire.
    pub port: u16,
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
/// is stale and decided anew; a TCP flow goes on (its endpoint may be finishing its work).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendState(pub u64);

impl BackendState {
    /// New flows may use it, and UDP flows may stay.
    pub const SERVING: u64 = 1;

    /// From its parts.
    #[must_use]
    pub const fn new(generation: u32, serving: bool) -> Self {
        Self((generation as u64) << 32 | if serving { Self::SERVING } else { 0 })
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

/// The one element of `SERVICE_STATE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServiceState {
    /// How often the set of UDP frontends has changed, written as one aligned word. A UDP flow that goes to no backend
    /// carries its low half: when a frontend appears where there was none, the flow is decided anew.
    pub udp_generation: u64,
}
