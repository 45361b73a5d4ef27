//! The CNI server's view of the agent.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_objects::ObjectKey;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::engine::Input;
use crate::bpf::{PinDir, PodFilters};
use crate::cni::{AttachError, AttachedPod, Health, KnownPod, NodeNetwork, PodNetwork};
use crate::state::Shared;

/// Asks the loop and reads what it shares.
#[derive(Debug)]
pub(super) struct Pods {
    pub(super) shared: Arc<Shared>,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) pins: PinDir,
    pub(super) filters: PodFilters,
}

impl Pods {
    /// Attaches the programs of a new pod as filters, and says when that began. Beside the loop: the kernel may be busy with
    /// other devices. Where that fails the loop attaches them, and finds out why.
    async fn filter(&self, pod: &AttachedPod) -> Option<Instant> {
        // A pod of an agent before has its links.
        if self.shared.model().local().contains_key(&pod.slot) {
            return None;
        }
        let (filters, ifindex) = (self.filters.clone(), pod.ifindex);
        let attach = move || {
            let since = Instant::now();
            filters.attach(ifindex).map(|()| since)
        };
        let attached = tokio::task::spawn_blocking(attach).await;
        let attached = attached.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        attached.inspect_err(|error| debug!(pod = %pod.key, %error, "can't attach filters for a new pod")).ok()
    }
}

impl PodNetwork for Pods {
    fn health(&self) -> Health {
        // Whoever asks has a configuration that is left from before.
        if !self.shared.model().rules().parts.wires() {
            return Health::Impaired(
                "this agent runs beside the network of another plugin (the setting `parts`): remove Fairlead's CNI \
                 configuration, 10-fairlead.conflist"
                    .to_owned(),
            );
        }
        self.shared.health()
    }

    fn node(&self) -> Option<NodeNetwork> {
        self.shared.node()
    }

    fn pod(&self, key: &ObjectKey) -> Option<KnownPod> {
        self.shared.pod(key)
    }

    fn owner(&self, ip: IpAddr) -> Option<ObjectKey> {
        self.shared.owner(ip)
    }

    async fn attach(&self, pod: AttachedPod) -> Result<(), AttachError> {
        let stopping = || AttachError("the agent is stopping: try again when it has restarted".to_owned());
        let filtered = self.filter(&pod).await;
        let (answer, done) = oneshot::channel();
        self.inputs.send(Input::Attach(pod, filtered, answer)).await.map_err(|_| stopping())?;
        done.await.map_err(|_| stopping())?
    }

    fn trouble(&self, slot: u16) -> Option<String> {
        let broken = self.shared.repairs.all_broken();
        broken.into_iter().find(|broken| broken.slot == Some(slot)).map(|broken| broken.what)
    }

    fn answered(&self, verb: &'static str, ok: bool, took: Duration) {
        self.shared.metrics.cni(verb, ok, took);
    }

    fn finished(&self, slot: u16, key: ObjectKey) {
        self.shared.finished_plugins().insert((slot, key));
        self.shared.look.notify_one();
    }

    async fn close(&self, pod: AttachedPod) -> bool {
        let (answer, done) = oneshot::channel();
        // A stopping agent closes nothing.
        self.inputs.send(Input::Close(pod, answer)).await.is_ok() && done.await.is_ok()
    }

    async fn detach(&self, pod: AttachedPod) {
        detach(&self.inputs, pod).await;
    }

    fn deleted(&self, host_link: &str) {
        if let Err(error) = self.pins.remove_packet_links(host_link) {
            warn!(link = host_link, %error, "can't unpin the links of a deleted interface: retrying at the next sweep");
        }
    }
}

/// Has the loop take a pod out. Whoever waits may give up; the loop is told all the same once it has room, or it would keep the
/// pod.
async fn detach(inputs: &mpsc::Sender<Input>, pod: AttachedPod) {
    let (answer, done) = oneshot::channel();
    let inputs = inputs.clone();
    let told = tokio::spawn(async move { inputs.send(Input::Detach(pod, answer)).await.is_ok() });
    if told.await.unwrap_or(false) {
        // A stopping agent has nothing left to wait for: its successor finds the link gone.
        let _stopped = done.await;
    }
}

#[cfg(test)]
mod tests {
    use fairlead_cni::Mac;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_loop_that_was_busy_for_too_long_takes_the_pod_out_later() {
        let pod = AttachedPod {
            slot: 5,
            ifindex: 1_000_005,
            host_link: "fl0000000005".to_owned(),
            key: ObjectKey::new("default", "pod"),
            uid: None,
            container_id: "c1".to_owned(),
            ifname: "eth0".to_owned(),
            ips: vec!["10.244.1.5".parse().unwrap()],
            host_mac: Mac([10, 0, 0, 0, 0, 5]),
            pod_mac: Mac([2, 0, 0, 0, 0, 5]),
            netns: "/run/netns/pod".to_owned(),
            netns_inode: 1,
        };
        let (inputs, mut received) = mpsc::channel(1);
        inputs.send(Input::Told).await.unwrap();
        assert!(timeout(Duration::from_millis(20), detach(&inputs, pod.clone())).await.is_err());
        assert!(matches!(received.recv().await, Some(Input::Told)));
        let Ok(Some(Input::Detach(taken, _))) = timeout(Duration::from_secs(5), received.recv()).await else {
            panic!("the loop was not told");
        };
        assert_eq!(taken, pod);
    }
}
