//! Numbers that nobody outside can guess.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
static COUNT: AtomicU64 = AtomicU64::new(0);

/// A number of 64 bits: keyed hashes (SipHash, whose keys come from the kernel) of a counter, so that who knows some of
/// them knows nothing of the next.
#[must_use]
pub(crate) fn number() -> u64 {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let [one, other] = &*KEYS;
    one.hash_one(count) ^ other.hash_one(!count)
}

/// A number below a bound.
#[must_use]
pub(crate) fn below(bound: usize) -> usize {
    let bound = bound as u64;
    number().checked_rem(bound).and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}
