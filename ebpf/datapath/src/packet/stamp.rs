//! What is read of a TCP segment where its connection begins or ends: the timestamp option (RFC 7323 section 3), and how much it
//! carries.

use super::headers::TCP;
use super::size::carried;
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

/// How long a TCP segment's payload is.
#[inline(always)]
fn payload_len<K: Kernel>(k: &K, w: &mut Walk) -> u32 {
    carried(k, &w.packet)
}
