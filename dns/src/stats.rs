//! Counters of what the server does.

use crate::counter::Counter;
use crate::meter::{Histogram, Meters, PROGRAMMING};

/// What has happened since the start. Every field counts messages.
#[derive(Debug)]
pub struct Stats {
    /// Answered on the short way.
    pub fast: Counter,
    /// Answered on the long way.
    pub full: Counter,
    /// About another zone, answered at once with what was kept.
    pub cached: Counter,
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
    /// TCP connections that got a place.
    pub tcp_connections: Counter,
    /// TCP connections that were closed while idle, because another one needed the place.
    pub tcp_evicted: Counter,
    /// TCP connections that got no place.
    pub tcp_refused: Counter,
    /// Queries and responses with their dimensions.
    pub meters: Meters,
    /// Nanoseconds from the cause of a change of a service's endpoints to its being in the zone.
    pub programming_cluster_ip: Histogram<{ PROGRAMMING.len() }>,
    /// The same for headless services.
    pub programming_headless: Histogram<{ PROGRAMMING.len() }>,
}

impl Default for Stats {
    fn default() -> Self {
        let counter = Counter::default;
        Self {
            fast: counter(),
            full: counter(),
            cached: counter(),
            forwarded: counter(),
            forward_failed: counter(),
            forward_refused: counter(),
            malformed: counter(),
            ignored: counter(),
            not_ready: counter(),
            unsent: counter(),
            tcp_connections: counter(),
            tcp_evicted: counter(),
            tcp_refused: counter(),
            meters: Meters::default(),
            programming_cluster_ip: Histogram::new(&PROGRAMMING),
            programming_headless: Histogram::new(&PROGRAMMING),
        }
    }
}
