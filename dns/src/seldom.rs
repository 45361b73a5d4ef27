//! Lines of the log that something outside can cause: one in a while, with how many were left out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one of many through.
#[derive(Debug)]
pub struct Seldom {
    period: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// One in each period.
    #[must_use]
    pub const fn new(period: Duration) -> Self {
        Self { period, state: Mutex::new(State { last: None, left_out: 0 }) }
    }

    /// How many were left out since the last one that was let through, if this one is.
    pub fn allow(&self) -> Option<u64> {
        self.allow_at(Instant::now())
    }

    fn allow_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < self.period) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_period_says_how_many_were_left_out() {
        let seldom = Seldom::new(Duration::from_secs(10));
        let start = Instant::now();
        let said: Vec<_> = (0..25).map(|second| seldom.allow_at(start + Duration::from_secs(second))).collect();
        let let_through: Vec<_> =
            said.iter().enumerate().filter_map(|(at, left_out)| Some((at, (*left_out)?))).collect();
        assert_eq!(let_through, [(0, 0), (10, 9), (20, 9)]);
    }
}
