//! What has been read of a packet.

use crate::Tuple;

/// What a packet says of itself, after [`crate::packet::stage::parse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, zerocopy::FromBytes)]
#[repr(C)]
pub struct Packet {
    /// Who to whom.
    pub tuple: Tuple,
    /// Offset of the L4 header.
    pub l4: u32,
    /// Where the packet ends by its IP header. Its frame may go on.
    pub end: u32,
    /// Identifier of the datagram that a fragment is part of.
    pub fragment_id: u32,
    /// Sequence number of a TCP segment, as on the wire; 0 of everything else.
    pub seq: u32,
    /// Acknowledgement number of a TCP segment, as on the wire; 0 of everything else.
    pub ack: u32,
    /// [`Fragment`] as a number, [`Class`] beside it.
    pub fragment: u8,
    /// [`Class`] as a number.
    pub class: u8,
    /// IP protocol number of the L4 header.
    pub proto: u8,
    /// Whether it is IPv6.
    pub v6: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Byte 13 of a TCP header.
    pub tcp: u8,
    /// ICMP type.
    pub icmp_type: u8,
    /// IPv4 "don't fragment"; true of every IPv6 packet.
    pub no_fragment: u8,
}

impl Packet {
    /// One of which nothing has been read.
    pub const UNREAD: Self = Self {
        tuple: Tuple::NONE,
        l4: 0,
        end: 0,
        fragment_id: 0,
        seq: 0,
        ack: 0,
        fragment: Fragment::NONE,
        class: Class::PLAIN,
        proto: 0,
        v6: 0,
        ttl: 0,
        tcp: 0,
        icmp_type: 0,
        no_fragment: 0,
    };
}

/// Whether a packet is part of a larger one.
pub struct Fragment;

impl Fragment {
    /// A whole packet.
    pub const NONE: u8 = 0;
    /// The first fragment: it has the ports.
    pub const FIRST: u8 = 1;
    /// A later one: its ports are remembered from the first, if that was seen.
    pub const LATER: u8 = 2;
}

/// How the L4 header takes part in a flow.
pub struct Class;

impl Class {
    /// TCP, UDP, SCTP, ICMP echo: two ports.
    pub const PORTS: u8 = 0;
    /// Another protocol, or another ICMP message: addresses only.
    pub const PLAIN: u8 = 1;
    /// An ICMP error, which belongs to the flow that it quotes.
    pub const ERROR: u8 = 2;
    /// Neighbour discovery and multicast listener discovery: never forwarded.
    pub const NEIGHBOUR: u8 = 3;
}

/// Bits of byte 13 of a TCP header.
pub struct TcpFlags;

impl TcpFlags {
    /// No more data.
    pub const FIN: u8 = 1;
    /// Open.
    pub const SYN: u8 = 2;
    /// Abort.
    pub const RST: u8 = 4;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 16;
}
