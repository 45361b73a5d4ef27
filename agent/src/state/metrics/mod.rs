//! What is counted while the agent works. What is known anyway is looked up when somebody asks.
//!
//! `kubeproxy_*` are the names, labels and buckets of kube-proxy (pkg/proxy/metrics/metrics.go), so that its dashboards
//! and alerts go on. It has a loop for each family; here one serves both, and both labels say the same.

mod kubeproxy;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fairlead_datapath::catalog::TableId;
use fairlead_observe::Process;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec, exponential_buckets};

pub use kubeproxy::KubeProxy;

use crate::sockets::Transport;

/// Everything that the agent counts.
#[derive(Debug)]
pub struct Metrics {
    /// Under kube-proxy's names.
    pub kubeproxy: KubeProxy,
    failures: AtomicU64,
    programming: HistogramVec,
    cni: HistogramVec,
    /// Entries of tables, as the planners and the sweep know them.
    entries: Mutex<BTreeMap<TableId, u64>>,
    swept: AtomicU64,
    sockets: Mutex<BTreeMap<Transport, u64>>,
    process: Process,
}

/// A histogram with exponential buckets. The names here are constant, so it can't be refused; if it were, it would have
/// the library's default buckets.
fn histogram(name: &str, help: &str, labels: &[&str], (start, factor, count): (f64, f64, usize)) -> HistogramVec {
    let buckets = exponential_buckets(start, factor, count).unwrap_or_else(|_| prometheus::DEFAULT_BUCKETS.to_vec());
    vec(HistogramOpts::new(name, help).buckets(buckets), labels)
}

fn vec(options: HistogramOpts, labels: &[&str]) -> HistogramVec {
    HistogramVec::new(options, labels).expect("names and labels are constants, and a test makes every one")
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            kubeproxy: KubeProxy::default(),
            failures: AtomicU64::new(0),
            programming: histogram(
                "fairlead_programming_duration_seconds",
                "Time from the arrival of a change until it is in force in the kernel.",
                &[],
                (0.000_25, 2.0, 18),
            ),
            cni: histogram(
                "fairlead_cni_request_duration_seconds",
                "Duration of the CNI plugin's requests.",
                &["verb", "result"],
                (0.001, 2.0, 15),
            ),
            entries: Mutex::default(),
            swept: AtomicU64::new(0),
            sockets: Mutex::new(Transport::ALL.map(|transport| (transport, 0)).into()),
            process: Process::new(),
        }
    }
}

impl Metrics {
    /// A change came into force so long after it had arrived.
    pub fn programmed(&self, after: Duration) {
        self.programming.with_label_values::<&str>(&[]).observe(after.as_secs_f64());
    }

    /// Something could not be brought into force.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// A request of the CNI plugin was answered.
    pub fn cni(&self, verb: &str, ok: bool, took: Duration) {
        let result = if ok { "ok" } else { "error" };
        self.cni.with_label_values(&[verb, result]).observe(took.as_secs_f64());
    }

    /// Tables have so many entries.
    pub fn set_entries(&self, counts: impl IntoIterator<Item = (TableId, u64)>) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).extend(counts);
    }

    /// So many ended flows were removed.
    pub fn add_swept(&self, flows: u64) {
        self.swept.fetch_add(flows, Ordering::Relaxed);
    }

    /// A socket of a process of the node was ended.
    pub fn ended_socket(&self, transport: Transport) {
        *self.sockets.lock().unwrap_or_else(PoisonError::into_inner).entry(transport).or_default() += 1;
    }

    /// Sockets of the node's processes that were ended, by protocol.
    pub fn ended_sockets(&self) -> BTreeMap<Transport, u64> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Entries of tables, as [`Metrics::set_entries`] had them last.
    pub fn entries(&self) -> BTreeMap<TableId, u64> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Attempts that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Ended flows that were removed.
    pub fn swept(&self) -> u64 {
        self.swept.load(Ordering::Relaxed)
    }

    /// What is counted, as Prometheus has it.
    pub fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.kubeproxy.collect();
        families.extend(self.programming.collect());
        families.extend(self.cni.collect());
        families.extend(self.process.collect());
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s53_every_metric_can_be_made_and_shown() {
        let metrics = Metrics::default();
        metrics.programmed(Duration::from_millis(3));
        metrics.cni("attach", true, Duration::from_millis(30));
        metrics.kubeproxy.synced(Duration::from_millis(2), false);
        metrics.kubeproxy.healthz(503);
        let text = fairlead_observe::exposition(metrics.collect()).body;
        for line in [
            "fairlead_programming_duration_seconds_bucket{le=\"0.004\"} 1",
            "fairlead_cni_request_duration_seconds_count{result=\"ok\",verb=\"attach\"} 1",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"} 1",
            "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
