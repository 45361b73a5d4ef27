//! Filters of pods that somebody removes come back at once: `tc qdisc del dev … clsact` takes the guards of a pod with it, and
//! while its programs are filters too, these. So a thread that does nothing else hears of it from the kernel and puts them
//! back. The kernel tells of the deletion while it is under way and holds the lock that putting them back takes, so nobody comes
//! in between; it takes a millisecond or so.
//!
//! A pod whose programs can't be put back is closed: its link is set down until they are there again.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fairlead_datapath::slot_of;
use nix::errno::Errno;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use tracing::{error, warn};

use super::attach::TCX;
use super::clsact::CLSACT;
use super::filters::{PodFilters, Rank};
use super::{netlink, sys};

/// `RTMGRP_TC`
const OF_TC: u32 = 1 << 3;

/// Longer than any message about a qdisc or a filter.
const BUFFER: usize = 64 * 1024;

/// What the sentry has done.
#[derive(Debug, Default)]
struct Done {
    /// Pods whose filters it has put back, and that nobody has been told of yet.
    restored: BTreeSet<u32>,
    /// Pods that it has closed.
    closed: BTreeSet<u32>,
}

/// Who watches over the filters of pods. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Sentry(Arc<Mutex<Done>>);

impl Sentry {
    /// Begins to watch. `ids`: of the programs that see what comes in at a pod's interface and what leaves by it. It looks away
    /// while `succeeded` says that another agent has taken over.
    pub(super) fn start(
        programs: PodFilters,
        ids: [u32; 2],
        succeeded: impl Fn() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let sentry = Self::default();
        let (socket, watching) = (netlink::listen(OF_TC)?, sentry.clone());
        std::thread::Builder::new().name("pod-filters".to_owned()).spawn(move || {
            let mut buffer = vec![0; BUFFER];
            loop {
                let lost: BTreeSet<u32> = match netlink::receive_known(&socket, &mut buffer) {
                    Ok(messages) => messages.iter().filter_map(|message| lost(&message.payload)).collect(),
                    // There were more messages than room for them.
                    Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => all(),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        warn!(%error, "filters of pods are no longer watched: removed ones may take 10 s to be \
                                       noticed");
                        return;
                    }
                };
                for ifindex in lost {
                    if !succeeded() {
                        watching.restore(&programs, ids, ifindex);
                    }
                }
            }
        })?;
        Ok(sentry)
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the filters of a pod back: the guards alone where it has its links.
    fn restore(&self, programs: &PodFilters, ids: [u32; 2], ifindex: u32) {
        let linked = has_links(ids, ifindex);
        let put = if linked { programs.guard(ifindex) } else { programs.attach(ifindex) };
        match put {
            Ok(()) => drop(self.done().restored.insert(ifindex)),
            // The pod went, and that is why.
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => {}
            // What is missing is repaired where everything is, and told there if it can't be.
            Err(error) if linked => warn!(ifindex, %error, "can't restore the guards of a pod"),
            Err(error) => {
                error!(ifindex, %error, "can't restore the programs of a pod: setting its link down");
                self.close(ifindex);
            }
        }
    }

    /// Closes a pod, also one that somebody has opened.
    pub(super) fn close(&self, ifindex: u32) {
        // First, or the link would be set up again.
        self.done().closed.insert(ifindex);
        if let Err(error) = netlink::set_down(ifindex) {
            error!(ifindex, %error, "can't set down the link of a pod without programs");
        }
    }

    /// Pods whose filters were put back since this was asked last.
    pub(super) fn restored(&self) -> BTreeSet<u32> {
        std::mem::take(&mut self.done().restored)
    }

    /// Pods that are closed.
    pub(super) fn closed(&self) -> BTreeSet<u32> {
        self.done().closed.clone()
    }

    /// Takes note that a pod has its programs again, or is gone.
    pub(super) fn opened(&self, ifindex: u32) {
        self.done().closed.remove(&ifindex);
    }

    /// Whether the link of a pod, by its index, has to be down, since it has no programs.
    #[must_use]
    pub fn is_closed(&self, ifindex: u32) -> bool {
        self.done().closed.contains(&ifindex)
    }
}

/// Whether the links of a pod attach its programs.
pub(super) fn has_links(ids: [u32; 2], ifindex: u32) -> bool {
    ids.into_iter()
        .zip(TCX)
        .all(|(id, attach_type)| sys::programs_at(ifindex, attach_type).is_ok_and(|there| there.contains(&id)))
}

/// The pod that has lost its filters by what this tells. While a program's alone is gone the guard behind it drops everything.
fn lost(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<u32> {
    let NetlinkPayload::InnerMessage(message) = payload else { return None };
    let header = match message {
        RouteNetlinkMessage::DelQueueDiscipline(message) if u32::from(message.header.parent) == CLSACT => {
            &message.header
        }
        RouteNetlinkMessage::DelTrafficFilter(message) if message.header.info >> 16 == u32::from(Rank::GUARD.0) => {
            &message.header
        }
        _ => return None,
    };
    u32::try_from(header.index).ok().filter(|ifindex| slot_of(*ifindex).is_some())
}

/// The interfaces of all pods.
fn all() -> BTreeSet<u32> {
    let links = nix::net::if_::if_nameindex();
    links
        .iter()
        .flat_map(|links| links.iter())
        .map(nix::net::if_::Interface::index)
        .filter(|at| slot_of(*at).is_some())
        .collect()
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::tc::{TcHandle, TcMessage};

    use super::*;

    fn message(ifindex: i32, parent: u32, priority: u32) -> TcMessage {
        let mut message = TcMessage::with_index(ifindex);
        message.header.parent = TcHandle::from(parent);
        message.header.info = priority << 16;
        message
    }

    #[test]
    fn a_pod_is_lost_with_its_qdisc_or_a_guard_and_by_nothing_else() {
        let pod = 1_000_007;
        let qdisc = |at, parent| RouteNetlinkMessage::DelQueueDiscipline(message(at, parent, 0));
        let filter = |at, priority| RouteNetlinkMessage::DelTrafficFilter(message(at, 0xffff_fff2, priority));
        let cases = [
            (qdisc(pod, CLSACT), true),
            (qdisc(7, CLSACT), false),
            (qdisc(pod, 0xffff_ffff), false),
            (filter(pod, 60), true),
            (filter(7, 60), false),
            (filter(pod, 50), false),
            (filter(pod, 1), false),
            (RouteNetlinkMessage::NewQueueDiscipline(message(pod, CLSACT, 0)), false),
        ];
        for (message, is_lost) in cases {
            let payload = NetlinkPayload::InnerMessage(message);
            assert_eq!(lost(&payload), is_lost.then_some(1_000_007), "{payload:?}");
        }
    }
}
