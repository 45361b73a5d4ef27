//! Blocks of slots: a buddy allocator.

use std::collections::BTreeSet;

/// Hands out blocks of consecutive elements, each a power of two long and aligned to its length.
///
/// What is free is always merged as far as it goes, so the state depends on the blocks in use alone, and a restarted
/// agent that finds those in the tables has the state that was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocks {
    /// Offsets of free blocks, by the logarithm of their length.
    free: Vec<BTreeSet<u32>>,
    used: u32,
}

impl Blocks {
    /// All of `size` elements free; a size that is no power of two is rounded down to one.
    pub(super) fn new(size: u32) -> Self {
        let top = size.checked_ilog2().unwrap_or(0);
        let mut free = vec![BTreeSet::new(); top as usize + 1];
        free[top as usize].insert(0);
        Self { free, used: 0 }
    }

    /// Elements in use, with what rounding costs.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// The offset of a block for `count` elements, or `None` if no such block is free.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        let order = order(count);
        let found = (order..self.free.len()).find(|o| !self.free[*o].is_empty())?;
        let offset = self.free[found].pop_first()?;
        self.split(offset, found, offset, order);
        Some(offset)
    }

    /// Takes the block at `offset` for `count` elements. False if that is no block, or not free.
    pub(super) fn take_at(&mut self, offset: u32, count: u32) -> bool {
        let order = order(count);
        if order >= self.free.len() || !offset.is_multiple_of(1 << order) {
            return false;
        }
        for found in order..self.free.len() {
            let start = offset & !((1 << found) - 1);
            if self.free[found].remove(&start) {
                self.split(start, found, offset, order);
                return true;
            }
        }
        false
    }

    /// Gives back what was taken.
    pub(super) fn give(&mut self, mut offset: u32, count: u32) {
        let mut order = order(count);
        self.used -= 1 << order;
        while order + 1 < self.free.len() {
            let buddy = offset ^ (1 << order);
            if !self.free[order].remove(&buddy) {
                break;
            }
            offset &= !(1 << order);
            order += 1;
        }
        self.free[order].insert(offset);
    }

    /// Cuts the free block of order `from` at `start` down to that of order `to` at `offset`, which is then in use.
    fn split(&mut self, start: u32, from: usize, offset: u32, to: usize) {
        let mut start = start;
        for order in (to..from).rev() {
            let upper = start + (1 << order);
            if offset < upper {
                self.free[order].insert(upper);
            } else {
                self.free[order].insert(start);
                start = upper;
            }
        }
        self.used += 1 << to;
    }
}

/// The order of the block for `count` elements.
fn order(count: u32) -> usize {
    count.max(1).next_power_of_two().ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::Blocks;
    use proptest::prelude::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut blocks = Blocks::new(8);
        assert_eq!(blocks.take(9), None);
        assert_eq!(blocks.take(5), Some(0));
        assert_eq!(blocks.take(1), None);
        blocks.give(0, 5);
        assert_eq!(blocks, Blocks::new(8));
    }

    proptest! {
        #[test]
        fn blocks_never_overlap_and_the_state_is_that_of_the_blocks(
            steps in proptest::collection::vec((any::<bool>(), 1u32..20, any::<prop::sample::Index>()), 1..60),
        ) {
            let mut blocks = Blocks::new(128);
            let mut taken: Vec<(u32, u32)> = vec![];
            for (give, count, which) in steps {
                if give && !taken.is_empty() {
                    let (offset, count) = taken.swap_remove(which.index(taken.len()));
                    blocks.give(offset, count);
                } else if let Some(offset) = blocks.take(count) {
                    prop_assert!(offset + count <= 128);
                    prop_assert!(taken.iter().all(|(o, c)| offset + count <= *o || o + c <= offset));
                    taken.push((offset, count));
                }
                let mut again = Blocks::new(128);
                for (offset, count) in &taken {
                    prop_assert!(again.take_at(*offset, *count));
                    prop_assert!(!again.take_at(*offset, *count));
                }
                prop_assert_eq!(&again, &blocks);
            }
        }
    }
}
