//! Looks after what was made: who looks, when, and what becomes of it. What is compared is in [`crate::repair`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fairlead_cni::Mac;
use fairlead_objects::ObjectKey;
use nix::errno::Errno;
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::engine::Input;
use crate::bpf::Sentry;
use crate::model::LocalPod;
use crate::repair::{HavePods, Kind, Looked, Step, WantPod, compare_pods, follows_the_pod, is_wired_but_for_the_mac};
use crate::state::{Shared, Subject};
use crate::wiring::{Changed, Names, Netlink, Peers, Sysctls, Uplink, overlay, svc};

/// How long the plugin may take to wire a pod whose programs are attached, if it does not hang up before.
const WIRING: Duration = Duration::from_secs(20);

/// Looks after pods and programs.
#[derive(Debug)]
pub(super) struct Caretaker {
    netlink: Netlink,
    sysctls: Sysctls,
    own: Socket,
    /// The pods that were seen, by slot. Nothing before the first look: what is there then was wired by an agent before.
    known: Option<BTreeMap<u16, Known>>,
    /// What was seen of the pods' own sides.
    peers: Peers,
    /// Interfaces of pods as of the last look.
    interfaces: BTreeSet<u32>,
    /// The look at the programs that is under way in the loop.
    programs: Option<oneshot::Receiver<Looked>>,
    /// Who closes pods that have lost their programs.
    sentry: Sentry,
}

/// A pod that was seen.
#[derive(Debug, Clone)]
struct Known {
    pod: LocalPod,
    since: Instant,
    /// Whether it has been wired once. Before, the plugin is at work on it.
    wired: bool,
    /// The MTU of its host side when it was first seen: the pod keeps the one that it began with.
    mtu: Option<u32>,
    /// The MAC address that its own side had when it was last seen.
    mac: Mac,
}

/// Something to do for a pod.
struct Due {
    pod: LocalPod,
    step: Step,
    /// Whether the pod did itself what this follows.
    follows: bool,
}

impl Caretaker {
    /// `socket` is the agent's own, by which it is found that another agent has taken over.
    pub(super) fn new(netlink: Netlink, sysctls: Sysctls, socket: &Path, sentry: Sentry) -> Self {
        let own = Socket::of(socket);
        let peers = Peers::default();
        Self { netlink, sysctls, own, known: None, peers, interfaces: BTreeSet::new(), programs: None, sentry }
    }

    /// Whether another agent has begun on this node. What it replaces must not be put back by this one.
    pub(super) fn is_succeeded(&self) -> bool {
        self.own.is_taken()
    }

    /// Where pods whose own side has changed are noted.
    pub(super) fn pods_changed(&self) -> Changed {
        self.peers.changed()
    }

    /// Looks at the wiring of the pods.
    pub(super) async fn look_at_pods(&mut self, shared: &Shared) {
        // Before the look: what a plugin has made of these is to be seen.
        let finished = std::mem::take(&mut *shared.finished_plugins());
        let looked = match self.netlink.pods(&mut self.peers).await {
            Ok(have) => self.wire(&have, &finished, shared).await,
            Err(error) => Looked::unseen(format!("the pods' interfaces: {error}")),
        };
        shared.looked(Subject::Pods, &looked);
    }

    async fn wire(&mut self, have: &HavePods, finished: &BTreeSet<(u16, ObjectKey)>, shared: &Shared) -> Looked {
        self.interfaces = have.links.keys().copied().collect();
        // Those of another plugin are that plugin's to look after.
        let own = |pod: &&LocalPod| pod.foreign.is_none();
        let local: Vec<LocalPod> = shared.model().local().values().filter(own).cloned().collect();
        let steps = self.due(&local, have, finished, Instant::now());
        let mut looked = Looked::default();
        if steps.is_empty() {
            return looked;
        }
        let own = shared.progress().network.addresses;
        for Due { pod, step, follows } in steps {
            // Slots are given again: what was seen of this one must still be its pod's.
            if shared.model().local().get(&pod.slot) != Some(&pod) {
                continue;
            }
            let Some(link) = have.links.get(&want(&pod).ifindex()) else { continue };
            let source = own.iter().copied().find(|ip| address(step).is_some_and(|to| to.is_ipv4() == ip.is_ipv4()));
            let names = Names { now: &link.name, right: &want(&pod).name() };
            let outcome = self.netlink.mend(step, names, source, &self.sysctls).await;
            let gone = [Errno::ENODEV, Errno::ESRCH].map(|errno| Some(errno as i32));
            if outcome.as_ref().is_err_and(|error| gone.contains(&error.errno())) {
                continue;
            }
            let (kind, what) = describe(step, &link.name);
            // A pod that changes its address all the time does not fill the log, nor take the place of what others undid.
            if follows && outcome.is_ok() {
                debug!(pod = %pod.key, "followed the pod: {what}");
                continue;
            }
            looked.note(kind, Some(pod.slot), format!("{what} of pod {}", pod.key), outcome);
        }
        looked
    }

    /// What has to be done for pods whose plugin is done.
    fn due(
        &mut self,
        local: &[LocalPod],
        have: &HavePods,
        finished: &BTreeSet<(u16, ObjectKey)>,
        now: Instant,
    ) -> Vec<Due> {
        let first = self.known.is_none();
        let mut known = self.known.take().unwrap_or_default();
        known.retain(|slot, known| local.iter().any(|pod| pod.slot == *slot && *pod == known.pod));
        let mut due = Vec::new();
        for pod in local {
            let link = have.links.get(&want(pod).ifindex());
            let new = || Known { pod: pod.clone(), since: now, wired: first, mtu: None, mac: want(pod).pod_mac };
            let known = known.entry(pod.slot).or_insert_with(new);
            known.mtu = known.mtu.or(link.map(|link| link.mtu));
            let steps = compare_pods(&[WantPod { mtu: known.mtu, ..want(pod) }], have);
            known.wired |= is_wired_but_for_the_mac(&steps, have) && link.is_some();
            known.wired |= finished.contains(&(pod.slot, pod.key.clone()));
            // It is down for as long as it has no programs.
            if self.sentry.is_closed(want(pod).ifindex()) {
                continue;
            }
            if known.wired || now.saturating_duration_since(known.since) >= WIRING {
                let before = known.mac;
                known.mac = link.and_then(|link| link.peer_mac).unwrap_or(before);
                let of_pod = |step| Due { pod: pod.clone(), step, follows: follows_the_pod(step, have, before) };
                due.extend(steps.into_iter().map(of_pod));
            }
        }
        self.known = Some(known);
        due
    }

    /// Whether a look at the programs is under way.
    pub(super) fn looks_at_programs(&self) -> bool {
        self.programs.is_some()
    }

    /// Asks the loop to look at the programs. Its answer comes by [`Caretaker::programs`]. False if it could not be asked.
    pub(super) async fn look_at_programs(
        &mut self,
        uplinks: &[Uplink],
        inputs: &mpsc::Sender<Input>,
        shared: &Shared,
    ) -> bool {
        let mut interfaces = self.interfaces.clone();
        interfaces.extend(uplinks.iter().map(|uplink| uplink.ifindex));
        interfaces.extend([overlay::IFINDEX, svc::IFINDEX]);
        interfaces.extend(shared.model().local().values().filter_map(|pod| pod.foreign));
        match self.netlink.filters(&interfaces).await {
            Ok(filters) => {
                let (answer, looked) = oneshot::channel();
                let is_asked = inputs.send(Input::Look(filters, answer)).await.is_ok();
                self.programs = is_asked.then_some(looked);
                is_asked
            }
            Err(error) => {
                let looked = Looked::unseen(format!("the programs at interfaces: {error}"));
                shared.looked(Subject::Programs, &looked);
                false
            }
        }
    }

    /// Waits for the loop's answer; for ever if it was not asked.
    pub(super) async fn programs(&mut self, shared: &Shared) {
        match &mut self.programs {
            Some(looked) => {
                // A stopping loop gives none.
                let looked = looked.await.unwrap_or_default();
                self.programs = None;
                shared.looked(Subject::Programs, &looked);
            }
            None => std::future::pending().await,
        }
    }
}

fn want(pod: &LocalPod) -> WantPod {
    let (host_mac, pod_mac) = (Mac(pod.host_mac), Mac(pod.pod_mac));
    WantPod { slot: pod.slot, host_mac, pod_mac, ips: pod.ips.clone(), mtu: None }
}

fn address(step: Step) -> Option<IpAddr> {
    match step {
        Step::Route(_, ip) | Step::Neighbour(_, ip, _) | Step::Unroute(_, ip) => Some(ip),
        Step::Release(_) | Step::Mtu(..) | Step::Mac(..) | Step::Set(..) | Step::Up(_) | Step::Rename(_) => None,
    }
}

fn describe(step: Step, name: &str) -> (Kind, String) {
    match step {
        Step::Release(_) => (Kind::Link, format!("the link {name} removed from another device")),
        Step::Mtu(_, mtu) => (Kind::Link, format!("the MTU {mtu} of {name}")),
        Step::Rename(_) => (Kind::Link, format!("the name of the link {name}")),
        Step::Mac(_, mac) => (Kind::Link, format!("the MAC address {mac} of {name}")),
        Step::Up(_) => (Kind::Link, format!("the link {name} (up)")),
        Step::Set(_, setting) => (Kind::Sysctl, format!("the setting {setting:?} = {} of {name}", setting.value())),
        Step::Neighbour(_, ip, mac) => (Kind::Neighbour, format!("the neighbour {ip} ({mac}) at {name}")),
        Step::Route(_, ip) => (Kind::Route, format!("the route to {ip} at {name}")),
        Step::Unroute(_, ip) => (Kind::Route, format!("a stray route to {ip} at {name}")),
    }
}

/// The agent's socket, by which one agent succeeds the other.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    inode: Option<u64>,
}

impl Socket {
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), inode: inode(path) }
    }

    pub(super) fn is_taken(&self) -> bool {
        inode(&self.path).is_some_and(|now| self.inode.is_some_and(|own| own != now))
    }
}

fn inode(path: &Path) -> Option<u64> {
    path.metadata().ok().map(|meta| meta.ino())
}
