//! The server: its socket, and what it does beside answering.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fairlead_cni::protocol::Attachment;
use fairlead_cni::ready;
use futures::future::join_all;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::service::Service;
use super::session::{refuse, serve};
use super::{AttachedPod, CniError, Entry, Health, Journal, PodNetwork};
use crate::seats::Seats;
use crate::socket::listen;
use crate::wiring::PodLinks;

/// How often queued deletions and vanished links are looked for.
const SWEEP: Duration = Duration::from_secs(30);

/// How often it looks whether somebody has removed its files.
const LOOK: Duration = Duration::from_secs(10);

/// Connections at a time: a plugin for each pod that a node usually may have.
const CONNECTIONS: usize = 256;

/// How often a starting agent looks whether it is ready.
const READY_POLL: Duration = Duration::from_millis(20);

/// The CNI server.
#[derive(Debug)]
pub struct Server<N> {
    service: Arc<Service<N>>,
    listener: UnixListener,
    socket: PathBuf,
    /// What the agent before had reserved and not attached.
    unfinished: Vec<(Attachment, Entry)>,
}

impl<N: PodNetwork> Server<N> {
    /// Reads the journal, looks at the links that exist, and listens. Journal, queue and mark are beside the socket.
    ///
    /// # Errors
    /// When the run directory can't be used, or the kernel does not list its links.
    pub async fn open(network: Arc<N>, links: PodLinks, socket: &Path) -> Result<Self, CniError> {
        let failed = |source| CniError::Listen { path: socket.to_owned(), source };
        if let Some(directory) = socket.parent() {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        let boot_id = ready::boot_id().map_err(failed)?;
        let journal = Journal::open(&socket.with_file_name("cni-journal"), &boot_id)?;
        let existing = links.list().await?;
        let service = Arc::new(Service::new(network, links, socket, journal, existing));
        // Before anybody can connect: what is reserved from then on is at work.
        let unfinished = service.unfinished();
        let listener = listen(socket).map_err(failed)?;
        Ok(Self { service, listener, socket: socket.to_owned(), unfinished })
    }

    /// The pods of the agent before this one. They are in the pinned maps, and have to be in the first content that is
    /// compared with these, or they would be taken out.
    #[must_use]
    pub fn adopted(&self) -> Vec<AttachedPod> {
        self.service.attached()
    }

    /// Whether a pod of the agent before is on its way out: it is not let in again.
    #[must_use]
    pub fn is_leaving(&self, pod: &AttachedPod) -> bool {
        let attachment = Attachment { container_id: pod.container_id.clone(), ifname: pod.ifname.clone() };
        self.service.is_leaving(&attachment)
    }

    /// Serves until it is dropped, or somebody has removed its socket.
    ///
    /// Once the agent is ready it marks the node as such, releases what vanished, attaches adopted pods again and does
    /// queued deletions. Before, nothing is removed but links of pods whose DEL was answered.
    ///
    /// # Errors
    /// The socket is gone: another agent has to be started, which can be reached.
    pub async fn run(self) -> Result<(), CniError> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut connections, seats) = (JoinSet::new(), Seats::new(CONNECTIONS));
        let upkeep = upkeep(Arc::clone(&self.service), self.socket.clone(), self.unfinished);
        tokio::pin!(upkeep);
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => match seats.take() {
                        Some(seat) => drop(connections.spawn(serve(Arc::clone(&self.service), stream, seat))),
                        None => refuse(&stream, CniError::Busy(CONNECTIONS)),
                    },
                    Err(error) => {
                        // Out of file descriptors, most likely: let some connections end.
                        tracing::warn!(%error, "can't accept a CNI connection");
                        sleep(READY_POLL).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                () = &mut upkeep => {}
                _ = looks.tick() => {
                    self.service.keep_journal();
                    // An agent that succeeds this one puts its own in that place.
                    if matches!(self.socket.try_exists(), Ok(false)) {
                        return Err(CniError::Removed(self.socket));
                    }
                }
            }
        }
    }
}

async fn upkeep<N: PodNetwork>(service: Arc<Service<N>>, socket: PathBuf, unfinished: Vec<(Attachment, Entry)>) {
    service.remove_left_links().await;
    service.release_unfinished(unfinished).await;
    while service.network.health() != Health::Ready {
        sleep(READY_POLL).await;
    }
    if let Err(error) = ready::mark(&socket) {
        tracing::warn!(%error, "can't mark the node as ready: STATUS will fail while the agent restarts");
    }
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut adopted = service.attached();
    loop {
        ticks.tick().await;
        if let Err(error) = service.release_vanished().await {
            tracing::warn!(%error, "can't compare the CNI journal with the links that exist");
        }
        service.replay_queue().await;
        let again = join_all(adopted.into_iter().map(|pod| service.attach_again(pod))).await;
        adopted = again.into_iter().flatten().collect();
    }
}
