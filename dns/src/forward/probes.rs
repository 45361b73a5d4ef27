//! Questions by which loops are found.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Questions that nobody else can have asked, by name: whether they came back.
#[derive(Default)]
pub(super) struct Probes(Mutex<HashMap<Box<[u8]>, Arc<AtomicBool>>>);

impl Probes {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, Arc<AtomicBool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
