//! How long it took to attach pods.

use std::time::Duration;

use serde::Serialize;

use super::report::seconds;
use super::stage::Stage;

/// The times of CNI ADD, from the start of the plugin to its end.
#[derive(Debug, Clone, Serialize)]
pub struct Adds {
    /// How many pods.
    pub count: usize,
    /// Half of them took no longer.
    #[serde(serialize_with = "seconds")]
    pub p50: Duration,
    /// All but one in a hundred took no longer.
    #[serde(serialize_with = "seconds")]
    pub p99: Duration,
}

/// Looks at the pods of the demo.
pub(super) fn look(stage: &Stage) -> Adds {
    let mut times: Vec<Duration> = stage.pods.values().map(crate::Pod::added_in).collect();
    Adds { count: times.len(), p50: percentile(&mut times, 50), p99: percentile(&mut times, 99) }
}

/// So many of a hundred took no longer than this; zero where there are none.
pub(super) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut times: Vec<Duration> = (1..=40).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut times, 50), Duration::from_millis(20));
        assert_eq!(percentile(&mut times, 99), Duration::from_millis(40));
        assert_eq!(percentile(&mut times[..1], 50), Duration::from_millis(1));
        assert_eq!(percentile(&mut [], 50), Duration::ZERO);
    }
}
