//! Requests to API servers under client-go's names.

use fairlead_objects::kubernetes::{BUCKETS, Durations, RequestCounts};
use fairlead_observe::{counters, family, labels};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};

pub(super) fn requests(counts: &RequestCounts) -> [MetricFamily; 2] {
    let answered = counts.answered.iter().map(|((method, host, code), count)| {
        (vec![("code", code.as_str()), ("method", method.as_str()), ("host", host.as_str())], *count as f64)
    });
    let took = counts.took.iter().map(|((verb, host), durations)| {
        let mut metric = Metric::from_label(labels(&[("verb", verb), ("host", host)]));
        metric.set_histogram(histogram(durations));
        metric
    });
    [
        counters(
            "rest_client_requests_total",
            "Number of HTTP requests, partitioned by status code, method, and host.",
            answered,
        ),
        family(
            "rest_client_request_duration_seconds",
            "Request latency in seconds. Broken down by verb, and host.",
            MetricType::HISTOGRAM,
            took.collect(),
        ),
    ]
}

fn histogram(durations: &Durations) -> Histogram {
    let buckets = durations.buckets.iter().zip(BUCKETS).map(|(count, bound)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(*count);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(durations.count);
    histogram.set_sample_sum(durations.sum);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_names_and_labels_that_dashboards_ask_for() {
        let mut counts = RequestCounts::default();
        let (get, host) = ("GET".to_owned(), "192.0.2.1:6443".to_owned());
        counts.answered.insert((get.clone(), host.clone(), "200".to_owned()), 7);
        let durations = Durations { buckets: [1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3], count: 3, sum: 0.5 };
        counts.took.insert((get, host), durations);
        let text = prometheus::TextEncoder::new().encode_to_string(&requests(&counts)).unwrap();
        for line in [
            "rest_client_requests_total{code=\"200\",host=\"192.0.2.1:6443\",method=\"GET\"} 7",
            "rest_client_request_duration_seconds_bucket{host=\"192.0.2.1:6443\",verb=\"GET\",le=\"0.005\"} 1",
            "rest_client_request_duration_seconds_bucket{host=\"192.0.2.1:6443\",verb=\"GET\",le=\"60\"} 3",
            "rest_client_request_duration_seconds_count{host=\"192.0.2.1:6443\",verb=\"GET\"} 3",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
