//! How a planner gets on.

use std::time::{Duration, Instant};

/// The pause after a failed attempt, doubled up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Whether a planner has to plan everything again, and when it tries again after a failure. Planners fail apart: each has
/// its own.
#[derive(Debug)]
pub(super) struct Attempts {
    /// Everything has to be planned: at start, and after a plan that stopped halfway.
    whole: bool,
    /// Failures in a row.
    failures: u32,
    retry: Option<Instant>,
    /// What failed last, while it does.
    trouble: Option<String>,
}

impl Attempts {
    /// Nothing has been planned.
    pub(super) fn new() -> Self {
        Self { whole: true, failures: 0, retry: None, trouble: None }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether everything that was told is in force.
    pub(super) fn is_settled(&self) -> bool {
        !self.whole
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    pub(super) fn retry(&self) -> Option<Instant> {
        self.retry
    }

    /// Whether it is to plan now. What changes while it waits is planned with everything else then.
    pub(super) fn is_due(&self, changed: bool, now: Instant) -> bool {
        (changed || self.whole) && self.retry.is_none_or(|at| at <= now)
    }

    /// Everything has to be planned again.
    pub(super) fn again(&mut self) {
        self.whole = true;
    }

    /// The same at once, if nothing has failed.
    pub(super) fn again_at_once(&mut self, now: Instant) {
        self.whole = true;
        self.retry.get_or_insert(now);
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self { whole: false, ..Self::new() };
    }

    /// Returns the pause until the next attempt.
    pub(super) fn failed(&mut self, trouble: String, now: Instant) -> Duration {
        let (pause, longest) = BACKOFF;
        self.failures = self.failures.saturating_add(1);
        let pause = pause.saturating_mul(1 << self.failures.min(10)).min(longest);
        (self.whole, self.retry, self.trouble) = (true, Some(now + pause), Some(trouble));
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_tried_again_later_and_later_with_everything() {
        let (mut attempts, start) = (Attempts::new(), Instant::now());
        assert!(attempts.is_due(false, start));
        attempts.succeeded();
        assert!(!attempts.is_due(false, start) && attempts.is_due(true, start) && attempts.is_settled());
        let pauses: Vec<_> = (0..12).map(|_| attempts.failed("no".to_owned(), start)).collect();
        assert!(pauses.is_sorted() && pauses[0] < pauses[1] && pauses[11] == BACKOFF.1, "{pauses:?}");
        assert!(!attempts.is_due(true, start) && attempts.is_due(false, start + BACKOFF.1));
        assert_eq!((attempts.failures(), attempts.trouble(), attempts.is_settled()), (12, Some("no"), false));
        let retry = attempts.retry();
        attempts.again_at_once(start);
        assert_eq!(attempts.retry(), retry, "what failed waits for its turn");
        attempts.succeeded();
        assert_eq!((attempts.failures(), attempts.trouble(), attempts.retry()), (0, None, None));
        attempts.again_at_once(start);
        assert!(attempts.is_due(false, start) && attempts.retry() == Some(start), "it wakes the loop");
    }
}
