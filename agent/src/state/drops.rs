//! Dropped packets: the last ones, from the programs' ring buffer, and counts by reason.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{Map, MapData, RingBuf};
use fairlead_datapath::WirePort;
use fairlead_datapath::catalog::TableId;
use fairlead_datapath::drop::{DropEvent, DropReason};
use fairlead_datapath::slot_of;
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
    pub fn view(&self, tables: &Tables) -> DropsView {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        DropsView { counts: self.counts(tables), recent }
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
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(view.clone());
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
