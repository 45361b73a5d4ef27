//! What must hold for any events, one after the other.

use std::sync::atomic::{AtomicU64, Ordering};

use fairlead_datapath::testing::Judged;

/// Events that have happened in this process.
static STEPS: AtomicU64 = AtomicU64::new(0);

/// At first and each time that so many more have happened, it is said (`cargo xtask test --full` adds them up): a fuzzer counts inputs,
/// whatever their length.
const TOLD: u64 = 100_000;

/// What passes was judged for it, and what begins a flow passes if and only if policy allows that; no count of flows drifts.
///
/// # Panics
/// When that doesn't hold.
pub(crate) fn check(events: &[u8]) {
    if let Err(text) = Judged::run(events) {
        panic!("{text}");
    }
    let steps = (events.len() / 3) as u64;
    let before = STEPS.fetch_add(steps, Ordering::Relaxed);
    if before == 0 || before / TOLD != (before + steps) / TOLD {
        eprintln!("{} steps", before + steps);
    }
}
