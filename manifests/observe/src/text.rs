//! What is known already, as metrics of the text format (0.0.4), for collectors that count nothing themselves.

use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use crate::Answer;

/// Metrics as an answer, in the order of their names.
#[must_use]
pub fn exposition(mut families: Vec<MetricFamily>) -> Answer {
    // One without a value is no metric yet, and none to the encoder.
    families.retain(|family| !family.get_metric().is_empty());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    match TextEncoder::new().encode_to_string(&families) {
        Ok(text) => Answer::new(200, prometheus::TEXT_FORMAT, text),
        Err(error) => Answer::text(500, error),
    }
}

/// A metric with its values.
#[must_use]
pub fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

/// A metric's labels, in the order of their names.
#[must_use]
pub fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    let mut labels: Vec<_> = pairs.iter().map(pair).collect();
    labels.sort_by(|a, b| a.name().cmp(b.name()));
    labels
}

/// Counters of one name, by label.
#[must_use]
pub fn counters<'a>(
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
) -> MetricFamily {
    let metric = |(pairs, value): (Vec<_>, f64)| {
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = Metric::from_label(labels(&pairs));
        metric.set_counter(counter);
        metric
    };
    family(name, help, MetricType::COUNTER, values.into_iter().map(metric).collect())
}

/// A counter.
#[must_use]
pub fn counter(name: &str, help: &str, value: f64) -> MetricFamily {
    counters(name, help, [(Vec::new(), value)])
}

/// Gauges of one name, by label.
#[must_use]
pub fn gauges<'a>(
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
) -> MetricFamily {
    let metric = |(pairs, value): (Vec<_>, f64)| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(labels(&pairs));
        metric.set_gauge(gauge);
        metric
    };
    family(name, help, MetricType::GAUGE, values.into_iter().map(metric).collect())
}

/// A gauge.
#[must_use]
pub fn gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    gauges(name, help, [(Vec::new(), value)])
}
