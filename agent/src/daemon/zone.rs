//! The socket at which the node's DNS servers tell their zone.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::dns::{DnsFacts, DnsName, DnsZone};
use fairlead_objects::Mode;
use fairlead_objects::zone::{LONGEST, Line, SOCKET};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};
use zerocopy::{FromBytes, IntoBytes};

use crate::bpf::{BpfError, Tables};
use crate::socket::listen_for;
use crate::state::Shared;
use crate::zone::{Node, Outcome, Store, Writer, now};

/// Servers that wait until the one that is listened to ends: two while one takes the other's place, and some to spare.
const MOST_WAITING: usize = 8;

/// How often it looks whether somebody has removed its socket, or something that the lease depends on has changed.
const LOOK: Duration = Duration::from_secs(1);

/// The kernel's tables.
struct Kernel(Arc<Tables>);

impl Store for Kernel {
    fn put(&mut self, names: &[(DnsName, DnsFacts)]) -> Result<(), BpfError> {
        let (keys, values): (Vec<&[u8]>, Vec<&[u8]>) =
            names.iter().map(|(name, facts)| (name.as_bytes(), facts.as_bytes())).unzip();
        self.0.map(TableId::ZoneNames)?.update(&keys.concat(), &values.concat(), names.len())
    }

    fn remove(&mut self, names: &[DnsName]) -> Result<(), BpfError> {
        self.0.map(TableId::ZoneNames)?.delete(names.as_bytes(), names.len())
    }

    fn has(&self, name: &DnsName) -> Result<bool, BpfError> {
        Ok(self.0.map(TableId::ZoneNames)?.get(name.as_bytes())?.is_some())
    }

    fn all(&self) -> Result<Vec<(DnsName, u32)>, BpfError> {
        let mut all = Vec::new();
        self.0.map(TableId::ZoneNames)?.for_each(|key, value| {
            if let (Ok(name), Ok(facts)) = (DnsName::read_from_bytes(key), DnsFacts::read_from_bytes(value)) {
                all.push((name, facts.session));
            }
        })?;
        Ok(all)
    }

    fn zone(&self) -> Result<DnsZone, BpfError> {
        let value = self.0.map(TableId::Zones)?.get(&0_u32.to_ne_bytes())?.unwrap_or_default();
        Ok(DnsZone::read_from_bytes(&value).unwrap_or_default())
    }

    fn set_zone(&mut self, zone: &DnsZone) -> Result<(), BpfError> {
        self.0.map(TableId::Zones)?.update(&0_u32.to_ne_bytes(), zone.as_bytes(), 1)
    }

    fn barrier(&mut self) -> Result<(), BpfError> {
        self.0.barrier()
    }
}

/// The node, as the agent knows it.
struct Here(Arc<Shared>);

impl Node for Here {
    fn now(&self) -> u64 {
        now()
    }

    fn slot_of(&self, addresses: &[IpAddr]) -> Option<u16> {
        let model = self.0.model();
        let has = |ip: &IpAddr| addresses.contains(&ip.to_canonical());
        model.local().values().find(|pod| pod.foreign.is_none() && pod.ips.iter().any(has)).map(|pod| pod.slot)
    }

    fn audits(&self) -> bool {
        let model = self.0.model();
        model.policies().any(|policy| policy.mode == Mode::Audit)
            || model.cluster_policies().any(|policy| policy.mode == Mode::Audit)
    }

    fn rule_about(&self, zone: &str) -> Option<String> {
        self.0.zone.rule_about(zone)
    }
}

/// A server that is listened to.
struct Current {
    lines: mpsc::Receiver<io::Result<Line>>,
}

impl Current {
    fn of(stream: UnixStream) -> Self {
        let (said, lines) = mpsc::channel(1);
        tokio::task::spawn_local(async move {
            let mut read = BufReader::new(stream);
            loop {
                let line = read_line(&mut read).await;
                let ends = !matches!(line, Ok(Some(_)));
                let over = match line.transpose() {
                    Some(line) => said.send(line).await.is_err(),
                    None => true,
                };
                if ends || over {
                    return;
                }
            }
        });
        Self { lines }
    }
}

async fn read_line(read: &mut BufReader<UnixStream>) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    if read.take(LONGEST as u64).read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    Line::decode(&line).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Listens in a directory, if that is what is wanted, in a thread of its own; what is returned ends if that does. Else nothing is
/// answered in the kernel, and what an agent before has left goes.
///
/// # Errors
/// The socket or the thread can't be made, or the kernel refuses.
pub(super) fn serve(
    directory: &Path,
    shared: Arc<Shared>,
    tables: Arc<Tables>,
    unwanted: Option<&str>,
) -> io::Result<oneshot::Receiver<()>> {
    let (ends, ended) = oneshot::channel();
    let mut writer = Writer::new(Kernel(tables)).map_err(io::Error::other)?;
    if let Some(why) = unwanted {
        // Nobody is listened to.
        writer.clear().map_err(io::Error::other)?;
        shared.zone.set(0, 0, Some(why.to_owned()));
        // It never does.
        std::mem::forget(ends);
        return Ok(ended);
    }
    let socket = directory.join(SOCKET);
    let listener = listen_for(&socket, 0o666)?.into_std()?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("zone".to_owned()).spawn(move || {
        let local = tokio::task::LocalSet::new();
        let listen = async move {
            match UnixListener::from_std(listener) {
                Ok(listener) => {
                    let listening =
                        Listening { listener, socket, writer, shared: Here(shared), waiting: VecDeque::new() };
                    listening.run().await;
                }
                Err(error) => warn!(%error, "can't listen for the zone of the node's DNS server"),
            }
        };
        local.block_on(&runtime, listen);
        drop(ends);
    })?;
    Ok(ended)
}

struct Listening {
    listener: UnixListener,
    socket: PathBuf,
    writer: Writer<Kernel>,
    shared: Here,
    waiting: VecDeque<UnixStream>,
}

impl Listening {
    async fn run(mut self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let state = Arc::clone(&self.shared.0.zone);
        let mut current = None;
        loop {
            if current.is_none() {
                current = self.waiting.pop_front().map(Current::of);
            }
            let next = async {
                match &mut current {
                    Some(Current { lines }) => lines.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) if self.waiting.len() < MOST_WAITING => self.waiting.push_back(stream),
                    Ok(_) => debug!("too many DNS servers wait to tell their zone: one is turned away"),
                    Err(error) => {
                        warn!(%error, "can't accept a connection of a DNS server");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                said = next => {
                    let goes_on = match said {
                        Some(Ok(line)) => self.take(line),
                        Some(Err(error)) => self.stop(&error.to_string()),
                        None => self.stop("the DNS server that told its zone has hung up"),
                    };
                    if !goes_on {
                        current = None;
                    }
                }
                () = state.changed.notified() => self.look(),
                _ = looks.tick() => {
                    self.listen_again();
                    self.look();
                }
            }
        }
    }

    /// Takes in what is said. Whether the server is listened to further.
    fn take(&mut self, line: Line) -> bool {
        // Somebody else may have more to say.
        let goes_on = !(matches!(line, Line::Silent(_)) && !self.waiting.is_empty());
        match self.writer.take(line, &self.shared) {
            Ok(outcome) => {
                if let Some(outcome) = outcome {
                    self.note(outcome);
                }
                goes_on
            }
            Err(error) => self.stop(&error.to_string()),
        }
    }

    fn look(&mut self) {
        match self.writer.look(&self.shared) {
            Ok(Outcome { until: 0, why_not: None, .. }) => {}
            Ok(outcome) => self.note(outcome),
            Err(error) => {
                let _ends = self.stop(&error.to_string());
            }
        }
    }

    /// Nothing is answered any more, for this reason, and the server is not listened to.
    fn stop(&mut self, why: &str) -> bool {
        if let Err(error) = self.writer.end() {
            warn!(%error, "can't end the answers to DNS queries in the kernel: they end by themselves within seconds");
        }
        self.note(Outcome { until: 0, names: 0, why_not: Some(why.to_owned()) });
        false
    }

    fn note(&self, Outcome { until, names, why_not }: Outcome) {
        let state = &self.shared.0.zone;
        let (was, text) = (state.in_force(), why_not.clone());
        let is_new = state.set(until, names, why_not);
        let is = until > now();
        match text {
            Some(why) if is_new => info!(why, "DNS queries of pods are answered by the DNS server, not in the kernel"),
            None if is && !was => info!(names, "DNS queries of pods are answered in the kernel"),
            _ => {}
        }
    }

    /// An agent that succeeds this one puts its own socket in that place.
    fn listen_again(&mut self) {
        if !matches!(self.socket.try_exists(), Ok(false)) {
            return;
        }
        match listen_for(&self.socket, 0o666) {
            Ok(listener) => {
                warn!(path = %self.socket.display(), "somebody removed the socket for the zone of DNS servers: listening again");
                self.listener = listener;
            }
            Err(error) => debug!(%error, "can't listen again for the zone of DNS servers"),
        }
    }
}
