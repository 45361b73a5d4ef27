//! How long packets are.

use super::{ETH_LEN, Packet, TCP};
use crate::kernel::Kernel;

/// Length of a packet's headers, with that of Ethernet. Nothing if the packet ends before.
#[inline(always)]
pub(crate) fn headers_len<K: Kernel>(k: &K, p: &Packet) -> Option<u32> {
    let l4 = if p.proto == TCP {
        let [offset, _] = k.load::<[u8; 2]>(p.l4 + 12)?;
        u32::from(offset >> 4) * 4
    } else {
        8
    };
    Some(p.l4 + l4)
}

/// How long a TCP segment's payload is. A short frame is padded on its wire, so it is the IP header that says where the packet ends;
/// of an aggregate too long for that it says 0.
#[inline(always)]
pub(super) fn carried<K: Kernel>(k: &K, p: &Packet) -> u32 {
    let (at, counted_from) = if p.v6 == 1 { (ETH_LEN + 4, ETH_LEN + 40) } else { (ETH_LEN + 2, ETH_LEN) };
    let (Some([length]), Some([offset, _])) = (k.load::<[u16; 1]>(at), k.load::<[u8; 2]>(p.l4 + 12)) else { return 0 };
    let end = if length == 0 { k.packet_len() } else { counted_from + u32::from(u16::from_be(length)) };
    end.saturating_sub(p.l4 + u32::from(offset >> 4) * 4)
}
