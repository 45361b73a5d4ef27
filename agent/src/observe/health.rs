//! `/healthz`, `/livez` and `/readyz`, with kube-proxy's port and answers (pkg/proxy/healthcheck/proxy_health.go).
//!
//! Load balancers ask `/healthz` whether to send new connections to this node (KEP-3836): it fails when a change waits
//! for the kernel for too long, and when the node is about to go. `/livez` is the same without the node and is for
//! liveness probes, `/readyz` says whether pods can be added.

use std::sync::Arc;

use fairlead_observe::{Answer, Handler};
use jiff::Timestamp;
use serde_json::json;

use crate::cni::Health;
use crate::state::{FreshnessView as View, Shared};

/// Go's zero time, which kube-proxy prints before its first update.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Answers probes.
#[derive(Debug)]
pub struct HealthServer {
    /// What the agent knows.
    pub shared: Arc<Shared>,
}

impl Handler for HealthServer {
    fn answer(&self, path: &str) -> Answer {
        match path {
            "/healthz" => {
                let eligible = self.shared.model().own_node().is_some_and(|node| !node.leaving);
                let answer = freshness(self.shared.freshness.view(), Some(eligible));
                self.shared.metrics.kubeproxy.healthz(answer.status);
                answer
            }
            "/livez" => {
                let answer = freshness(self.shared.freshness.view(), None);
                self.shared.metrics.kubeproxy.livez(answer.status);
                answer
            }
            "/readyz" => match self.shared.health() {
                Health::Ready => match (self.shared.repairs.all_broken().first(), self.shared.progress().conflist) {
                    (None, true) => Answer::text(200, "ok"),
                    (None, false) => Answer::text(503, "the CNI configuration is not in its place\n"),
                    (Some(broken), _) => Answer::text(503, format!("not as it should be: {}\n", broken.what)),
                },
                Health::Starting(why) | Health::Impaired(why) => Answer::text(503, why + "\n"),
            },
            _ => Answer::not_found(),
        }
    }
}

/// kube-proxy has a loop for each family, and so a state of each; here they are one.
fn freshness(view: View, eligible: Option<bool>) -> Answer {
    let now = Timestamp::now();
    let View { updated, queued: _, healthy } = view;
    let good = healthy && eligible.unwrap_or(true);
    let time = |time: Option<Timestamp>| time.map_or_else(|| NEVER.to_owned(), |time| time.to_string());
    // Of a healthy one it is the present, since nothing waits.
    let last = if good { Some(now) } else { updated };
    let mut body = json!({ "lastUpdated": time(last), "currentTime": time(Some(now)), "healthy": healthy });
    if let Some(eligible) = eligible {
        body["nodeEligible"] = eligible.into();
    }
    if updated.is_some() {
        let family = json!({ "lastUpdated": time(updated), "healthy": healthy });
        body["status"] = json!({ "IPv4": family, "IPv6": family });
    }
    Answer::json(if good { 200 } else { 503 }, body.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn ask(updated: bool, healthy: bool, eligible: Option<bool>) -> (u16, Value) {
        let updated = updated.then(Timestamp::now);
        let answer = freshness(View { updated, queued: None, healthy }, eligible);
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }

    #[test]
    fn s51_healthz_depends_on_freshness_and_the_node() {
        let (status, body) = ask(true, true, Some(true));
        assert_eq!((status, &body["nodeEligible"]), (200, &true.into()));
        assert_eq!(body["lastUpdated"], body["currentTime"]);
        assert_eq!(body["status"]["IPv6"]["healthy"], true);
        assert_eq!(ask(true, true, Some(false)).0, 503);
        assert_eq!(ask(true, false, Some(true)).0, 503);
        let (status, body) = ask(false, true, Some(true));
        assert_eq!((status, body.get("status")), (200, None), "before the first update all is well");
    }

    #[test]
    fn s52_livez_does_not_ask_about_the_node() {
        let (status, body) = ask(true, true, None);
        assert_eq!((status, body.get("nodeEligible")), (200, None));
        let (status, body) = ask(true, false, None);
        assert_eq!((status, &body["healthy"]), (503, &false.into()));
    }
}
