//! What each request does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use fairlead_cni::protocol::{
    Attachment, FIRST_POD_IFINDEX, GATEWAY_V4, GATEWAY_V6, HOST_LINK_PREFIX, PodAddress, PodRef, Reservation, Wanted,
    is_host_link, is_of_network,
};
use fairlead_cni::{queue, ready};
use fairlead_objects::ObjectKey;
use futures::future::join_all;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep, timeout};

use super::pool::QUARANTINE;
use super::{
    AttachError, AttachedPod, CniError, Entry, Health, Journal, KnownPod, Ledger, NodeNetwork, PodNetwork, Record,
};
use crate::wiring::{PodLink, PodLinks, WiringError};

/// How long an ADD waits for the agent to be ready, and how long for the pod's policy.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the first step of an ADD may wait in all for what others have to do: the plugin waits 30 seconds for both, and what is
/// wrong then is better said than that nobody answered.
const RESERVE_PATIENCE: Duration = Duration::from_secs(16);
/// How long a DEL waits for the datapath: the plugin waits seven seconds for the answer.
const DETACH_PATIENCE: Duration = Duration::from_secs(5);
/// How long an ADD waits for the Pod object. The kubelet has seen it, so it is on its way here.
const OBJECT_PATIENCE: Duration = Duration::from_secs(1);
/// How long an ADD waits for the deletion of whoever has the addresses that it is to have.
const DEPARTURE_PATIENCE: Duration = Duration::from_secs(3);
/// How often it looks.
const POLL: Duration = Duration::from_millis(10);

/// Serves requests. One at a time for a container, any number for different ones.
#[derive(Debug)]
pub(crate) struct Service<N> {
    pub(crate) network: Arc<N>,
    links: PodLinks,
    socket: PathBuf,
    state: Mutex<State>,
    containers: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    started: std::time::Instant,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    journal: Journal,
    /// Host sides that no entry explains, by name: the journal was lost, the pods may well be running. What they have
    /// is not given to others.
    held: BTreeMap<String, PodLink>,
    /// Who had addresses that were given back.
    last: BTreeMap<IpAddr, ObjectKey>,
}

impl State {
    fn commit(&mut self, record: Record, now: Duration) -> Result<(), CniError> {
        self.journal.commit(&mut self.ledger, record, now)
    }

    /// Whether a pod has to wait for an address: that of another rests, whoever asks for it by name.
    fn rests(&self, ip: IpAddr, own: &ObjectKey, now: Duration) -> bool {
        self.ledger.rests(ip, now) && self.last.get(&ip) != Some(own)
    }
}

impl<N: PodNetwork> Service<N> {
    pub(crate) fn new(
        network: Arc<N>,
        links: PodLinks,
        socket: &Path,
        (journal, ledger): (Journal, Ledger),
        existing: Vec<PodLink>,
    ) -> Self {
        let mut state = State { ledger, journal, held: BTreeMap::new(), last: BTreeMap::new() };
        let known: BTreeSet<String> = state.ledger.entries().map(|(attachment, _)| attachment.host_link()).collect();
        let slots: BTreeSet<u16> = state.ledger.entries().map(|(_, entry)| entry.slot).collect();
        let is_known = |link: &PodLink| {
            let renamed = !link.name.starts_with(HOST_LINK_PREFIX) && slots.contains(&link.slot);
            known.contains(&link.name) || renamed
        };
        for link in existing.into_iter().filter(|link| !is_known(link)) {
            tracing::warn!(link = link.name, slot = link.slot, "this link is not in the CNI journal: leaving it alone");
            state.ledger.hold(link.slot, &link.ips);
            state.held.insert(link.name.clone(), link);
        }
        Self {
            network,
            links,
            socket: socket.to_owned(),
            state: Mutex::new(state),
            containers: Mutex::default(),
            started: std::time::Instant::now(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The right to change what a container has.
    pub(crate) async fn container(&self, id: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut containers = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
            containers.retain(|_, lock| lock.strong_count() > 0);
            let lock = containers.get(id).and_then(Weak::upgrade).unwrap_or_default();
            containers.insert(id.to_owned(), Arc::downgrade(&lock));
            lock
        };
        lock.lock_owned().await
    }

    /// Every pod whose policy was in force, from the journal.
    pub(crate) fn attached(&self) -> Vec<AttachedPod> {
        let state = self.state();
        state.ledger.entries().filter(|(_, entry)| entry.attached).map(|(a, entry)| entry.to_pod(a)).collect()
    }

    /// ADD, first step.
    pub(crate) async fn reserve(
        &self,
        attachment: &Attachment,
        pod: PodRef,
        (netns, netns_inode): (String, u64),
        network: String,
        asked: Wanted,
    ) -> Result<Reservation, CniError> {
        let end = Instant::now() + RESERVE_PATIENCE;
        if self.is_leaving(attachment) {
            self.release(attachment).await?;
        }
        let node = self.ready_node(end - DEPARTURE_PATIENCE - OBJECT_PATIENCE).await?;
        let key = ObjectKey::new(&pod.namespace, &pod.name);
        let carried = self.known_pod(&key, pod.uid.as_deref()).await.map(|known| known.ips).unwrap_or_default();
        let to_have: Vec<IpAddr> = asked.ips.iter().chain(&carried).copied().collect();
        self.wait_for_departure(attachment, &to_have, end).await?;
        let others: Vec<IpAddr> = asked.ips.iter().copied().filter(|ip| !carried.contains(ip)).collect();
        self.wait_for_rest(&key, &others, end).await;

        let mut state = self.state();
        if state.ledger.get(attachment).is_some() {
            return Err(CniError::AlreadyAdded(attachment.clone()));
        }
        if !state.ledger.has_ranges(&node.pod_cidrs) {
            state.commit(Record::Ranges { cidrs: node.pod_cidrs.clone() }, self.now())?;
            let held: Vec<PodLink> = state.held.values().cloned().collect();
            held.iter().for_each(|link| state.ledger.hold(link.slot, &link.ips));
        }
        let foreign = |ip| self.network.owner(ip).is_some_and(|owner| owner != key);
        // What the object carries is its first interface's.
        let is_first = !state.ledger.entries().any(|(other, _)| other.container_id == attachment.container_id);
        let carried = if is_first { carried } else { Vec::new() };
        let Wanted { ips: asked, mac } = asked;
        let wanted: Vec<IpAddr> = asked.iter().chain(&carried).copied().collect();
        let (slot, ips) = state.ledger.choose(self.now(), &wanted, foreign)?;
        let rests = |ip| others.contains(&ip) && state.rests(ip, &key, self.now());
        if let Some(ip) = asked.iter().copied().find(|ip| !ips.contains(ip) || foreign(*ip) || rests(*ip)) {
            let is_of_node = node.pod_cidrs.iter().any(|range| range.contains(ip));
            let ranges = node.pod_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(if is_of_node { CniError::Taken(ip) } else { CniError::NotOfNode { ip, ranges } });
        }
        if asked.is_empty() && !carried.is_empty() && !ips.iter().all(|ip| carried.contains(ip)) {
            tracing::warn!(pod = %key, ?carried, ?ips, "the addresses in the pod's status are taken or not this \
                node's");
        }
        let entry = Entry { slot, ips, pod, netns, netns_inode, attached: false, network, mac };
        let reservation = reservation(attachment, &entry, &node);
        state.commit(Record::Reserved { attachment: attachment.clone(), entry }, self.now())?;
        Ok(reservation)
    }

    /// Waits, for a while, until nobody whose DEL was answered has one of these addresses: a new container of a pod is to have
    /// those of the one before.
    async fn wait_for_departure(&self, own: &Attachment, ips: &[IpAddr], end: Instant) -> Result<(), CniError> {
        let end = end.min(Instant::now() + DEPARTURE_PATIENCE);
        loop {
            let leaving: Vec<Attachment> = {
                let state = self.state();
                let has = |entry: &Entry| entry.ips.iter().any(|ip| ips.contains(ip));
                let holders = state.ledger.entries().filter(|(holder, entry)| *holder != own && has(entry));
                holders.map(|(holder, _)| holder.clone()).collect()
            };
            let leaving = leaving.into_iter().filter(|holder| self.is_leaving(holder));
            // What is of this container nobody else may do meanwhile.
            let (own, others): (Vec<_>, Vec<_>) = leaving.partition(|holder| holder.container_id == own.container_id);
            for holder in &own {
                self.release(holder).await?;
            }
            if others.is_empty() || Instant::now() >= end {
                return Ok(());
            }
            sleep(POLL).await;
        }
    }

    /// Waits until those of these addresses have rested that another pod had: they were asked for, which is no reason to get what
    /// is meant for that pod.
    async fn wait_for_rest(&self, own: &ObjectKey, ips: &[IpAddr], end: Instant) {
        let end = end.min(Instant::now() + QUARANTINE + POLL);
        while ips.iter().any(|ip| self.state().rests(*ip, own, self.now())) && Instant::now() < end {
            sleep(POLL).await;
        }
    }

    /// ADD, second step.
    pub(crate) async fn attach(&self, attachment: &Attachment) -> Result<(), CniError> {
        let pod = self.pod(attachment).ok_or_else(|| CniError::Unknown(attachment.clone()))?;
        timeout(PATIENCE, self.network.attach(pod))
            .await
            .map_err(|_| CniError::AttachTimeout(PATIENCE.as_secs()))??;
        self.state().commit(Record::Attached { attachment: attachment.clone() }, self.now())
    }

    /// The plugin of an ADD has hung up.
    pub(crate) fn finished(&self, attachment: &Attachment) {
        if let Some(pod) = self.pod(attachment) {
            self.network.finished(pod.slot, pod.key);
        }
    }

    /// Whether its deletion is queued.
    pub(crate) fn is_leaving(&self, attachment: &Attachment) -> bool {
        queue::holds(&queue::directory(&self.socket), attachment)
    }

    /// DEL: closes the pod, and answers then. To remove a device takes grace periods, so the rest goes on behind the answer. It
    /// is queued before that, so that an agent that is killed meanwhile leaves it to the next one, and address and slot are
    /// not given to others before it is done.
    pub(crate) async fn release_soon(self: &Arc<Self>, attachment: &Attachment) -> Result<(), CniError> {
        let is_attached = self.state().ledger.get(attachment).is_some_and(|entry| entry.attached);
        let pod = self.pod(attachment).filter(|_| is_attached);
        // What is half made goes at once: who made it tries again in the same namespace.
        let Some(pod) = pod else { return self.release(attachment).await };
        if let Err(error) = queue::push(&queue::directory(&self.socket), attachment) {
            tracing::warn!(link = pod.host_link, %error, "can't queue a deletion: doing all of it before the answer");
            return self.release(attachment).await;
        }
        let key = pod.key.clone();
        let name = attachment.host_link();
        if !timeout(DETACH_PATIENCE, self.network.close(pod)).await.is_ok_and(|closed| closed) {
            tracing::warn!(pod = %key, "the datapath did not close a pod in time: deleting its link before the answer");
            if let Err(error) = self.delete_link_of(attachment).await {
                tracing::warn!(link = name, %error, "can't delete a pod's link: retrying");
            }
        }
        let (service, attachment) = (Arc::clone(self), attachment.clone());
        tokio::spawn(async move {
            let _turn = service.container(&attachment.container_id).await;
            // An ADD of the same attachment may have done it, and what is there now is its own.
            if service.is_leaving(&attachment)
                && let Err(error) = service.release(&attachment).await
            {
                tracing::warn!(?attachment, %error, "can't finish a deletion: retrying later");
            }
        });
        Ok(())
    }

    /// All of a deletion. Nothing to release is fine. Where the link can't be deleted now, the deletion stays queued.
    pub(crate) async fn release(&self, attachment: &Attachment) -> Result<(), CniError> {
        if let Some(pod) = self.pod(attachment) {
            self.detach(pod).await;
        }
        let directory = queue::directory(&self.socket);
        let name = attachment.host_link();
        if let Err(error) = self.delete_link_of(attachment).await {
            tracing::warn!(link = name, %error, "can't delete a pod's link: retrying later");
            return queue::push(&directory, attachment).map_err(|source| CniError::Journal {
                what: "queue a deletion beside",
                path: directory,
                source,
            });
        }
        {
            let (mut state, now) = (self.state(), self.now());
            if let Some(entry) = state.ledger.get(attachment) {
                let key = ObjectKey::new(&entry.pod.namespace, &entry.pod.name);
                let had: Vec<_> = entry.ips.iter().map(|ip| (*ip, key.clone())).collect();
                state.commit(Record::Released { attachment: attachment.clone() }, now)?;
                let State { ledger, last, .. } = &mut *state;
                last.retain(|ip, _| ledger.rests(*ip, now));
                last.extend(had);
            }
            if let Some(link) = state.held.remove(&name) {
                state.ledger.unhold(link.slot, &link.ips, now);
            }
        }
        if let Err(error) = queue::remove(&directory, attachment) {
            tracing::warn!(link = name, %error, "can't remove a deletion from the queue: it will run again");
        }
        Ok(())
    }

    /// CHECK
    pub(crate) fn check(&self, attachment: &Attachment) -> Result<Reservation, CniError> {
        match self.network.health() {
            Health::Impaired(why) => return Err(CniError::Impaired(why)),
            Health::Ready | Health::Starting(_) => {}
        }
        let node = self.network.node().ok_or_else(|| CniError::NotReady("its Node object is unknown".to_owned()))?;
        let state = self.state();
        let entry = state.ledger.get(attachment).filter(|entry| entry.attached && !self.is_leaving(attachment));
        let entry = entry.ok_or_else(|| CniError::Unknown(attachment.clone()))?;
        match self.network.trouble(entry.slot) {
            Some(trouble) => Err(CniError::Differs(trouble)),
            None => Ok(reservation(attachment, entry, &node)),
        }
    }

    /// STATUS
    pub(crate) fn status(&self) -> Result<(), CniError> {
        match self.network.health() {
            Health::Ready => Ok(()),
            Health::Starting(_) if ready::was_ready(&self.socket) => Ok(()),
            Health::Starting(why) => Err(CniError::NotAvailable(why)),
            Health::Impaired(why) => Err(CniError::Impaired(why)),
        }
    }

    /// GC: releases what is of this network and not to be kept, goes on after an error, and says the first. What other
    /// networks have is in none of its lists.
    pub(crate) async fn gc(&self, network: &str, keep: &[Attachment]) -> Result<(), CniError> {
        let stale: Vec<(Attachment, AttachedPod)> = {
            let state = self.state();
            let of_network = state.ledger.entries().filter(|(_, entry)| entry.network == network);
            let stale = of_network.filter(|(attachment, _)| !keep.contains(attachment));
            stale.map(|(attachment, entry)| (attachment.clone(), entry.to_pod(attachment))).collect()
        };
        let released = join_all(stale.iter().map(async |(attachment, pod)| {
            let _turn = self.container(&attachment.container_id).await;
            // Whoever was added while this one waited is none that the runtime had to keep.
            if self.pod(attachment).as_ref() == Some(pod) { self.release(attachment).await } else { Ok(()) }
        }))
        .await;
        let names: BTreeSet<String> = keep.iter().map(Attachment::host_link).collect();
        let stale = |link: &PodLink| is_of_network(link.alias.as_deref(), network) && !names.contains(&link.name);
        let strangers: Vec<PodLink> = self.state().held.values().filter(|link| stale(link)).cloned().collect();
        let deleted = join_all(strangers.iter().map(async |link| {
            self.delete_link(&link.name).await?;
            let (mut state, now) = (self.state(), self.now());
            if state.held.remove(&link.name).is_some() {
                state.ledger.unhold(link.slot, &link.ips, now);
            }
            Ok(())
        }))
        .await;
        released.into_iter().chain(deleted).collect()
    }

    /// Releases pods whose links vanished with their namespaces, and reservations that no plugin works on any more.
    pub(crate) async fn release_vanished(&self) -> Result<(), CniError> {
        // In this order: what was attached before the links were listed has its link in the list or has lost it.
        let attached = self.attached();
        // By index: a link that somebody has renamed is not gone.
        let links: BTreeSet<u16> = self.links.list().await?.into_iter().map(|link| link.slot).collect();
        for pod in attached.into_iter().filter(|pod| !links.contains(&pod.slot)) {
            let attachment = Attachment { container_id: pod.container_id.clone(), ifname: pod.ifname.clone() };
            let _turn = self.container(&attachment.container_id).await;
            // Its deletion may have been on its way, and another pod may have been attached since.
            if self.pod(&attachment).as_ref() != Some(&pod) {
                continue;
            }
            tracing::info!(pod = %pod.key, link = pod.host_link, "the link is gone: releasing the pod's addresses");
            self.release(&attachment).await?;
        }
        Ok(())
    }

    /// What is reserved and not attached. At start, before anybody is served, no plugin works on it: its connection went with
    /// the agent before.
    pub(crate) fn unfinished(&self) -> Vec<(Attachment, Entry)> {
        let state = self.state();
        let unfinished = state.ledger.entries().filter(|(_, entry)| !entry.attached);
        unfinished.map(|(attachment, entry)| (attachment.clone(), entry.clone())).collect()
    }

    /// Takes back what was unfinished at start.
    pub(crate) async fn release_unfinished(&self, unfinished: Vec<(Attachment, Entry)>) {
        for (attachment, entry) in unfinished {
            let _turn = self.container(&attachment.container_id).await;
            // It may have been released meanwhile, and what is there now is of an ADD that has come since.
            if self.state().ledger.get(&attachment) != Some(&entry) {
                continue;
            }
            if let Err(error) = self.release(&attachment).await {
                tracing::warn!(?attachment, %error, "can't release an unfinished reservation");
            }
        }
    }

    /// Keeps what the next agent has to know on disk, whoever removes it.
    pub(crate) fn keep_journal(&self) {
        let mut state = self.state();
        let State { ledger, journal, .. } = &mut *state;
        match journal.keep(ledger) {
            Ok(true) => tracing::warn!("the CNI journal had been removed: wrote it again"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the CNI journal had been removed, and can't be written again"),
        }
    }

    /// Does the deletions that were queued while the agent was away.
    pub(crate) async fn replay_queue(&self) {
        let directory = queue::directory(&self.socket);
        let queued = queue::list(&directory).unwrap_or_else(|error| {
            tracing::warn!(directory = %directory.display(), %error, "can't read the queue of deletions");
            Vec::new()
        });
        join_all(queued.into_iter().map(async |queued| match queued {
            Ok(attachment) => {
                let _turn = self.container(&attachment.container_id).await;
                // An ADD of the same attachment may have done it meanwhile, and what is there now is its own.
                if self.is_leaving(&attachment)
                    && let Err(error) = self.release(&attachment).await
                {
                    tracing::warn!(?attachment, %error, "can't carry out a queued deletion: retrying later");
                }
            }
            Err(path) => tracing::warn!(path = %path.display(), "can't read a queued deletion; delete the file"),
        }))
        .await;
    }

    /// Removes the links of pods that an agent before has closed and has not lived to remove. Their DEL was answered, so this
    /// waits for nothing; the rest is done with the queue.
    pub(crate) async fn remove_left_links(&self) {
        let queued = queue::list(&queue::directory(&self.socket)).unwrap_or_default();
        join_all(queued.into_iter().flatten().map(async |attachment| {
            let _turn = self.container(&attachment.container_id).await;
            let name = attachment.host_link();
            if self.is_leaving(&attachment)
                && let Err(error) = self.delete_link_of(&attachment).await
            {
                tracing::warn!(link = name, %error, "can't delete the link of a pod that is gone: retrying later");
            }
        }))
        .await;
    }

    /// Attaches a pod of an earlier agent again, and gives it back when that fails.
    pub(crate) async fn attach_again(&self, pod: AttachedPod) -> Option<AttachedPod> {
        let attachment = Attachment { container_id: pod.container_id.clone(), ifname: pod.ifname.clone() };
        let _turn = self.container(&pod.container_id).await;
        if self.pod(&attachment).as_ref() != Some(&pod) || self.is_leaving(&attachment) {
            return None;
        }
        let error = self.network.attach(pod.clone()).await.err()?;
        tracing::error!(pod = %pod.key, %error, "can't reattach a pod: its pinned programs stay until the next attempt");
        Some(pod)
    }

    fn pod(&self, attachment: &Attachment) -> Option<AttachedPod> {
        self.state().ledger.get(attachment).map(|entry| entry.to_pod(attachment))
    }

    async fn detach(&self, pod: AttachedPod) {
        let key = pod.key.clone();
        if timeout(DETACH_PATIENCE, self.network.detach(pod)).await.is_err() {
            tracing::warn!(pod = %key, "the datapath did not detach from a pod in time: deleting its link anyway");
        }
    }

    /// Deletes a pod's link by the name that it has now.
    async fn delete_link_of(&self, attachment: &Attachment) -> Result<(), WiringError> {
        let name = attachment.host_link();
        let now = self.pod(attachment).and_then(|pod| nix::net::if_::if_indextoname(pod.ifindex).ok());
        let renamed = now.and_then(|now| now.into_string().ok()).filter(|now| !is_host_link(now));
        if let Some(renamed) = renamed {
            self.links.delete(&renamed).await?;
        }
        self.delete_link(&name).await
    }

    /// Only when a link is gone its programs may go: before, its packets would pass unfiltered.
    async fn delete_link(&self, name: &str) -> Result<(), WiringError> {
        self.links.delete(name).await?;
        self.network.deleted(name);
        Ok(())
    }

    async fn ready_node(&self, end: Instant) -> Result<NodeNetwork, CniError> {
        let deadline = end.min(Instant::now() + PATIENCE);
        loop {
            let missing = match self.network.health() {
                Health::Impaired(why) => return Err(AttachError(why).into()),
                Health::Starting(why) => CniError::NotReady(why),
                Health::Ready => match self.network.node() {
                    None => CniError::NotReady("its Node object is unknown".to_owned()),
                    Some(node) if node.pod_cidrs.is_empty() => CniError::NoRanges,
                    Some(node) => return Ok(node),
                },
            };
            if Instant::now() >= deadline {
                return Err(missing);
            }
            sleep(POLL).await;
        }
    }

    /// The pod's object. With another uid it is the object of an earlier pod of that name.
    async fn known_pod(&self, key: &ObjectKey, uid: Option<&str>) -> Option<KnownPod> {
        let deadline = Instant::now() + OBJECT_PATIENCE;
        loop {
            let same = |known: &KnownPod| known.uid.is_empty() || uid.is_none_or(|uid| uid == known.uid);
            if let Some(known) = self.network.pod(key).filter(same) {
                return Some(known);
            }
            if Instant::now() >= deadline {
                return None;
            }
            sleep(POLL).await;
        }
    }
}

fn reservation(attachment: &Attachment, entry: &Entry, node: &NodeNetwork) -> Reservation {
    let address = |ip: &IpAddr| PodAddress {
        ip: *ip,
        gateway: if ip.is_ipv4() { GATEWAY_V4.into() } else { GATEWAY_V6.into() },
        host_source: node.addresses.iter().copied().find(|own| own.is_ipv4() == ip.is_ipv4()),
    };
    Reservation {
        slot: entry.slot,
        ifindex: FIRST_POD_IFINDEX + u32::from(entry.slot),
        host_link: attachment.host_link(),
        host_mac: attachment.host_mac(),
        pod_mac: entry.pod_mac(attachment),
        mtu: node.mtu,
        addresses: entry.ips.iter().map(address).collect(),
    }
}
