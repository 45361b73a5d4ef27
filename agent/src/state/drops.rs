//! Dropped packets: the last ones, from the programs' ring buffer, and counts by reason, of the node and of each pod.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{Map, MapData, RingBuf};
use fairlead_datapath::WirePort;
use fairlead_datapath::catalog::TableId;
use fairlead_datapath::drop::{DropEvent, DropReason, PodDrops};
use fairlead_datapath::errors::Receiver;
use fairlead_datapath::slot_of;
use fairlead_objects::ObjectKey;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tracing::warn;
use zerocopy::FromBytes;

use super::Shared;
use crate::bpf::{BpfError, Tables};

/// Drops that are kept to be shown.
const KEPT: usize = 256;

/// What was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DropsView {
    /// Counts since the node's start; reasons that never occurred are left out.
    pub counts: Vec<DropCount>,
    /// The same of each pod of this node, since it came.
    #[serde(default)]
    pub pods: Vec<PodDropsView>,
    /// The last that were seen: samples, when there are many.
    pub recent: Vec<DropView>,
}

/// How often one reason occurred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// The reason's word.
    pub reason: String,
    /// What it means.
    pub meaning: String,
    /// Packets.
    pub packets: u64,
}

/// How often each reason occurred to one pod: to what it sent, or, of what was for it, what its own policy denied and what was
/// dropped before it reached the pod's interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodDropsView {
    /// `namespace/name`.
    pub pod: String,
    /// Packets by reason; reasons that never occurred are left out.
    pub counts: Vec<PodDropCount>,
}

/// How often one reason occurred to one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodDropCount {
    /// The reason's word.
    pub reason: String,
    /// Packets.
    pub packets: u64,
}

/// A dropped packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropView {
    /// Nanoseconds since boot.
    pub time: u64,
    /// The reason's word.
    pub reason: String,
    /// The IP protocol number.
    pub protocol: u8,
    /// Source, as the packet had it when it was dropped.
    pub source: SocketAddr,
    /// Destination, as the packet had it when it was dropped.
    pub destination: SocketAddr,
    /// The interface.
    pub ifindex: u32,
    /// The pod whose interface it is, as `namespace/name`.
    pub pod: Option<String>,
}

/// What was dropped lately.
#[derive(Debug)]
pub struct DropLog {
    recent: Mutex<VecDeque<DropView>>,
    followers: broadcast::Sender<DropView>,
}

impl Default for DropLog {
    fn default() -> Self {
        Self { recent: Mutex::default(), followers: broadcast::Sender::new(KEPT) }
    }
}

impl DropLog {
    /// Hears of every drop from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<DropView> {
        self.followers.subscribe()
    }

    /// Counts and the last drops.
    #[must_use]
    pub fn view(&self, tables: &Tables, shared: &Shared) -> DropsView {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        let pods = pod_counts(tables, shared);
        let view = |(key, counts): (ObjectKey, Vec<(DropReason, u64)>)| PodDropsView {
            pod: key.to_string(),
            counts: counts
                .into_iter()
                .map(|(reason, packets)| PodDropCount { reason: reason.as_str().to_owned(), packets })
                .collect(),
        };
        DropsView { counts: self.counts(tables), pods: pods.into_iter().map(view).collect(), recent }
    }

    /// Counts by reason, those that are not zero.
    #[must_use]
    pub fn counts(&self, tables: &Tables) -> Vec<DropCount> {
        let count = |reason: &DropReason| {
            let values = tables.map(TableId::Drops).and_then(|map| map.get(&(*reason as u32).to_ne_bytes()));
            let values = values.inspect_err(|error| warn!(%error, "can't read the drop counters")).ok()??;
            let packets = <[u64]>::ref_from_bytes(&values).ok()?.iter().sum();
            Some(DropCount { reason: reason.as_str().to_owned(), meaning: reason.meaning().trim().to_owned(), packets })
        };
        DropReason::ALL.iter().filter_map(count).filter(|count| count.packets > 0).collect()
    }

    fn add(&self, view: DropView) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        keep(&mut recent, view.clone());
        drop(recent);
        // Nobody follows: that is the rule.
        let _unheard = self.followers.send(view);
    }

    /// Opens the ring buffer and reads it, in a thread of its own that lives as long as the process.
    ///
    /// # Errors
    /// There is no ring buffer.
    pub(crate) fn start(self: &Arc<Self>, tables: &Tables, shared: Arc<Shared>) -> Result<(), BpfError> {
        let events = tables.map(TableId::DropEvents)?;
        let failed = |error: &dyn std::error::Error| BpfError::Map {
            what: "reading",
            map: events.name().to_owned(),
            source: std::io::Error::other(error.to_string()),
            remedy: "",
        };
        let fd = events.as_fd().try_clone_to_owned().map_err(|e| failed(&e))?;
        let data = MapData::from_fd(fd).map_err(|e| failed(&e))?;
        let ring = RingBuf::try_from(Map::RingBuf(data)).map_err(|e| failed(&e))?;
        let log = Arc::clone(self);
        std::thread::Builder::new()
            .name("drops".to_owned())
            .spawn(move || log.read(ring, &shared))
            .map_err(|e| failed(&e))?;
        Ok(())
    }

    fn read(&self, mut ring: RingBuf<MapData>, shared: &Shared) {
        loop {
            while let Some(item) = ring.next() {
                if let Ok((event, _)) = DropEvent::read_from_prefix(&item) {
                    self.add(view(&event, shared));
                }
            }
            let mut ready = [PollFd::new(ring.as_fd(), PollFlags::POLLIN)];
            if let Err(errno) = poll(&mut ready, PollTimeout::NONE)
                && errno != Errno::EINTR
            {
                warn!(%errno, "can't poll the ring buffer of drops: drops are counted but not reported");
                return;
            }
        }
    }
}

/// Adds a drop. The oldest of the interface that has most goes for it: one where packets are dropped all the time leaves those of
/// others to be seen.
fn keep(recent: &mut VecDeque<DropView>, view: DropView) {
    if recent.len() == KEPT {
        let mut counts = BTreeMap::<u32, usize>::new();
        recent.iter().for_each(|drop| *counts.entry(drop.ifindex).or_default() += 1);
        let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(ifindex, _)| ifindex);
        if let Some(oldest) = recent.iter().position(|drop| Some(drop.ifindex) == most) {
            recent.remove(oldest);
        }
    }
    recent.push_back(view);
}

/// Counts of each pod of this node of which any packet was dropped, by reason; those that are zero are left out. Bounded by
/// the pods that are attached and the reasons that there are.
#[must_use]
pub fn pod_counts(tables: &Tables, shared: &Shared) -> Vec<(ObjectKey, Vec<(DropReason, u64)>)> {
    let pods: Vec<_> = shared.model().local().values().map(|pod| (pod.slot, pod.key.clone())).collect();
    let counts = pods.into_iter().map(|(slot, key)| (key, counts_of(tables, slot)));
    counts.filter(|(_, counts)| !counts.is_empty()).collect()
}

/// Counts of the pod in a slot, those that are not zero.
#[must_use]
pub fn counts_of(tables: &Tables, slot: u16) -> Vec<(DropReason, u64)> {
    let value = tables.map(TableId::DropsOfPods).and_then(|map| map.get(&u32::from(slot).to_ne_bytes()));
    let value = value.inspect_err(|error| warn!(%error, "can't read the drop counters of a pod")).ok().flatten();
    let Some(drops) = value.and_then(|bytes| PodDrops::read_from_bytes(&bytes).ok()) else { return Vec::new() };
    let count = |reason: &DropReason| Some((*reason, drops.packets.get(*reason as usize)?.load()));
    DropReason::ALL.iter().filter_map(count).filter(|(_, packets)| *packets > 0).collect()
}

/// Packets that XDP has sent on, on all CPUs.
#[must_use]
pub fn packets_by_xdp(tables: &Tables) -> Option<u64> {
    let values = tables.map(TableId::PacketsByXdp).and_then(|map| map.get(&0_u32.to_ne_bytes()));
    let values = values.inspect_err(|error| warn!(%error, "can't read the counter of packets by XDP")).ok()??;
    Some(<[u64]>::ref_from_bytes(&values).ok()?.iter().sum())
}

/// Errors that were not sent since there were too many, on all CPUs, by who would have got them.
#[must_use]
pub fn errors_unsent(tables: &Tables) -> Vec<(Receiver, u64)> {
    let count = |to: Receiver| {
        let values = tables.map(TableId::ErrorsUnsent).and_then(|map| map.get(&(to as u32).to_ne_bytes()));
        let values = values.inspect_err(|error| warn!(%error, "can't read the counters of errors that were not sent"));
        Some((to, <[u64]>::ref_from_bytes(&values.ok()??).ok()?.iter().sum()))
    };
    Receiver::ALL.into_iter().filter_map(count).collect()
}

fn view(event: &DropEvent, shared: &Shared) -> DropView {
    let end = |addr, port: WirePort| SocketAddr::new(IpAddr::from(addr), port.number());
    let pod = slot_of(event.ifindex).and_then(|slot| Some(shared.model().local().get(&slot)?.key.to_string()));
    DropView {
        time: event.time,
        reason: DropReason::from_number(event.reason).map_or("unknown", DropReason::as_str).to_owned(),
        protocol: event.proto,
        source: end(event.src, event.sport),
        destination: end(event.dst, event.dport),
        ifindex: event.ifindex,
        pod,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_at_one_interface_leave_those_of_others_to_be_seen() {
        let end = SocketAddr::from(([10, 244, 1, 2], 80));
        let drop = |ifindex, time| DropView {
            time,
            reason: "ingress_policy".to_owned(),
            protocol: 17,
            source: end,
            destination: end,
            ifindex,
            pod: None,
        };
        let mut recent = VecDeque::new();
        (0..3).for_each(|time| keep(&mut recent, drop(8, time)));
        (3..2000).for_each(|time| keep(&mut recent, drop(7, time)));
        keep(&mut recent, drop(9, 2000));
        let times = |ifindex| {
            let of = recent.iter().filter(move |drop| drop.ifindex == ifindex);
            of.map(|drop| drop.time).collect::<Vec<_>>()
        };
        assert_eq!((recent.len(), times(8), times(9)), (KEPT, vec![0, 1, 2], vec![2000]));
        assert_eq!(times(7), (2000 - (KEPT as u64 - 4)..2000).collect::<Vec<_>>(), "the last ones");
    }
}
