//! Requests to API servers, counted as client-go counts its own (component-base/metrics/prometheus/restclient), so that
//! dashboards go on.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the buckets of durations, in seconds: client-go's.
pub const BUCKETS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

/// What stands for a status where there was no answer.
const NO_ANSWER: &str = "<error>";

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestCounts {
    /// Requests, by method, server and status.
    pub answered: BTreeMap<(String, String, String), u64>,
    /// How long the heads of their answers took, by method and server.
    pub took: BTreeMap<(String, String), Durations>,
}

/// A histogram of durations.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Durations {
    /// How many were not longer than each of [`BUCKETS`].
    pub buckets: [u64; BUCKETS.len()],
    /// How many there were.
    pub count: u64,
    /// Their sum in seconds.
    pub sum: f64,
}

/// Counts.
#[derive(Debug, Default)]
pub(super) struct Requests(Mutex<RequestCounts>);

impl Requests {
    /// A request was answered with this status, or not at all.
    pub(super) fn note(&self, method: &str, server: &str, status: Option<u16>, took: Duration) {
        let status = status.map_or_else(|| NO_ANSWER.to_owned(), |status| status.to_string());
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.answered.entry((method.to_owned(), server.to_owned(), status)).or_default() += 1;
        let seconds = took.as_secs_f64();
        let durations = counts.took.entry((method.to_owned(), server.to_owned())).or_default();
        durations.count += 1;
        durations.sum += seconds;
        for (bucket, bound) in durations.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    pub(super) fn counts(&self) -> RequestCounts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_became_of_them() {
        let requests = Requests::default();
        requests.note("GET", "192.0.2.1:6443", Some(200), Duration::from_millis(10));
        requests.note("GET", "192.0.2.1:6443", Some(200), Duration::from_secs(3));
        requests.note("GET", "192.0.2.1:6443", None, Duration::from_secs(90));
        requests.note("POST", "192.0.2.1:6443", Some(403), Duration::ZERO);
        let counts = requests.counts();
        let of = |method: &str, status: &str| {
            counts.answered[&(method.to_owned(), "192.0.2.1:6443".to_owned(), status.to_owned())]
        };
        assert_eq!([of("GET", "200"), of("GET", "<error>"), of("POST", "403")], [2, 1, 1]);
        let get = counts.took[&("GET".to_owned(), "192.0.2.1:6443".to_owned())];
        assert_eq!((get.count, get.buckets), (3, [0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]));
        assert!((get.sum - 93.01).abs() < 1e-9, "{}", get.sum);
    }
}
