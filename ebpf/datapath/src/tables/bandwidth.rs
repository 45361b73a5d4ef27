//! What pods may send and receive in a second: `BANDWIDTH` (array by slot, written by the agent) and `PACE` (array by slot,
//! written by packets).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Long;

/// Element of `BANDWIDTH`, by slot: the limits of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bandwidth {
    /// Of what it sends.
    pub egress: Limit,
    /// Of what it receives.
    pub ingress: Limit,
}

impl Bandwidth {
    /// That of a pod without limits.
    pub const NONE: Self = Self { egress: Limit::NONE, ingress: Limit::NONE };
}

/// A limit in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Limit {
    /// Bytes a second, 0 for no limit.
    pub rate: u64,
    /// How far ahead of the rate packets may be, in microseconds: what may come at once, and how long a packet may wait.
    pub ahead: u32,
    /// 1 if what leaves the node waits at the uplink until its turn, and is not let through ahead of it.
    pub paced: u32,
}

/// Element of `PACE`, by slot: when the next packet's turn is, in nanoseconds since boot.
#[derive(Debug, Default)]
#[cfg_attr(any(test, feature = "host"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Pace {
    /// Of what the pod sends.
    pub egress: Long,
    /// Of what it receives.
    pub ingress: Long,
}

impl Limit {
    /// No limit.
    pub const NONE: Self = Self { rate: 0, ahead: 0, paced: 0 };

    /// How long a packet of so many bytes takes at the rate, in nanoseconds. Nothing without a limit.
    #[inline(always)]
    #[must_use]
    pub const fn duration(&self, bytes: u32) -> u64 {
        match (bytes as u64 * 1_000_000_000).checked_div(self.rate) {
            Some(nanoseconds) => nanoseconds,
            None => 0,
        }
    }

    /// When it is a packet's turn, if it is to pass at all: `next` is what the packets before it have left. The turn is never
    /// before `now`, so what was not used is not saved up.
    #[inline(always)]
    #[must_use]
    pub const fn turn(&self, next: u64, now: u64) -> Option<u64> {
        let turn = if next > now { next } else { now };
        if turn - now > self.ahead as u64 * 1000 { None } else { Some(turn) }
    }
}
