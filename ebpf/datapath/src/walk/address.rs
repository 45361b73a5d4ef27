//! Addresses: which may be a destination, and what is known of one.

use crate::Addr;
use crate::drop::DropReason;
use crate::kernel::{Kernel, stages};
use crate::peer;
use crate::register::variants;
use crate::scratch::Walk;
use crate::service::NodeAddress;

stages! {
    fn look_up(whose: Whose) -> (), as LookUp;
}

/// The address that is to be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Whose {
    /// The packet's source.
    Source,
    /// The packet's destination.
    Destination,
    /// The opener in `w.ends`.
    Opener,
    /// The responder in `w.ends`.
    Responder,
}

variants!(Whose: Source, Destination, Opener; else Responder);

/// Notes in `w.found` what is known of an address.
#[inline(always)]
fn look_up<K: Kernel>(k: &K, w: &mut Walk, whose: Whose) {
    let addr = match whose {
        Whose::Source => w.packet.tuple.src,
        Whose::Destination => w.packet.tuple.dst,
        Whose::Opener => w.ends.opener,
        Whose::Responder => w.ends.responder,
    };
    w.found = peer::lookup(k, addr);
}

/// The address that pods have as their gateway, which nobody has: its MAC is all that is asked of it (`cni-plugin`, `wire.rs`).
const GATEWAY: [u8; 4] = [169, 254, 1, 1];

/// Whether an address is that gateway. On the network of another plugin it may be the node's own.
#[inline(always)]
pub(super) fn is_gateway(dst: Addr, v6: bool) -> bool {
    !v6 && dst.v4().octets() == GATEWAY
}

/// Whether a packet is to all hosts of a network that the node is on: no router passes that on (RFC 2644).
#[inline(always)]
pub(super) fn is_broadcast<K: Kernel>(k: &K, addr: Addr, v6: bool) -> bool {
    !v6 && k.node_address(&addr) & NodeAddress::BROADCAST != 0
}

/// Multicast, broadcast, loopback and unspecified addresses end at the first router (RFC 1812 section 5.3, RFC 4291 section
/// 2.5), and so do IPv6 link-local ones.
///
/// IPv4 link-local ones go on, whatever RFC 3927 says (section 7): nodes and their networks serve there, as for names, for
/// metadata and for the probes of meshes, and the route to a pod is the node's own.
#[inline(always)]
pub(super) fn check_destination(dst: Addr, v6: bool) -> Result<(), DropReason> {
    if v6 {
        let [first, second, ..] = dst.hi.to_ne_bytes();
        match (first, second & 0xc0) {
            (0xff, _) => Err(DropReason::Multicast),
            (0xfe, 0x80) => Err(DropReason::BadAddress),
            _ if dst.hi == 0 && dst.lo.swap_bytes() <= 1 => Err(DropReason::BadAddress),
            _ => Ok(()),
        }
    } else {
        match dst.v4().octets() {
            [224..=239 | 255, ..] => Err(DropReason::Multicast),
            [0 | 127, ..] | GATEWAY => Err(DropReason::BadAddress),
            _ => Ok(()),
        }
    }
}
