//! When sockets of the node's processes are looked at, and what is known then: [`crate::sockets`] says which of them end.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::service::FrontendKey;
use fairlead_datapath::{Addr, WirePort};
use fairlead_objects::{Event, Kind, Object, Pod};
use tracing::{debug, warn};

use super::content::Content;
use crate::bpf::Tables;
use crate::model::Model;
use crate::sockets::{Diag, Transport, World, plan};
use crate::state::Shared;

/// How long changes are collected: what goes together is looked for once.
const SOON: Duration = Duration::from_secs(1);

/// How long a service may take to leave the backends of a pod that is gone.
const LATE: Duration = Duration::from_secs(60);

/// What to look for, and when.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// Addresses of pods of this node that went.
    gone: BTreeSet<IpAddr>,
    /// Addresses that pods, of whatever node, no longer have by their objects, and since when.
    left: BTreeMap<IpAddr, Instant>,
    due: Option<Instant>,
    /// What was said last that it can't be done.
    trouble: Option<String>,
}

impl Sockets {
    /// Before the model takes an event.
    pub(super) fn see(&mut self, event: &Event, model: &Model) {
        let (key, kept) = match event {
            Event::Deleted(Kind::Pod, key) => (key, &[][..]),
            Event::Applied(Object::Pod(pod)) => (&pod.key, pod.owned_ips()),
            _ => return,
        };
        let before = model.pod(key).map(Pod::owned_ips).unwrap_or_default();
        let lost: Vec<_> = before.iter().filter(|ip| !kept.contains(ip)).copied().collect();
        if !lost.is_empty() {
            self.left.extend(lost.into_iter().map(|ip| (ip, Instant::now())));
            self.soon();
        }
    }

    /// The runtime took away a pod of this node.
    pub(super) fn detached(&mut self, ips: &[IpAddr]) {
        self.gone.extend(ips);
        self.soon();
    }

    /// Services may have left backends of pods that are gone.
    pub(super) fn services_changed(&mut self) {
        if !self.left.is_empty() {
            self.soon();
        }
    }

    /// When to look; nothing if there is nothing to look for.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    fn soon(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + SOON);
    }

    /// Looks, and ends what is to end. `content` is in force.
    pub(super) fn look(&mut self, tables: &Tables, content: &Content, shared: &Shared) {
        self.due = None;
        self.left.retain(|_, since| since.elapsed() < LATE);
        let (mut gone, left) = (take(&mut self.gone), &mut self.left);
        {
            let model = shared.model();
            for ip in model.local().values().flat_map(|pod| &pod.ips) {
                gone.remove(ip);
                left.remove(ip);
            }
            if !left.is_empty() {
                for ip in model.pods().flat_map(Pod::owned_ips) {
                    left.remove(ip);
                }
            }
        }
        let elsewhere = left.keys().copied().collect();
        let serves = |service: SocketAddr, backend: SocketAddr| content.serves(&frontend(service), backend);
        let world = World { gone: &gone, gone_elsewhere: &elsewhere, serves: &serves };
        match end(tables, &world, shared) {
            Ok(()) => self.trouble = None,
            Err(error) => {
                let text = error.to_string();
                if self.trouble.as_ref() != Some(&text) {
                    warn!(error = text, "can't end sockets of the node's processes: they stay with pods that are gone");
                    self.trouble = Some(text);
                }
            }
        }
    }

    /// Looks later: the tables are not what they should be yet.
    pub(super) fn put_off(&mut self) {
        self.due = Some(Instant::now() + SOON);
    }
}

/// Of TCP: of UDP sockets it is not known which service they were connected to.
fn frontend(service: SocketAddr) -> FrontendKey {
    FrontendKey::new(Addr::from(service.ip()), WirePort::new(service.port()), Transport::Tcp.number())
}

fn end(tables: &Tables, world: &World<'_>, shared: &Shared) -> std::io::Result<()> {
    let storage = tables.map(TableId::Sockets).map_err(std::io::Error::other)?;
    let mut diag = Diag::open()?;
    let sockets = diag.sockets(storage)?;
    for socket in plan(&sockets, world) {
        if diag.end(socket)? {
            debug!(?socket, "ended a socket of a process of the node");
            shared.metrics.ended_socket(socket.transport);
        }
    }
    Ok(())
}
