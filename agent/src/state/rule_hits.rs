//! What rules have counted: the loop writes down which sets have counters, and who asks reads them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::policy::{HitKey, Hits};
use nix::time::{ClockId, clock_gettime};
use zerocopy::FromBytes;

use crate::bpf::{BpfError, Tables};
use crate::compile::policy::RuleId;
use crate::plan::policy::{Count, Ledger};

/// What rules have counted.
#[derive(Debug, Default)]
pub struct RuleHits(Mutex<Ledger>);

impl RuleHits {
    /// Which sets have counters. While it is held none come and go.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each rule has counted so far, with the ledger that this is by.
    ///
    /// # Errors
    /// The counters can't be read.
    pub fn counts(&self, tables: &Tables) -> Result<(Ledger, HashMap<RuleId, Count>), BpfError> {
        let ledger = self.ledger();
        let boot = boot();
        let mut in_kernel = HashMap::new();
        tables.map(TableId::PolicyHits)?.for_each(|key, values| {
            if let Ok(key) = HitKey::read_from_bytes(key) {
                in_kernel.insert(key, count_of(values, boot).1);
            }
        })?;
        let counts = ledger.counts(&in_kernel);
        Ok((ledger.clone(), counts))
    }
}

/// A counter's rule, and what it has counted: the values of all CPUs.
pub(crate) fn count_of(values: &[u8], boot: u64) -> (RuleId, Count) {
    let (mut rule, mut count) = (0, Count::default());
    for hits in values.chunks_exact(size_of::<Hits>()).filter_map(|value| Hits::read_from_bytes(value).ok()) {
        rule |= hits.rule;
        let last = (hits.last != 0).then(|| boot + hits.last);
        count.add(&Count { flows: hits.flows, denied: hits.denied, last });
    }
    (rule, count)
}

/// The second since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// When the clock that programs read began, in seconds since 1970.
pub(crate) fn boot() -> u64 {
    let up = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    now().saturating_sub(up.as_secs())
}
