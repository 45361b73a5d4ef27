//! Who sends to whom.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr, WirePort};

/// Source and destination of a packet. Ports are as on the wire; an ICMP echo has its identifier as the port of the
/// end that asks and 0 as the other's, so that a ping is a flow like any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tuple {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port.
    pub sport: WirePort,
    /// Destination port.
    pub dport: WirePort,
    /// Zero.
    pub pad: u32,
}

impl Tuple {
    /// Nobody to nobody.
    pub const NONE: Self =
        Self { src: Addr::UNSPECIFIED, dst: Addr::UNSPECIFIED, sport: WirePort::NONE, dport: WirePort::NONE, pad: 0 };

    /// The same seen from the other end.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, pad: 0 }
    }

    /// The identifier of an ICMP echo: one of its ends has it.
    #[inline(always)]
    #[must_use]
    pub const fn echo_id(&self) -> WirePort {
        WirePort::from_bits(self.sport.bits() | self.dport.bits())
    }
}
