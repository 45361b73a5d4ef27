//! `/healthz`, `/livez` and `/readyz`, with kube-proxy's port and answers (pkg/proxy/healthcheck/proxy_health.go).
//!
//! Load balancers ask `/healthz` whether to send new connections to this node (KEP-3836): it fails when a change waits
//! for the kernel for too long, and when the node is about to go. `/livez` is the same without the node and is for
//! liveness probes, `/readyz` says whether pods can be added, and whether the API server is heard.

use std::sync::Arc;
use std::time::Duration;

use fairlead_objects::Kind;
use fairlead_observe::{Answer, Handler};
use jiff::Timestamp;
use serde_json::json;

use crate::cni::Health;
use crate::model::Model;
use crate::state::{FreshnessView as View, Shared, unheard};

/// Go's zero time, which kube-proxy prints before its first update.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Answers probes.
#[derive(Debug)]
pub struct HealthServer {
    /// What the agent knows.
    pub shared: Arc<Shared>,
    /// How long the API server may be silent before the agent is not ready.
    pub patience: Option<Duration>,
}

impl Handler for HealthServer {
    fn answer(&self, path: &str) -> Answer {
        match path {
            "/healthz" => {
                let answer = freshness(self.shared.freshness.view(), Some(is_eligible(&self.shared.model())));
                self.shared.metrics.kubeproxy.healthz(answer.status);
                answer
            }
            "/livez" => {
                let answer = freshness(self.shared.freshness.view(), None);
                self.shared.metrics.kubeproxy.livez(answer.status);
                answer
            }
            "/readyz" => {
                let unheard = unheard(&self.shared.watches(), self.patience);
                let broken = self.shared.repairs.all_broken().into_iter().next().map(|broken| broken.what);
                readiness(self.shared.health(), self.shared.progress().conflist, unheard, broken)
            }
            _ => Answer::not_found(),
        }
    }
}

/// Whether load balancers may send here: the Node is there and not about to be removed. As long as Nodes have not been listed it is as
/// it was: the tables that were adopted serve (S51).
fn is_eligible(model: &Model) -> bool {
    let is_unknown = model.waiting_for().any(|kind| kind == Kind::Node);
    model.own_node().map_or(is_unknown, |node| !node.leaving)
}

/// Whether pods can be added, and the agent would learn what they need. Nothing but the agent's own pod depends on it: the
/// node stays Ready (STATUS), load balancers ask `/healthz`, and DNS has a probe of its own.
fn readiness(health: Health, conflist: bool, unheard: Option<String>, broken: Option<String>) -> Answer {
    match (health, unheard) {
        (Health::Starting(why) | Health::Impaired(why), _) => Answer::text(503, why + "\n"),
        (Health::Ready, _) if !conflist => Answer::text(503, "the CNI configuration is not in place\n"),
        (Health::Ready, unheard) => match (broken, unheard) {
            (Some(what), _) => Answer::text(503, format!("can't check or repair {what}\n")),
            (None, Some(why)) => Answer::text(503, why + "\n"),
            (None, None) => Answer::text(200, "ok"),
        },
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
    use fairlead_objects::Event;
    use serde_json::Value;

    use super::*;

    fn ask(updated: bool, healthy: bool, eligible: Option<bool>) -> (u16, Value) {
        let updated = updated.then(Timestamp::now);
        let answer = freshness(View { updated, queued: None, healthy }, eligible);
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }

    #[test]
    fn s51_a_node_is_eligible_until_nodes_have_been_listed_without_it() {
        let mut model = Model::new("node-1");
        assert!(is_eligible(&model), "nobody knows yet");
        model.take(Event::Synced(Kind::Node));
        assert!(!is_eligible(&model));
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
    fn s59_readyz_says_why_the_agent_is_not_ready() {
        let silent = || Some("nothing was heard".to_owned());
        assert_eq!(readiness(Health::Ready, true, None, None).status, 200);
        let broken = readiness(Health::Ready, true, None, Some("no program".to_owned()));
        assert!(broken.status == 503 && broken.body.contains("no program"), "{}", broken.body);
        for (health, conflist, unheard, says) in [
            (Health::Ready, true, silent(), "nothing was heard"),
            (Health::Ready, false, silent(), "CNI configuration"),
            (Health::Starting("no list".to_owned()), true, silent(), "no list"),
            (Health::Impaired("broken".to_owned()), true, None, "broken"),
        ] {
            let answer = readiness(health, conflist, unheard, None);
            assert!(answer.status == 503 && answer.body.contains(says), "{}", answer.body);
        }
    }

    #[test]
    fn s52_livez_does_not_ask_about_the_node() {
        let (status, body) = ask(true, true, None);
        assert_eq!((status, body.get("nodeEligible")), (200, None));
        let (status, body) = ask(true, false, None);
        assert_eq!((status, &body["healthy"]), (503, &false.into()));
    }
}
