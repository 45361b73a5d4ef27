//! When exchanges begin: at a steady pace, whatever became of those before.

use std::time::{Duration, Instant};

/// How far a generator may fall behind its pace before it gives up what it has missed: what it made up for would be a burst
/// that nobody asked for.
const SLACK: Duration = Duration::from_millis(100);

/// A pace, and how far it was kept.
#[derive(Debug)]
pub(super) struct Pace {
    begin: Instant,
    until: Instant,
    /// A second has so many; 0: there is no pace.
    rate: u32,
    /// How many have begun since `begin`, which moves when some are given up.
    begun: u64,
    behind: Duration,
}

impl Pace {
    pub(super) fn new(begin: Instant, rate: u32, during: Duration) -> Self {
        Self { begin, until: begin + during, rate, begun: 0, behind: Duration::ZERO }
    }

    /// How many have to begin now. They count as begun.
    pub(super) fn due(&mut self, now: Instant, room: usize) -> usize {
        if now >= self.until {
            return 0;
        }
        if self.rate == 0 {
            return room;
        }
        let elapsed = now.saturating_duration_since(self.begin);
        let late = elapsed.saturating_sub(self.time_of(self.begun));
        if late > SLACK {
            let missed = late - SLACK;
            self.begin += missed;
            self.behind += missed;
        }
        let elapsed = now.saturating_duration_since(self.begin);
        // The first is due at once.
        let wanted = (elapsed.as_secs_f64() * f64::from(self.rate)) as u64 + 1;
        let due = usize::try_from(wanted.saturating_sub(self.begun)).unwrap_or(usize::MAX).min(room);
        self.begun += due as u64;
        due
    }

    /// Whether nothing is due for a while.
    pub(super) fn waits(&self, now: Instant) -> bool {
        let next = self.begin + self.time_of(self.begun);
        self.rate != 0 && next.saturating_duration_since(now) >= Duration::from_micros(1_500)
    }

    /// Whether no more begin.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// How much of the time was given up.
    pub(super) fn behind(&self) -> Duration {
        self.behind
    }

    fn time_of(&self, number: u64) -> Duration {
        Duration::from_secs_f64(number as f64 / f64::from(self.rate.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begin: Instant, millis: u64) -> Instant {
        begin + Duration::from_millis(millis)
    }

    #[test]
    fn a_pace_that_is_kept_begins_as_many_as_it_says() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin, 1000, Duration::from_secs(2));
        let total: usize = (0..2000).map(|millis| pace.due(at(begin, millis), usize::MAX)).sum();
        assert!((1999..=2001).contains(&total), "{total}");
        assert_eq!(pace.behind(), Duration::ZERO);
        assert_eq!(pace.due(at(begin, 2000), usize::MAX), 0);
        assert!(pace.is_over(at(begin, 2000)));
    }

    #[test]
    fn what_was_missed_is_made_up_for_within_the_slack_only() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin, 1000, Duration::from_secs(2));
        assert_eq!(pace.due(begin, usize::MAX), 1);
        let due = pace.due(at(begin, 1001), usize::MAX);
        assert!((99..=102).contains(&due), "{due}");
        assert!(pace.behind() >= Duration::from_millis(890), "{:?}", pace.behind());
        assert!(pace.due(at(begin, 1002), usize::MAX) <= 2);
    }

    #[test]
    fn without_a_pace_the_room_decides() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin, 0, Duration::from_secs(1));
        assert_eq!(pace.due(begin, 7), 7);
        assert_eq!(pace.due(at(begin, 999), 3), 3);
        assert_eq!(pace.due(at(begin, 1000), 3), 0);
    }
}
