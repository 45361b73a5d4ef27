//! What is read of a TCP segment where its connection begins or ends: the timestamp option (RFC 7323 section 3), and how much it
//! carries.

use super::headers::{ETH_LEN, TCP};
use crate::kernel::{Kernel, stages};
use crate::scratch::Walk;

/// Places that are looked at: the option stands at an even one, wherever Linux, the BSDs or Windows put it.
const PLACES: u32 = 16;

/// A timestamp, host order; 0 for none.
pub(crate) type Stamp = u32;

stages! {
    fn read_stamp() -> Stamp, as ReadStamp;
    fn payload_len() -> u32, as PayloadLen;
}

/// The timestamp of a TCP segment.
#[inline(always)]
fn read_stamp<K: Kernel>(k: &K, w: &mut Walk) -> Stamp {
    const MSS: u8 = 2;
    const TIMESTAMP: u8 = 8;
    let p = &w.packet;
    if p.proto != TCP {
        return 0;
    }
    let Some([offset, _]) = k.load::<[u8; 2]>(p.l4 + 12) else { return 0 };
    let end = p.l4 + u32::from(offset >> 4) * 4;
    let mut at = p.l4 + 20;
    // A SYN begins with its segment size, which is any number.
    if let Some([MSS, _]) = k.load::<[u8; 2]>(at) {
        at += 4;
    }
    for _ in 0..PLACES {
        if at + 10 > end {
            return 0;
        }
        let Some(words) = k.load::<[u16; 3]>(at) else { return 0 };
        if words[0] == u16::from_ne_bytes([TIMESTAMP, 10]) {
            return u32::from(u16::from_be(words[1])) << 16 | u32::from(u16::from_be(words[2]));
        }
        at += 2;
    }
    0
}

/// How long a TCP segment's payload is. A short frame is padded on its wire, so it is the IP header that says where the packet ends;
/// of an aggregate too long for that it says 0.
#[inline(always)]
fn payload_len<K: Kernel>(k: &K, w: &mut Walk) -> u32 {
    let p = &w.packet;
    let (at, counted_from) = if p.v6 == 1 { (ETH_LEN + 4, ETH_LEN + 40) } else { (ETH_LEN + 2, ETH_LEN) };
    let (Some([length]), Some([offset, _])) = (k.load::<[u16; 1]>(at), k.load::<[u8; 2]>(p.l4 + 12)) else { return 0 };
    let end = if length == 0 { k.packet_len() } else { counted_from + u32::from(u16::from_be(length)) };
    end.saturating_sub(p.l4 + u32::from(offset >> 4) * 4)
}
