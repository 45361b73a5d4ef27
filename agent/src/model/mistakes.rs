//! Objects that can't be read.

use std::collections::VecDeque;

use fairlead_objects::{Kind, ObjectKey};
use serde::Serialize;
use tracing::warn;

/// Mistakes that are kept to be shown; the oldest goes first.
const KEPT: usize = 64;

/// An object that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// What it claims to be, where that could be read.
    pub kind: Option<Kind>,
    /// Its name, where that could be read.
    pub key: Option<ObjectKey>,
    /// Where it is.
    pub origin: String,
    /// What is wrong with it and what to do.
    pub reason: String,
}

/// The mistakes that stand, and how many there were.
#[derive(Debug, Default)]
pub struct Mistakes {
    standing: VecDeque<Mistake>,
    total: u64,
}

/// A mistake as programs read it.
#[derive(Debug, Clone, Serialize)]
pub struct MistakeView {
    /// Where it is.
    pub origin: String,
    /// What is wrong with it and what to do.
    pub reason: String,
}

impl Mistakes {
    pub(super) fn add(&mut self, mistake: Mistake) {
        if self.standing.contains(&mistake) {
            return;
        }
        warn!(origin = mistake.origin, reason = mistake.reason, "invalid object: keeping its last valid version");
        self.total += 1;
        self.standing.retain(|old| old.origin != mistake.origin || old.key != mistake.key);
        if self.standing.len() == KEPT {
            self.standing.pop_front();
        }
        self.standing.push_back(mistake);
    }

    /// The object was read, or is gone.
    pub(super) fn fixed(&mut self, kind: Kind, key: &ObjectKey) {
        self.standing.retain(|old| old.key.as_ref() != Some(key) || old.kind.is_some_and(|k| k != kind));
    }

    /// The mistake is no more.
    pub(super) fn mended(&mut self, origin: &str, reason: &str) {
        self.standing.retain(|old| old.origin != origin || old.reason != reason);
    }

    /// Those that stand.
    #[must_use]
    pub fn standing(&self) -> Vec<MistakeView> {
        self.standing.iter().map(|m| MistakeView { origin: m.origin.clone(), reason: m.reason.clone() }).collect()
    }

    /// How many were seen since the start.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }
}
