//! Header layouts, and the few numbers of theirs that matter here.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::csum;
use crate::{WirePort, WireV4};

/// Length of an Ethernet header.
pub const ETH_LEN: u32 = 14;
/// EtherType of IPv4, as on the wire.
pub const ETH_P_IP: u16 = 0x0800_u16.to_be();
/// EtherType of IPv6, as on the wire.
pub const ETH_P_IPV6: u16 = 0x86dd_u16.to_be();
/// EtherType of ARP, as on the wire.
pub const ETH_P_ARP: u16 = 0x0806_u16.to_be();

/// IP protocol numbers (IANA).
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;
/// SCTP.
pub const SCTP: u8 = 132;

/// IPv4 header without options (RFC 791).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Ipv4 {
    pub(crate) version_ihl: u8,
    pub(crate) tos: u8,
    pub(crate) total_len: u16,
    pub(crate) id: u16,
    pub(crate) fragment: u16,
    pub(crate) ttl: u8,
    pub(crate) proto: u8,
    pub(crate) csum: u16,
    pub(crate) src: WireV4,
    pub(crate) dst: WireV4,
}

impl Ipv4 {
    /// The header of a packet that is made here.
    #[inline(always)]
    pub(crate) fn made(total_len: u16, proto: u8, src: WireV4, dst: WireV4) -> Self {
        let mut ip = Self {
            version_ihl: 0x45,
            tos: 0,
            total_len: total_len.to_be(),
            id: 0,
            fragment: 0,
            ttl: 64,
            proto,
            csum: 0,
            src,
            dst,
        };
        let [a, b, c, d, e]: [u32; 5] = zerocopy::transmute!(ip);
        ip.csum = !csum::fold16([a, b, c, d, e].map(u64::from).iter().sum());
        ip
    }
}

/// The first half of an IPv6 header (RFC 8200); the addresses follow.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Ipv6 {
    pub(crate) version_class_label: u32,
    pub(crate) payload_len: u16,
    pub(crate) next: u8,
    pub(crate) hop_limit: u8,
    pub(crate) src: crate::Addr,
    pub(crate) dst: crate::Addr,
}

impl Ipv6 {
    /// The header of a packet that is made here.
    #[inline(always)]
    pub(crate) const fn made(payload_len: u16, next: u8, src: crate::Addr, dst: crate::Addr) -> Self {
        Self {
            version_class_label: 0x6000_0000_u32.to_be(),
            payload_len: payload_len.to_be(),
            next,
            hop_limit: 64,
            src,
            dst,
        }
    }
}

/// The first four bytes that TCP, UDP and SCTP share.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Ports {
    pub(crate) src: WirePort,
    pub(crate) dst: WirePort,
}

/// The first eight bytes of ICMP and ICMPv6.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Icmp {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) csum: u16,
    /// Identifier of an echo; unused or MTU of an error.
    pub(crate) id: WirePort,
    pub(crate) seq: u16,
}

/// Ethernet addresses.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Macs {
    pub(crate) dst: [u8; 6],
    pub(crate) src: [u8; 6],
}
