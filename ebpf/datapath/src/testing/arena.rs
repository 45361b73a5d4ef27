//! Memory that gives out references which stay valid, as those into the kernel's maps do.

use core::cell::{Cell, OnceCell};
use std::boxed::Box;

/// Elements of the first chunk; each further one has twice as many.
const FIRST: usize = 64;
const CHUNKS: usize = 24;

/// A vector that only grows, by shared reference.
#[derive(Debug)]
pub(super) struct Arena<T> {
    chunks: [OnceCell<Box<[OnceCell<T>]>>; CHUNKS],
    len: Cell<usize>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { chunks: [const { OnceCell::new() }; CHUNKS], len: Cell::new(0) }
    }
}

impl<T> Arena<T> {
    /// Adds an element and says where it is.
    pub(super) fn push(&self, value: T) -> usize {
        let index = self.len.get();
        let (chunk, offset) = Self::place(index);
        let cells = self.chunks[chunk].get_or_init(|| (0..FIRST << chunk).map(|_| OnceCell::new()).collect());
        assert!(cells[offset].set(value).is_ok(), "each place is given out once");
        self.len.set(index + 1);
        index
    }

    pub(super) fn get(&self, index: usize) -> Option<&T> {
        let (chunk, offset) = Self::place(index);
        self.chunks.get(chunk)?.get()?.get(offset)?.get()
    }

    fn place(index: usize) -> (usize, usize) {
        let chunk = (index / FIRST + 1).ilog2() as usize;
        (chunk, index - FIRST * ((1 << chunk) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::Arena;

    #[test]
    fn elements_stay_where_they_are() {
        let arena = Arena::default();
        let first = arena.push(0);
        let reference = arena.get(first);
        for value in 1..1000 {
            let index = arena.push(value);
            assert_eq!(arena.get(index), Some(&value));
        }
        assert_eq!(reference, Some(&0));
        assert_eq!(arena.get(1000), None);
    }
}
