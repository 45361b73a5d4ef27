//! How many of the cluster's pods are watched: those of this node alone as long as no policy asks who others are.
//!
//! A policy that knows no pod of other nodes refuses them all. So with the first policy the pods of the whole cluster are
//! listed, and what is told of policies waits for that list. From then on all pods are watched until the process ends.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::{Event, Kind, Object};

/// How long policies wait for pods, all together from the first one on. Pods that can't be listed must not keep a policy from being in
/// force: it then refuses those that it does not know.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which pods are to be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pods {
    /// Policies have not been listed yet.
    Unknown,
    /// There are no policies.
    Own,
    /// There was one.
    All,
}

/// What the watches of policies and of pods know of each other.
#[derive(Debug)]
pub(super) struct Scope {
    wanted: watch::Sender<Pods>,
    /// Whether all pods have been listed.
    listed: watch::Sender<bool>,
    patience: Duration,
    /// When policies have waited for long enough.
    deadline: OnceLock<Instant>,
}

impl Scope {
    pub(super) fn new() -> Self {
        Self {
            wanted: watch::Sender::new(Pods::Unknown),
            listed: watch::Sender::new(false),
            patience: PATIENCE,
            deadline: OnceLock::new(),
        }
    }

    /// The field selector of a watch that begins now. That of pods begins once it is known which are wanted.
    pub(super) async fn fields(&self, kind: Kind, node: Option<&str>) -> Option<String> {
        let (Kind::Pod, Some(node)) = (kind, node) else { return None };
        let wanted = wait(&self.wanted, |wanted| *wanted != Pods::Unknown).await;
        (wanted == Pods::Own).then(|| format!("spec.nodeName={node}"))
    }

    /// Returns when a watch that began with these fields has to begin anew, with others.
    pub(super) async fn outgrows(&self, fields: Option<&str>) {
        if fields.is_none() {
            return std::future::pending().await;
        }
        wait(&self.wanted, |wanted| *wanted == Pods::All).await;
    }

    /// Returns when an event may be told: what is said of policies comes after all pods.
    pub(super) async fn admits(&self, event: &Event) {
        let is_policy = match event {
            Event::Applied(Object::NetworkPolicy(_) | Object::ClusterNetworkPolicy(_)) => true,
            // One that can't be read has its pods isolated if it was read before, and it may be mended.
            Event::Invalid { kind, .. } => {
                matches!(kind, Some(Kind::NetworkPolicy | Kind::ClusterNetworkPolicy))
            }
            _ => false,
        };
        if is_policy {
            self.wanted.send_replace(Pods::All);
            let deadline = *self.deadline.get_or_init(|| Instant::now() + self.patience);
            let has_waited = Instant::now() >= deadline;
            let listed = wait(&self.listed, |listed| *listed);
            if timeout_at(deadline, listed).await.is_err() && !has_waited {
                tracing::warn!("can't list pods: policies deny pods that are not known yet");
            }
        }
    }

    /// A list is complete, and was told.
    pub(super) fn list_ended(&self, kind: Kind, fields: Option<&str>) {
        match kind {
            Kind::NetworkPolicy => {
                self.wanted.send_if_modified(|wanted| {
                    let first = *wanted == Pods::Unknown;
                    if first {
                        *wanted = Pods::Own;
                    }
                    first
                });
            }
            Kind::Pod if fields.is_none() => drop(self.listed.send_replace(true)),
            _ => {}
        }
    }
}

/// The value once it is so.
async fn wait<T: Copy>(sender: &watch::Sender<T>, is_so: impl FnMut(&T) -> bool) -> T {
    let mut receiver = sender.subscribe();
    let value = receiver.wait_for(is_so).await.map(|value| *value);
    match value {
        Ok(value) => value,
        // The sender is borrowed: it can't be gone.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;
    use crate::ObjectKey;

    const OWN: Option<&str> = Some("spec.nodeName=n");

    fn run<T>(future: impl Future<Output = T>) -> Option<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_millis(50), future).await.ok() })
    }

    fn policy() -> Event {
        let kind = Some(Kind::NetworkPolicy);
        Event::Invalid { kind, key: Some(ObjectKey::new("a", "b")), origin: String::new(), reason: String::new() }
    }

    #[test]
    fn without_policies_pods_of_the_node_are_enough() {
        let scope = Scope::new();
        assert_eq!(run(scope.fields(Kind::Service, Some("n"))), Some(None));
        assert_eq!(run(scope.fields(Kind::Pod, Some("n"))), None, "policies were not listed yet");
        scope.list_ended(Kind::NetworkPolicy, None);
        assert_eq!(run(scope.fields(Kind::Pod, Some("n"))), Some(OWN.map(str::to_owned)));
        assert_eq!(run(scope.outgrows(OWN)), None);
    }

    #[test]
    fn a_policy_waits_for_all_pods() {
        let scope = Scope::new();
        scope.list_ended(Kind::NetworkPolicy, None);
        assert_eq!(run(scope.admits(&Event::Synced(Kind::NetworkPolicy))), Some(()));
        assert_eq!(run(scope.admits(&policy())), None);
        assert_eq!(run(scope.outgrows(OWN)), Some(()));
        assert_eq!(run(scope.fields(Kind::Pod, Some("n"))), Some(None));
        scope.list_ended(Kind::Pod, OWN);
        assert_eq!(run(scope.admits(&policy())), None, "that was the list of the node's own");
        scope.list_ended(Kind::Pod, None);
        assert_eq!(run(scope.admits(&policy())), Some(()));
        assert_eq!(run(scope.outgrows(None)), None);
    }

    #[test]
    fn a_policy_that_is_there_first_has_all_pods_listed_at_once() {
        let scope = Scope::new();
        assert_eq!(run(scope.admits(&policy())), None);
        scope.list_ended(Kind::NetworkPolicy, None);
        assert_eq!(run(scope.fields(Kind::Pod, Some("n"))), Some(None));
    }

    #[test]
    fn pods_that_cant_be_listed_hold_no_policy_for_ever() {
        let scope = Scope { patience: Duration::from_millis(30), ..Scope::new() };
        // All of them together wait for as long as one.
        let all = async {
            for _ in 0..1000 {
                scope.admits(&policy()).await;
            }
        };
        assert_eq!(run(all), Some(()));
    }
}
