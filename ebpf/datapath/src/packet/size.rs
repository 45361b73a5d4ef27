//! How long packets are.

use super::{Packet, TCP};
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
