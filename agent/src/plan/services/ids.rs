//! Small numbers, given out smallest first.

use std::collections::BTreeSet;

/// Hands out ids from 1 to a limit. The state depends on the ids in use alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ids {
    /// Free ids below `next`.
    free: BTreeSet<u32>,
    next: u32,
    /// One more than the largest id.
    end: u32,
}

impl Ids {
    /// All ids from 1 to `end - 1`, free.
    pub(super) fn new(end: u32) -> Self {
        Self { free: BTreeSet::new(), next: 1, end }
    }

    /// The same with some of them in use; those out of range are passed over.
    pub(super) fn with(end: u32, used: &BTreeSet<u32>) -> Self {
        let next = used.range(1..end).next_back().map_or(1, |last| last + 1);
        Self { free: (1..next).filter(|id| !used.contains(id)).collect(), next, end }
    }

    /// Ids in use.
    pub(super) fn used(&self) -> u32 {
        self.next - 1 - self.free.len() as u32
    }

    /// An id, or `None` if all are in use.
    pub(super) fn take(&mut self) -> Option<u32> {
        if let Some(id) = self.free.pop_first() {
            return Some(id);
        }
        (self.next < self.end).then(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// Gives back what was taken.
    pub(super) fn give(&mut self, id: u32) {
        self.free.insert(id);
        while self.free.remove(&(self.next - 1)) {
            self.next -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BTreeSet, Ids};

    #[test]
    fn the_smallest_free_id_is_given_out() {
        let mut ids = Ids::new(4);
        assert_eq!([ids.take(), ids.take(), ids.take(), ids.take()], [Some(1), Some(2), Some(3), None]);
        ids.give(2);
        assert_eq!(ids, Ids::with(4, &BTreeSet::from([1, 3, 9])));
        assert_eq!((ids.used(), ids.take()), (2, Some(2)));
        for id in [1, 3, 2] {
            ids.give(id);
        }
        assert_eq!(ids, Ids::new(4));
    }
}
