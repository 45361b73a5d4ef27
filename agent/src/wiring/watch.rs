//! Who changed something on the node.

use futures::StreamExt;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcMessage};
use rtnetlink::sys::AsyncSocket;
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::warn;

use super::WiringError;
use super::peers::Changed;
use super::uplinks::is_pod;
use crate::bpf::{STAND_IN, has_tcx};

/// Tells of changes. Those that come together are told once.
#[derive(Debug)]
pub struct Watch {
    network: mpsc::Receiver<()>,
    programs: mpsc::Receiver<()>,
    tell_programs: mpsc::Sender<()>,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Devices, addresses, routes, or neighbours of pods.
    Network,
    /// Somebody removed a filter or a qdisc, or who has [`Watch::programs_changed`] told of something.
    Programs,
}

impl Watch {
    /// Waits for the next change. Nothing if there won't be any.
    pub async fn next(&mut self) -> Option<Change> {
        tokio::select! {
            biased;
            Some(()) = self.programs.recv() => Some(Change::Programs),
            Some(()) = self.network.recv() => Some(Change::Network),
            else => None,
        }
    }

    /// For others who know of changes that concern programs.
    #[must_use]
    pub fn programs_changed(&self) -> mpsc::Sender<()> {
        self.tell_programs.clone()
    }
}

/// Begins to watch. Look again whenever it tells of something. `pods` takes note of pods whose own side has changed.
///
/// # Errors
/// When the socket can't be opened.
pub fn watch(pods: Changed) -> Result<Watch, WiringError> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Tc,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (connection, handle, mut messages) = new_multicast_connection(&groups).map_err(WiringError::Socket)?;
    tokio::spawn(connection);
    let (tell_network, network) = mpsc::channel(1);
    let (tell_programs, programs) = mpsc::channel(1);
    let of_programs = tell_programs.clone();
    if let Err(error) = watch_pods(pods, tell_network.clone()) {
        warn!(%error, "a changed MAC address of a pod may take 10 s to be noticed: the agent lacks NET_BROADCAST");
    }
    tokio::spawn(async move {
        // The connection lives as long as its handle.
        let _handle = handle;
        while let Some((message, _)) = messages.next().await {
            for change in concern(&message.payload) {
                let told = match change {
                    Change::Network => &tell_network,
                    Change::Programs => &of_programs,
                };
                // Full means that somebody has yet to look, and will see this too.
                if let Err(TrySendError::Closed(())) = told.try_send(()) {
                    return;
                }
            }
        }
    });
    Ok(Watch { network, programs, tell_programs })
}

/// Watches the links of all network namespaces that have a number in this one, as those of pods do by their veth pairs.
fn watch_pods(pods: Changed, tell: mpsc::Sender<()>) -> std::io::Result<()> {
    let (mut connection, handle, mut messages) = new_multicast_connection(&[MulticastGroup::Link])?;
    connection.socket_mut().socket_mut().set_listen_all_namespaces(true)?;
    tokio::spawn(connection);
    tokio::spawn(async move {
        let _handle = handle;
        while let Some((message, _)) = messages.next().await {
            let is_news = match &message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => pods.note(link),
                NetlinkPayload::InnerMessage(_) => false,
                // There were more messages than room for them.
                _ => {
                    pods.note_all();
                    true
                }
            };
            if is_news && let Err(TrySendError::Closed(())) = tell.try_send(()) {
                return;
            }
        }
        warn!("links of pods are no longer watched: a changed MAC address of a pod may take 10 s to be noticed");
    });
    Ok(())
}

/// The node's own neighbours come and go all the time, and so do filters that are added: by this agent, most of them.
fn concern(payload: &NetlinkPayload<RouteNetlinkMessage>) -> &'static [Change] {
    // There were more messages than room for them: any may be lost.
    let NetlinkPayload::InnerMessage(message) = payload else { return &[Change::Network, Change::Programs] };
    match message {
        RouteNetlinkMessage::NewNeighbour(message) | RouteNetlinkMessage::DelNeighbour(message) => {
            if is_pod(message.header.ifindex) { &[Change::Network] } else { &[] }
        }
        // Whether an uplink has fq. That of the programs is this agent's own.
        RouteNetlinkMessage::NewQueueDiscipline(message) => {
            let of_programs =
                |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "clsact");
            if message.attributes.iter().any(of_programs) { &[] } else { &[Change::Network] }
        }
        RouteNetlinkMessage::DelTrafficFilter(message) if is_stand_in(message) => &[],
        RouteNetlinkMessage::DelTrafficFilter(_) | RouteNetlinkMessage::DelQueueDiscipline(_) => &[Change::Programs],
        RouteNetlinkMessage::NewTrafficFilter(_)
        | RouteNetlinkMessage::NewTrafficClass(_)
        | RouteNetlinkMessage::DelTrafficClass(_)
        | RouteNetlinkMessage::NewTrafficChain(_)
        | RouteNetlinkMessage::DelTrafficChain(_) => &[],
        _ => &[Change::Network],
    }
}

/// Whether it is a filter that stands in for a pod's link. This agent removes it when the link is there, within a second.
fn is_stand_in(message: &TcMessage) -> bool {
    let is_of_pod = u32::try_from(message.header.index).is_ok_and(is_pod);
    is_of_pod && message.header.info >> 16 == u32::from(STAND_IN) && has_tcx()
}
