//! Metrics under kube-proxy's names.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use fairlead_observe::{counter, counters, gauge, gauges};
use jiff::Timestamp;
use prometheus::HistogramVec;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, linear_buckets};

use super::{histogram, vec};
use crate::compile::services::Family;

/// The label that tells the families apart.
const FAMILY: &str = "ip_family";
/// Its values.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// What kube-proxy counts.
#[derive(Debug)]
pub struct KubeProxy {
    sync: [HistogramVec; 3],
    programming: HistogramVec,
    /// Of both families, with nothing in it.
    reconciler: HistogramVec,
    failures: AtomicU64,
    services: Changes,
    endpoints: Changes,
    healthz: Codes,
    livez: Codes,
    without_local: Mutex<[[usize; 2]; 2]>,
}

/// Changes of one kind of object.
#[derive(Debug, Default)]
struct Changes {
    total: AtomicU64,
    pending: AtomicI64,
}

/// Answers by status code.
#[derive(Debug, Default)]
struct Codes {
    good: AtomicU64,
    bad: AtomicU64,
}

impl Default for KubeProxy {
    fn default() -> Self {
        let sync = |name: &str, help: &str| {
            histogram(&format!("kubeproxy_{name}_duration_seconds"), help, &[FAMILY], (0.001, 2.0, 15))
        };
        let reconciler = histogram(
            "kubeproxy_conntrack_reconciler_sync_duration_seconds",
            "ReconcileConntrackFlowsLatency latency in seconds (here: there is nothing to reconcile)",
            &[FAMILY],
            (0.001, 2.0, 15),
        );
        for family in FAMILIES {
            reconciler.with_label_values(&[family]);
        }
        Self {
            reconciler,
            sync: [
                sync("sync_proxy_rules", "SyncProxyRules latency in seconds"),
                sync("sync_full_proxy_rules", "SyncProxyRules latency in seconds for full resyncs"),
                sync("sync_partial_proxy_rules", "SyncProxyRules latency in seconds for partial resyncs"),
            ],
            programming: vec(
                HistogramOpts::new(
                    "kubeproxy_network_programming_duration_seconds",
                    "In Cluster Network Programming Latency in seconds",
                )
                .buckets(programming_buckets()),
                &[FAMILY],
            ),
            failures: AtomicU64::new(0),
            services: Changes::default(),
            endpoints: Changes::default(),
            healthz: Codes::default(),
            livez: Codes::default(),
            without_local: Mutex::default(),
        }
    }
}

/// A quarter and half of a second, each second of the first minute, every five of the second, every thirty up to five
/// minutes.
fn programming_buckets() -> Vec<f64> {
    let parts = [(0.25, 0.25, 2), (1.0, 1.0, 59), (60.0, 5.0, 12), (120.0, 30.0, 7)];
    parts
        .into_iter()
        .flat_map(|(start, width, count)| linear_buckets(start, width, count).unwrap_or_default())
        .collect()
}

impl KubeProxy {
    /// A Service changed.
    pub fn service_changed(&self) {
        self.services.seen();
    }

    /// An EndpointSlice changed.
    pub fn endpoints_changed(&self) {
        self.endpoints.seen();
    }

    /// What changed is in force, after an attempt that took so long; the whole was compared, or only what changed.
    pub fn synced(&self, took: Duration, whole: bool) {
        let [all, full, partial] = &self.sync;
        for histogram in [all, if whole { full } else { partial }] {
            for family in FAMILIES {
                histogram.with_label_values(&[family]).observe(took.as_secs_f64());
            }
        }
        self.services.pending.store(0, Ordering::Relaxed);
        self.endpoints.pending.store(0, Ordering::Relaxed);
    }

    /// An attempt failed.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// A change of endpoints whose cause happened then is in force now.
    pub fn programmed(&self, family: Family, cause: Timestamp) {
        let [v4, v6] = FAMILIES;
        let family = if family == Family::V4 { v4 } else { v6 };
        let seconds = Timestamp::now().duration_since(cause).as_secs_f64();
        self.programming.with_label_values(&[family]).observe(seconds);
    }

    /// `/healthz` was answered.
    pub fn healthz(&self, code: u16) {
        self.healthz.count(code);
    }

    /// `/livez` was answered.
    pub fn livez(&self, code: u16) {
        self.livez.count(code);
    }

    /// So many services have a traffic policy Local (the internal one, the external one), endpoints, and none on this
    /// node; by family.
    pub fn set_without_local(&self, counts: [[usize; 2]; 2]) {
        *self.without_local.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    pub(super) fn collect(&self) -> Vec<MetricFamily> {
        let mut families: Vec<_> = self.sync.iter().flat_map(Collector::collect).collect();
        families.extend(self.programming.collect());
        families.extend(self.reconciler.collect());
        let failures = self.failures.load(Ordering::Relaxed) as f64;
        families.push(counters(
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
            "Cumulative proxy nftables sync failures (here: attempts to bring changes into the kernel's tables)",
            FAMILIES.map(|family| (vec![(FAMILY, family)], failures)),
        ));
        families.extend(never());
        self.services.collect("service", "Service", &mut families);
        self.endpoints.collect("endpoint", "Endpoint", &mut families);
        families.push(self.healthz.collect("healthz"));
        families.push(self.livez.collect("livez"));
        let without = *self.without_local.lock().unwrap_or_else(PoisonError::into_inner);
        let values = ["internal", "external"].into_iter().zip(without).flat_map(|(policy, counts)| {
            let of = move |(family, count)| (vec![("traffic_policy", policy), (FAMILY, family)], count as f64);
            FAMILIES.into_iter().zip(counts).map(of)
        });
        families.push(gauges(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            "Number of services with a Local traffic policy and no endpoints",
            values,
        ));
        families
    }

    /// When everything was in force last, and when a change was told last, in seconds since 1970.
    pub fn timestamps(updated: Option<Timestamp>, queued: Option<Timestamp>) -> [MetricFamily; 2] {
        let by_family = |time: Option<Timestamp>| {
            let seconds = time.map(|time| time.as_nanosecond() as f64 / 1e9);
            seconds.into_iter().flat_map(|seconds| FAMILIES.map(|family| (vec![(FAMILY, family)], seconds)))
        };
        [
            gauges(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "The last time proxy rules were successfully synced",
                by_family(updated),
            ),
            gauges(
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                "The last time a sync of proxy rules was queued",
                by_family(queued),
            ),
        ]
    }
}

/// What kube-proxy counts of netfilter, of which nothing is used here: no rule is left to clean up, and no entry of its
/// conntrack is another's after a change of endpoints.
fn never() -> [MetricFamily; 2] {
    let by_family = || FAMILIES.map(|family| (vec![(FAMILY, family)], 0.0));
    [
        counters(
            "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total",
            "Cumulative proxy nftables cleanup failures (here: there are no such rules)",
            by_family(),
        ),
        counters(
            "kubeproxy_conntrack_reconciler_deleted_entries_total",
            "Cumulative conntrack flows deleted by conntrack reconciler (here: the kernel's conntrack is not used)",
            by_family(),
        ),
    ]
}

impl Changes {
    fn seen(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    fn collect(&self, name: &str, kind: &str, families: &mut Vec<MetricFamily>) {
        families.push(gauge(
            &format!("kubeproxy_sync_proxy_rules_{name}_changes_pending"),
            &format!("Pending proxy rules {kind} changes"),
            self.pending.load(Ordering::Relaxed) as f64,
        ));
        families.push(counter(
            &format!("kubeproxy_sync_proxy_rules_{name}_changes_total"),
            &format!("Cumulative proxy rules {kind} changes"),
            self.total.load(Ordering::Relaxed) as f64,
        ));
    }
}

impl Codes {
    fn count(&self, code: u16) {
        let counter = if code == 200 { &self.good } else { &self.bad };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn collect(&self, name: &str) -> MetricFamily {
        let seen = [("200", &self.good), ("503", &self.bad)];
        let seen = seen.map(|(code, count)| (code, count.load(Ordering::Relaxed)));
        counters(
            &format!("kubeproxy_proxy_{name}_total"),
            &format!("Cumulative proxy {name} HTTP status"),
            seen.into_iter().filter(|(_, count)| *count > 0).map(|(code, count)| (vec![("code", code)], count as f64)),
        )
    }
}
