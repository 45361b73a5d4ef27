//! Maps of services: `frontends` (hash), `slots` (array of backend ids), `backends` (array).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Addr;

/// Key of `frontends`: what a client aims at.
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

/// Value of `frontends`. Replaced as a whole: that is the commit point of every change to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Frontend {
    /// [`FrontendKey::tag`] of its key.
    pub tag: u32,
    /// The service port that it belongs to, the same for all its addresses: affinity and metrics go by it.
    pub service: u32,
    /// Seconds of client-IP affinity, 0 for none.
    pub affinity_seconds: u32,
    /// Reserved, zero.
    pub flags: u32,
    /// For clients inside the cluster.
    pub internal: Scope,
    /// For clients outside.
    pub external: Scope,
}

/// What becomes of a new flow to a frontend: a verdict and, for FORWARD, a block of `slots`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Scope {
    /// First index in `slots`.
    pub offset: u32,
    /// Number of slots in the low 24 bits, [`Verdict`] in the high 8.
    pub count_verdict: u32,
}

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
    pub const REJECT: Self = Self { offset: 0, count_verdict: (Verdict::Reject as u32) << 24 };
    /// Drop.
    pub const DROP: Self = Self { offset: 0, count_verdict: (Verdict::Drop as u32) << 24 };

    /// Forward to `count` slots from `offset` on.
    #[must_use]
    pub const fn forward(offset: u32, count: u32) -> Self {
        Self { offset, count_verdict: (count & 0x00ff_ffff) | (Verdict::Forward as u32) << 24 }
    }

    /// The verdict; what can't be read is DROP.
    #[inline(always)]
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        match self.count_verdict >> 24 {
            1 => Verdict::Forward,
            2 => Verdict::Reject,
            _ => Verdict::Drop,
        }
    }

    /// Number of slots.
    #[inline(always)]
    #[must_use]
    pub const fn count(self) -> u32 {
        self.count_verdict & 0x00ff_ffff
    }
}

/// Element of `backends`: one endpoint of one service port. Never changed once a slot refers to it, except `state`.
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
