//! How long it takes to attach pods.

use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::report::seconds;
use super::say;
use super::stage::Stage;

/// Pods that are made to measure, one after the other.
const CALM: usize = 30;

/// How long their objects are known before: a kubelet learns of a pod long before its runtime wants a network for it.
const KNOWN: Duration = Duration::from_millis(300);

/// The times of CNI ADD, from the start of the plugin to its end.
#[derive(Debug, Clone, Serialize)]
pub struct Adds {
    /// Of the manifests' pods, one on each node at a time, their objects as new as they are.
    pub together: Times,
    /// Of pods on a node that has nothing else to do, and knows their objects.
    pub alone: Times,
}

/// Some times.
#[derive(Debug, Clone, Serialize)]
pub struct Times {
    /// How many pods.
    pub count: usize,
    /// Half of them took no longer.
    #[serde(serialize_with = "seconds")]
    pub p50: Duration,
    /// All but one in a hundred took no longer.
    #[serde(serialize_with = "seconds")]
    pub p99: Duration,
}

/// Looks at the pods of the demo, and makes some more for a moment.
pub(super) fn look(stage: &Stage) -> Adds {
    say("attaching more pods, one after the other");
    let lab = &stage.lab;
    let keys: Vec<String> = (1..=CALM).map(|number| format!("measured/pod-{number}")).collect();
    let places: Vec<_> = keys.iter().zip(lab.nodes().iter().cycle()).collect();
    lab.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "measured"}}).to_string());
    for (key, node) in &places {
        let name = key.trim_start_matches("measured/");
        let object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": "measured", "name": name},
            "spec": {"nodeName": node.name(), "containers": [{"name": "none"}]},
            "status": {"phase": "Pending"},
        });
        lab.apply(&object.to_string());
    }
    thread::sleep(KNOWN);
    let pods: Vec<_> = places.iter().map(|(key, node)| node.pod(key).without_object().start()).collect();
    let alone = Times::of(pods.iter().map(crate::Pod::added_in).collect());
    for pod in pods {
        let key = pod.key().to_owned();
        pod.delete();
        lab.delete("Pod", &key);
    }
    lab.delete("Namespace", "measured");
    Adds { together: Times::of(stage.pods.values().map(crate::Pod::added_in).collect()), alone }
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        Self { count: times.len(), p50: percentile(&mut times, 50), p99: percentile(&mut times, 99) }
    }
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
