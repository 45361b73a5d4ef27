//! The serial of a zone: the time of its last change, as in CoreDNS.
//!
//! Whoever has a copy of the zone learns of changes by it, so it never goes back (RFC 1982), also not when the server starts
//! again, and servers that see a change at the same time say the same. It is never ahead of the clock by more than the
//! clock was set back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Seconds since 1970, of which the lowest 32 bits count.
pub(super) fn now() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (since.as_secs() & u64::from(u32::MAX)) as u32
}

/// Whether a serial is newer than another (RFC 1982 section 3.2).
#[must_use]
pub fn is_newer(one: u32, other: u32) -> bool {
    let ahead = one.wrapping_sub(other);
    ahead != 0 && ahead < 1 << 31
}

/// When a zone changed last: the serial, and whether it changed once more in the same second. Whoever has that serial may
/// have what was there before, so the next second has another.
#[derive(Debug, Default)]
pub(super) struct Serial(AtomicU64);

/// It has changed at all.
const KNOWN: u64 = 1 << 33;
/// It has changed again in the same second.
const AGAIN: u64 = 1 << 32;

impl Serial {
    /// The serial; `now` is looked at only where it matters.
    pub(super) fn at(&self, now: impl FnOnce() -> u32) -> u32 {
        let state = self.0.load(Ordering::Relaxed);
        let last = serial(state);
        if state & AGAIN == 0 || !is_newer(now(), last) {
            return last;
        }
        let next = last.wrapping_add(1);
        // It stays, whatever becomes of the clock. Whoever was faster has written the same.
        let _same = self.0.compare_exchange(state, KNOWN | u64::from(next), Ordering::Relaxed, Ordering::Relaxed);
        next
    }

    /// The zone changes.
    pub(super) fn change(&mut self, now: u32) {
        let last = self.at(|| now);
        let state = *self.0.get_mut();
        *self.0.get_mut() = if state == 0 || is_newer(now, last) {
            KNOWN | u64::from(now)
        } else if now == last {
            KNOWN | AGAIN | u64::from(last)
        } else {
            // The clock was set back.
            KNOWN | u64::from(last.wrapping_add(1))
        };
    }
}

fn serial(state: u64) -> u32 {
    (state & u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn serials_are_compared_as_rfc_1982_has_it() {
        assert!(is_newer(1, 0) && is_newer(0, u32::MAX) && is_newer(44, u32::MAX - 44));
        assert!(!is_newer(0, 0) && !is_newer(0, 1) && !is_newer(u32::MAX, 0) && !is_newer(1 << 31, 0));
    }

    #[test]
    fn the_serial_is_the_time_of_the_last_change_also_of_two_in_a_second() {
        let mut serial = Serial::default();
        serial.change(100);
        assert_eq!([100, 101, 500].map(|now| serial.at(|| now)), [100, 100, 100]);
        serial.change(100);
        assert_eq!([100, 101, 500].map(|now| serial.at(|| now)), [100, 101, 101]);
        serial.change(500);
        assert_eq!([500, 501].map(|now| serial.at(|| now)), [500, 500]);
        // Set back by a long time.
        serial.change(7);
        assert_eq!(serial.at(|| 7), 501);
    }

    proptest! {
        /// A copy that is taken whenever the serial is newer ends as the zone is, whatever the clock does.
        #[test]
        fn whoever_follows_the_serial_misses_no_change(
            start in prop_oneof![Just(1_800_000_000_u32), Just(u32::MAX - 3)],
            steps in vec((prop_oneof![5 => 0_i32..3, 1 => -5_i32..0], any::<bool>()), 1..60),
        ) {
            let (mut serial, mut now, mut content) = (Serial::default(), start, 0_u32);
            let mut latest = now;
            serial.change(now);
            let mut copy = (serial.at(|| now), content);
            let mut last = copy.0;
            for (passes, changes) in steps {
                now = now.wrapping_add_signed(passes);
                if is_newer(now, latest) {
                    latest = now;
                }
                if changes {
                    serial.change(now);
                    content += 1;
                }
                let said = serial.at(|| now);
                prop_assert!(!is_newer(last, said), "it went back from {} to {}", last, said);
                last = said;
                if is_newer(said, copy.0) {
                    copy = (said, content);
                }
            }
            // When the clock is past every change, however often it was set back.
            let said = serial.at(|| latest.wrapping_add(100));
            if is_newer(said, copy.0) {
                copy = (said, content);
            }
            prop_assert_eq!(copy.1, content);
        }

        /// Two servers that see every change within the same second say the same a second later, and one that has started
        /// anew says nothing older than before.
        #[test]
        fn servers_that_see_the_same_say_the_same(steps in vec(0_u32..3, 1..60), later in 1_u32..100) {
            let (mut one, mut other, mut now) = (Serial::default(), Serial::default(), 1_800_000_000);
            one.change(now - 50);
            other.change(now - 7);
            for passes in steps {
                now += passes;
                one.change(now);
                other.change(now);
            }
            prop_assert_eq!(one.at(|| now + 1), other.at(|| now + 1));
            let mut anew = Serial::default();
            anew.change(now + later);
            prop_assert!(!is_newer(one.at(|| now + later), anew.at(|| now + later)));
        }
    }
}
