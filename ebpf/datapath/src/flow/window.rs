//! Which FIN or RST ends a connection (RFC 5961 section 3.2).
//!
//! Whoever knows the ports of a connection can send an RST in the name of one of its ends. Its receiver knows which number
//! comes next, and takes no other; here, what the receiver has acknowledged says the same, coarsely. It is noted when the first
//! packet of a second passes, and whenever it has moved by [`STEP`], so a packet costs a comparison and seldom a write. What
//! acknowledges has to lie where its own receiver is, so that nobody moves these numbers who does not know them.
//!
//! A SYN on a connection that lives is passed on; an end that has forgotten the connection refuses it with an RST that
//! acknowledges it and has no number of the connection, or accepts it. So it is noted which one was passed on.
//!
//! What does not lie there is passed on, and changes nothing: its receiver drops it, or challenges it. Data that still comes
//! after an RST proves that it was none, but silence proves nothing: a connection may be idle for hours. So while nothing is
//! on its way the RST has to be where the connection stands.

use super::change::put;
use super::life::idle_for;
use crate::kernel::Kernel;
use crate::packet::TcpFlags;
use crate::scratch::{Packet, Walk};
use crate::tables::flow::Entry;

/// Numbers are noted in units of 128 KiB: bits 17 to 31, and a bit that says that one has been noted.
const SHIFT: u32 = 17;

/// A number moves by so many units before it is noted again in one second: 1 MiB.
const STEP: u32 = 8;

/// Units that may be on their way: 32 MiB, the receive buffer that Linux grows up to (`tcp_rmem`, since 6.16).
const WINDOW: u32 = 256;

/// Units by which what is sent again may lie behind.
const BEHIND: u32 = 4;

/// Seconds of silence after which nothing is on its way.
pub(super) const SILENCE: u32 = 3;

/// A number (host order) as it is noted, 16 bits.
#[inline(always)]
const fn noted(number: u32) -> u32 {
    (number >> SHIFT) << 1 | 1
}

/// What one end has acknowledged, of the word that has both.
#[inline(always)]
const fn of(word: u32, opener: bool) -> u32 {
    word >> shift(opener) & 0xffff
}

/// Where in the word that is. A shift is no branch, of which the verifier would follow both sides.
#[inline(always)]
const fn shift(opener: bool) -> u32 {
    (opener as u32) << 4
}

/// Whether a number (host order) lies from `BEHIND` units before a noted one to `ahead` after it. Of what has not been noted
/// anything may be.
#[inline(always)]
const fn lies(at: u32, number: u32, ahead: u32) -> bool {
    at == 0 || (noted(number).wrapping_sub(at).wrapping_add(2 * BEHIND) & 0xffff) <= 2 * (BEHIND + ahead)
}

/// Zero while an acknowledgement (as on the wire) is near what its sender was noted to have acknowledged. `opener`: that is the
/// sender.
#[inline(always)]
pub(super) const fn moved(acked: u32, ack: u32, opener: bool) -> u32 {
    let by = noted(u32::from_be(ack)).wrapping_sub(of(acked, opener));
    (by.wrapping_add(2 * STEP) & 0xffff) / (4 * STEP)
}

/// Notes what a segment acknowledges in the entry that it met.
#[inline(always)]
pub(super) fn note<K: Kernel>(k: &K, entry: &Entry, owner: u32, packet: &Packet, opener: bool) {
    // A later fragment has no header.
    if packet.tcp & TcpFlags::ACK == 0 {
        return;
    }
    let now = noted(u32::from_be(packet.ack));
    let before = entry.acked.load() as u32;
    let after = before & !(0xffff << shift(opener)) | now << shift(opener);
    if after != before {
        put(k, &entry.acked, owner, after);
    }
}

/// Whether a segment of the flow in `w.met`, whose other entry `w.pair` is a copy of if it is `paired`, lies where its
/// receiver is. An end's packets meet the entry of its own side, so that one says what the end has acknowledged.
#[inline(always)]
pub(super) fn counts(w: &Walk, forward: bool, paired: bool) -> bool {
    let (own, other) = (of(w.met.acked.value, !forward), of(w.pair.acked.value, !forward));
    let at = if paired && other != 0 { other } else { own };
    lies(at, u32::from_be(w.packet.seq), if is_silent(w) { STEP + 1 } else { STEP + WINDOW })
}

/// Whether nothing of the flow in `w.met` is on its way.
#[inline(always)]
pub(super) fn is_silent(w: &Walk) -> bool {
    idle_for(&w.met, w.now) >= SILENCE
}

/// Whether a segment refuses the SYN that was passed on last, and with it the data that it carried (TCP Fast Open, RFC 7413): it has
/// no number, since its sender has no connection (RFC 9293 section 3.10.7.1).
#[inline(always)]
pub(super) const fn refuses(aside: u32, packet: &Packet) -> bool {
    const REFUSES: u8 = TcpFlags::RST | TcpFlags::ACK;
    aside != 0 && packet.tcp & REFUSES == REFUSES && packet.seq == 0 && u32::from_be(packet.ack) == aside
}

/// The most data that a SYN carries: a full segment.
const FAST_OPEN: u32 = 1460;

/// Whether a segment accepts the SYN, with the data that it carried or without: a server that does not do TCP Fast Open, or has no
/// room for it, acknowledges the SYN alone (RFC 7413 section 4.2).
#[inline(always)]
pub(super) const fn accepts(aside: u32, packet: &Packet) -> bool {
    const ACCEPTS: u8 = TcpFlags::SYN | TcpFlags::ACK;
    let is_answer = packet.tcp & (ACCEPTS | TcpFlags::RST) == ACCEPTS;
    aside != 0 && is_answer && aside.wrapping_sub(u32::from_be(packet.ack)) <= FAST_OPEN
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNIT: u32 = 1 << SHIFT;

    #[test]
    fn what_has_not_been_noted_is_anything() {
        assert!(lies(0, 12_345, 0) && lies(0, u32::MAX, 0));
        assert_ne!(noted(0), 0);
    }

    #[test]
    fn numbers_wrap() {
        let at = noted(u32::MAX);
        assert!(lies(at, 5, 1) && lies(at, u32::MAX - 5, 1) && !lies(at, 5 * UNIT, 1));
        assert!(moved(at, 5_u32.to_be(), false) == 0 && moved(at, (STEP * UNIT).to_be(), false) != 0);
    }

    proptest! {
        #[test]
        fn an_end_is_where_its_receiver_is(at: u32, sent in 0..WINDOW, late in 0..STEP, wrong: u32) {
            // What was noted may be late, and more may be on its way.
            let seq = at.wrapping_add((sent + late) * UNIT);
            prop_assert!(lies(noted(at), seq, STEP + WINDOW));
            // Nothing is on its way.
            prop_assert!(lies(noted(at), at.wrapping_add(late * UNIT), STEP + 1));
            let far = (BEHIND + 1) * UNIT..=u32::MAX - (STEP + 3) * UNIT;
            if far.contains(&at.wrapping_sub(wrong)) {
                prop_assert!(!lies(noted(at), wrong, STEP + 1), "{} of {}", wrong, at);
            }
        }

        #[test]
        fn what_moves_is_noted_before_it_is_far(at: u32, by in any::<i32>(), opener: bool, other in 0_u32..0x1_0000) {
            let word = if opener { noted(at) << 16 | other } else { other << 16 | noted(at) };
            let ack = at.wrapping_add_signed(by).to_be();
            let near = (by.unsigned_abs() >> SHIFT) < STEP - 1;
            let far = (by.unsigned_abs() >> SHIFT) > STEP;
            prop_assert!(!near || moved(word, ack, opener) == 0);
            prop_assert!(!far || moved(word, ack, opener) != 0);
        }
    }
}
