//! The largest segment that an end of a TCP connection takes, as its SYN says (RFC 9293 section 3.7.1). Where the way takes less,
//! the SYN is made to say that: the other end then never sends what is too large, whether or not it is told by ICMP errors, which
//! many firewalls drop.

use super::csum;
use super::headers::TCP;
use crate::kernel::{Kernel, stages};
use crate::scratch::{Fragment, Packet, TcpFlags, Walk};

/// Options that are looked at. The segment size stands first, wherever Linux, the BSDs or Windows send it.
const OPTIONS: usize = 6;
/// No way is so narrow that less would be of use: `TCP_MIN_MSS` in include/net/tcp.h.
const LEAST: u32 = 88;

/// The largest packet that fits, without an Ethernet header.
type Mtu = u32;

stages! {
    fn clamp_mss(mtu: Mtu) -> bool, as ClampMss;
}

/// Whether a packet says what segments its sender takes.
#[inline(always)]
pub fn says_mss(p: &Packet) -> bool {
    p.proto == TCP && p.tcp & (TcpFlags::SYN | TcpFlags::RST) == TcpFlags::SYN && p.fragment != Fragment::LATER
}

/// Lowers the segment size of a SYN to what fits in packets of this size. False if it can't be written.
#[inline(always)]
fn clamp_mss<K: Kernel>(k: &K, w: &mut Walk, mtu: Mtu) -> bool {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const MSS: u8 = 2;
    let p = &w.packet;
    let most = mtu.saturating_sub(if p.v6 == 1 { 60 } else { 40 }).clamp(LEAST, 0xffff) as u16;
    let Some([offset, _]) = k.load::<[u8; 2]>(p.l4 + 12) else { return true };
    let end = p.l4 + u32::from(offset >> 4) * 4;
    let mut at = p.l4 + 20;
    for _ in 0..OPTIONS {
        if at + 4 > end {
            return true;
        }
        let Some([kind, length]) = k.load::<[u8; 2]>(at) else { return true };
        match (kind, length) {
            (NOTHING, _) => at += 1,
            (MSS, 4) => {
                let Some([old]) = k.load::<[u16; 1]>(at + 2) else { return true };
                if u16::from_be(old) <= most {
                    return true;
                }
                let new = most.to_be();
                // A word of the checksum's begins at every even place of the header.
                let is_even = (at - p.l4).is_multiple_of(2);
                let diff = if is_even {
                    csum::word_diff(old, new)
                } else {
                    csum::word_diff(old.swap_bytes(), new.swap_bytes())
                };
                return k.adjust_l4_csum(p.l4 + 16, diff, false, false) && k.store(at + 2, &new);
            }
            (END, _) | (_, 0 | 1) => return true,
            (_, length) => at += u32::from(length),
        }
    }
    true
}
