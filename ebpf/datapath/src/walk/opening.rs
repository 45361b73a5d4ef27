//! What may open a flow.

use crate::packet::{Class, Packet, TCP, TcpFlags};

/// Whether a packet may begin a flow by itself. A TCP packet that is not the first of its connection is let in only
/// where nothing has to be translated and policy allows either direction: the connection is older than this table.
#[inline(always)]
pub(super) fn begins(p: &Packet) -> bool {
    p.proto != TCP || p.class != Class::PORTS || p.tcp & (TcpFlags::SYN | TcpFlags::ACK) == TcpFlags::SYN
}
