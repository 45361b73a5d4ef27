//! When sockets of the node's processes are looked at, and what is known then: [`crate::sockets`] says which of them end.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::service::FrontendKey;
use fairlead_datapath::{Addr, WirePort};
use fairlead_objects::{Event, Kind, Object};
use tracing::{debug, warn};

use super::content::Content;
use crate::bpf::{SocketList, Tables};
use crate::compile::claims::{PodRanges, Standing};
use crate::model::Model;
use crate::sockets::{Diag, Transport, World, plan, tell_apart};
use crate::state::Shared;

/// How long changes are collected: what goes together is looked for once.
const SOON: Duration = Duration::from_secs(1);

/// How long a service may take to leave the backends of a pod that is gone, and the kernel to do what it is asked.
const LATE: Duration = Duration::from_secs(60);

/// Looking takes at most this part of the time: a node may have many sockets.
const PART: u32 = 20;

/// What to look for, and when.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// Addresses of pods of this node that went, and since when.
    gone: BTreeMap<IpAddr, Instant>,
    /// Addresses that pods no longer have by their objects, the node of each, and since when.
    left: BTreeMap<IpAddr, (Option<String>, Instant)>,
    due: Option<Instant>,
    /// Not before.
    rests: Option<Instant>,
    /// What was said last that it can't be done.
    trouble: Option<String>,
    /// Since when looks have failed.
    failing: Option<Instant>,
    /// What the hooks remember of sockets.
    list: Option<SocketList>,
    /// Whether services may have left backends of UDP sockets since the last look.
    changed: bool,
}

impl Sockets {
    /// Before the model takes an event.
    pub(super) fn see(&mut self, event: &Event, model: &Model) {
        let (key, kept) = match event {
            Event::Deleted(Kind::Pod, key) => (key, &[][..]),
            Event::Applied(Object::Pod(pod)) => (&pod.key, pod.owned_ips()),
            _ => return,
        };
        let Some(before) = model.pod(key) else { return };
        let lost: Vec<_> =
            before.owned_ips().iter().filter(|ip| !kept.contains(ip)).map(IpAddr::to_canonical).collect();
        if !lost.is_empty() {
            let node = &before.node_name;
            self.left.extend(lost.into_iter().map(|ip| (ip, (node.clone(), Instant::now()))));
            self.soon();
        }
    }

    /// The runtime took away a pod of this node.
    pub(super) fn detached(&mut self, ips: &[IpAddr]) {
        self.gone.extend(ips.iter().map(|ip| (ip.to_canonical(), Instant::now())));
        self.soon();
    }

    /// Services may have left backends, of pods that are gone or not.
    pub(super) fn services_changed(&mut self) {
        self.changed = self.list.is_some();
        if self.changed || !self.left.is_empty() {
            self.soon();
        }
    }

    /// Says which service a UDP socket was connected to. Services may have changed while no agent ran.
    pub(super) fn list(&mut self, list: SocketList) {
        self.list = Some(list);
        self.services_changed();
    }

    /// When to look; nothing if there is nothing to look for.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    fn soon(&mut self) {
        let soon = Instant::now() + SOON;
        self.due.get_or_insert(self.rests.map_or(soon, |rests| rests.max(soon)));
    }

    /// Looks, and ends what is to end. `content` is in force.
    pub(super) fn look(&mut self, tables: &Tables, content: &Content, shared: &Shared) {
        self.due = None;
        self.left.retain(|_, (_, since)| since.elapsed() < LATE);
        self.gone.retain(|_, since| since.elapsed() < LATE);
        self.forget_those_that_are_there(&shared.model());
        let transports = match (self.gone.is_empty() && self.left.is_empty(), self.changed) {
            (true, false) => return,
            (true, true) => &[Transport::Udp][..],
            (false, _) => &Transport::ALL,
        };
        let (gone, elsewhere) = (self.gone.keys().copied().collect(), self.left.keys().copied().collect());
        let serves = |transport: Transport, service: SocketAddr, backend: SocketAddr| {
            content.serves(&frontend(transport, service), backend)
        };
        let world = World { gone: &gone, gone_elsewhere: &elsewhere, serves: &serves };
        let begin = Instant::now();
        let result = end(tables, &world, transports, self.list.as_ref(), shared);
        self.rests = Some(Instant::now() + begin.elapsed() * PART);
        match result {
            Ok(()) => {
                self.gone.clear();
                self.changed = false;
                self.failing = None;
                self.trouble = None;
            }
            Err(error) => {
                let text = error.to_string();
                if self.trouble.as_ref() != Some(&text) {
                    warn!(
                        error = text,
                        "can't close sockets of the node's processes: they stay connected to pods that are gone and \
                         to backends that left their service"
                    );
                    self.trouble = Some(text);
                }
                // A kernel that can't is not asked for ever.
                if self.failing.get_or_insert(begin).elapsed() >= LATE {
                    self.changed = false;
                    self.failing = None;
                }
                self.soon();
            }
        }
    }

    /// Another pod may have an address by now. And only what a pod's node may give it counts: a kubelet may write of its
    /// pods what it likes.
    fn forget_those_that_are_there(&mut self, model: &Model) {
        for ip in model.local().values().flat_map(|pod| &pod.ips) {
            let ip = ip.to_canonical();
            self.gone.remove(&ip);
            self.left.remove(&ip);
        }
        if self.left.is_empty() {
            return;
        }
        let ranges = PodRanges::new(model.nodes(), &model.rules().pod_ranges);
        self.left.retain(|ip, (node, _)| ranges.standing_on(node.as_deref(), *ip) == Standing::Counts);
        for ip in model.pods().flat_map(|pod| ranges.owned(pod)) {
            self.left.remove(&ip);
        }
    }

    /// Looks later: the tables are not what they should be yet.
    pub(super) fn put_off(&mut self) {
        self.due = Some(Instant::now() + SOON);
    }
}

fn frontend(transport: Transport, service: SocketAddr) -> FrontendKey {
    FrontendKey::new(Addr::from(service.ip()), WirePort::new(service.port()), transport.number())
}

fn end(
    tables: &Tables,
    world: &World<'_>,
    transports: &[Transport],
    list: Option<&SocketList>,
    shared: &Shared,
) -> std::io::Result<()> {
    let storage = tables.map(TableId::Sockets).map_err(std::io::Error::other)?;
    let mut diag = Diag::open()?;
    let mut sockets = diag.sockets(storage, transports)?;
    // Listed later: a socket that is connected anew in between is known by its peer.
    let mut result = list.map_or(Ok(Vec::new()), SocketList::read).map(|listed| tell_apart(&mut sockets, &listed));
    for socket in plan(&sockets, world) {
        match diag.end(socket) {
            Ok(true) => {
                debug!(?socket, "closed a socket of a process of the node");
                shared.metrics.ended_socket(socket.transport);
            }
            Ok(false) => {}
            Err(error) => result = Err(error),
        }
    }
    result
}
