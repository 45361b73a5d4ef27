//! Counters of what the server does.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// What has happened since the start. Every field counts messages.
#[derive(Debug, Default)]
pub struct Stats {
    /// Answered on the short way.
    pub fast: Counter,
    /// Answered on the long way.
    pub full: Counter,
    /// About another zone, passed to an upstream server.
    pub forwarded: Counter,
    /// No upstream server gave a usable answer in time.
    pub forward_failed: Counter,
    /// Refused because too many queries waited for upstream servers.
    pub forward_refused: Counter,
    /// Couldn't be read: answered with an error where there was something to answer to.
    pub malformed: Counter,
    /// Left without a response: too short for a header, or a response itself.
    pub ignored: Counter,
    /// Answered with SERVFAIL because not every object was known yet.
    pub not_ready: Counter,
    /// Responses that the kernel didn't take.
    pub unsent: Counter,
}

/// A number that only grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// More.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.get(), f)
    }
}
