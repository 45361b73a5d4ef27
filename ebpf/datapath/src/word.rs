//! Words that packets write while others read and write them.

use core::cell::Cell;

/// An aligned 32-bit word in a table. Each access is one load or one store; CPUs that write at the same time overwrite
/// each other, and whoever uses it can bear that. (Core has no 32-bit atomics for this target.)
#[derive(Debug, Default)]
#[cfg_attr(any(test, feature = "host"), derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout))]
#[repr(transparent)]
pub struct Word(Cell<u32>);

impl Word {
    /// A word with a value.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(Cell::new(value))
    }

    /// Its value.
    #[inline(always)]
    #[must_use]
    pub fn load(&self) -> u32 {
        self.0.get()
    }

    /// Gives it a value.
    #[inline(always)]
    pub fn store(&self, value: u32) {
        self.0.set(value);
    }
}

/// An aligned 64-bit word in a table, which CPUs change by atomic instructions: no change is lost
/// ([`crate::kernel::Kernel::add`] and those beside it).
#[derive(Debug, Default)]
#[cfg_attr(any(test, feature = "host"), derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout))]
#[repr(transparent)]
pub struct Long(Cell<u64>);

impl Long {
    /// A word with a value.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(Cell::new(value))
    }

    /// Its value.
    #[inline(always)]
    #[must_use]
    pub fn load(&self) -> u64 {
        self.0.get()
    }

    /// Its value, if it counts something. Where one that goes was faster than its own coming, there is none.
    #[inline(always)]
    #[must_use]
    pub fn count(&self) -> u64 {
        let value = self.load();
        if value > i64::MAX as u64 { 0 } else { value }
    }

    /// Gives it a value. Where several CPUs write, that loses changes.
    #[inline(always)]
    pub fn store(&self, value: u64) {
        self.0.set(value);
    }
}
