//! What a server has of memory and open files, and whether it grows.

/// One look at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Questions until then.
    pub(super) done: u64,
    pub(super) resident_kib: u64,
    pub(super) descriptors: usize,
}

/// By how much memory grows from the first sample to the last, on the line with the least squares, in KiB.
pub(super) fn growth(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return 0.0 };
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (|sample: &Sample| sample.done as f64, |sample: &Sample| sample.resident_kib as f64);
    let (mean_x, mean_y) = (mean(&x), mean(&y));
    let together = mean(&|sample| (x(sample) - mean_x) * (y(sample) - mean_y));
    let spread = mean(&|sample| (x(sample) - mean_x).powi(2));
    if spread > 0.0 { together / spread * (last.done - first.done) as f64 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_is_seen_through_noise_and_noise_is_none() {
        let samples = |of: &dyn Fn(u64) -> u64| -> Vec<Sample> {
            (0..100).map(|n| Sample { done: n * 1000, resident_kib: of(n), descriptors: 9 }).collect()
        };
        let noisy = samples(&|n| 50_000 + n * 7919 % 500);
        assert!(growth(&noisy).abs() < 200.0, "{}", growth(&noisy));
        let leaks = samples(&|n| 50_000 + n * 7919 % 500 + n * 100);
        assert!((growth(&leaks) - 9_900.0).abs() < 300.0, "{}", growth(&leaks));
        assert_eq!(growth(&[]), 0.0);
    }
}
