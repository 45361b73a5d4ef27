//! Numbers that are given, taken back, and rest before they are given again.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

/// How long a number rests after its use. A peer's connection to the pod that had the address ends, or its conntrack
/// entry is gone, before somebody else answers there.
pub(crate) const QUARANTINE: Duration = Duration::from_secs(5);

/// The numbers of a range. A number that was never used comes before one that was, and of these the one that has
/// rested longest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    range: Range<u128>,
    /// Every number from here on that is neither used nor resting was never used.
    next: u128,
    used: HashSet<u128>,
    resting: VecDeque<(u128, Duration)>,
}

impl Pool {
    pub(crate) fn new(range: Range<u128>) -> Self {
        Self { next: range.start, range, used: HashSet::new(), resting: VecDeque::new() }
    }

    /// How many numbers there are, in use or not.
    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.range.end.saturating_sub(self.range.start)).unwrap_or(u64::MAX)
    }

    /// The number to give now, of those that `accept` takes. `now` counts from any fixed moment.
    pub(crate) fn choose(&self, now: Duration, mut accept: impl FnMut(u128) -> bool) -> Option<u128> {
        let resting: HashSet<u128> = self.resting.iter().map(|(n, _)| *n).collect();
        let fresh = (self.next..self.range.end).find(|n| !self.used.contains(n) && !resting.contains(n) && accept(*n));
        fresh.or_else(|| {
            let rested = |since: Duration| now.saturating_sub(since) >= QUARANTINE;
            self.resting.iter().find(|(n, since)| rested(*since) && accept(*n)).map(|(n, _)| *n)
        })
    }

    /// Whether it is in use.
    pub(crate) fn is_used(&self, n: u128) -> bool {
        self.used.contains(&n)
    }

    /// Takes a number, resting or not. False when it is in use.
    pub(crate) fn claim(&mut self, n: u128) -> bool {
        if !self.used.insert(n) {
            return false;
        }
        self.resting.retain(|(resting, _)| *resting != n);
        while self.next < self.range.end && self.used.contains(&self.next) {
            self.next += 1;
        }
        true
    }

    /// Gives a number back, to rest. What was not in use stays as it is, and what is not of the range is forgotten.
    pub(crate) fn release(&mut self, n: u128, now: Duration) {
        if self.used.remove(&n) && self.range.contains(&n) {
            self.resting.push_back((n, now));
        }
    }

    /// Lets a number that was never used rest, as if it had just been given back.
    pub(crate) fn rest(&mut self, n: u128, now: Duration) {
        if self.claim(n) {
            self.release(n, now);
        }
    }

    /// The resting numbers, longest first.
    pub(crate) fn resting(&self) -> impl Iterator<Item = u128> {
        self.resting.iter().map(|(n, _)| *n)
    }

    /// Whether it was given back a moment ago.
    pub(crate) fn rests(&self, n: u128, now: Duration) -> bool {
        self.resting.iter().any(|(resting, since)| *resting == n && now.saturating_sub(*since) < QUARANTINE)
    }

    /// How many are in use.
    pub(crate) fn used(&self) -> usize {
        self.used.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn take(pool: &mut Pool, now: Duration) -> Option<u128> {
        let n = pool.choose(now, |_| true)?;
        assert!(pool.claim(n));
        Some(n)
    }

    #[test]
    fn freed_numbers_come_back_last_and_in_order() {
        let mut pool = Pool::new(2..6);
        assert_eq!((take(&mut pool, LONG), take(&mut pool, LONG)), (Some(2), Some(3)));
        pool.release(3, Duration::ZERO);
        pool.release(2, Duration::ZERO);
        let order: Vec<_> = (0..5).map(|_| take(&mut pool, LONG)).collect();
        assert_eq!(order, [Some(4), Some(5), Some(3), Some(2), None]);
    }

    #[test]
    fn c22_freed_numbers_rest() {
        let mut pool = Pool::new(0..1);
        assert_eq!(take(&mut pool, LONG), Some(0));
        pool.release(0, LONG);
        assert_eq!(take(&mut pool, LONG + QUARANTINE / 2), None);
        assert_eq!(take(&mut pool, LONG + QUARANTINE), Some(0));
    }

    #[test]
    fn a_number_can_be_asked_for() {
        let mut pool = Pool::new(0..4);
        assert!(pool.claim(2));
        assert!(!pool.claim(2));
        assert!(pool.claim(99), "beyond the range: kept apart");
        pool.release(99, Duration::ZERO);
        pool.release(2, Duration::ZERO);
        assert!(pool.claim(2), "even while it rests");
        let order: Vec<_> = (0..4).map(|_| take(&mut pool, LONG)).collect();
        assert_eq!(order, [Some(0), Some(1), Some(3), None]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take,
        Claim(u128),
        Release(usize),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Take),
            1 => (0..40u128).prop_map(Step::Claim),
            3 => any::<usize>().prop_map(Step::Release),
            1 => (0..10u64).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn never_the_same_number_twice_and_none_is_lost(steps in steps()) {
            let range = 3..35u128;
            let (mut pool, mut held, mut now) = (Pool::new(range.clone()), Vec::new(), Duration::ZERO);
            let mut freed_at = std::collections::HashMap::new();
            for step in steps {
                match step {
                    Step::Take => {
                        if let Some(n) = pool.choose(now, |_| true) {
                            prop_assert!(range.contains(&n) && !held.contains(&n));
                            if let Some(at) = freed_at.get(&n) {
                                prop_assert!(now - *at >= QUARANTINE);
                            }
                            prop_assert!(pool.claim(n));
                            held.push(n);
                        } else {
                            let free = range.clone().filter(|n| !held.contains(n));
                            let rested = |n| freed_at.get(&n).is_none_or(|at: &Duration| now - *at >= QUARANTINE);
                            prop_assert_eq!(free.filter(|n| rested(*n)).count(), 0);
                        }
                    }
                    Step::Claim(n) => {
                        let fine = pool.claim(n);
                        prop_assert_eq!(fine, !held.contains(&n));
                        if fine { held.push(n); }
                    }
                    Step::Release(i) if !held.is_empty() => {
                        let n = held.swap_remove(i % held.len());
                        pool.release(n, now);
                        freed_at.insert(n, now);
                    }
                    Step::Release(n) => pool.release(n as u128, now),
                    Step::Wait(s) => now += Duration::from_secs(s),
                }
            }
        }
    }
}
