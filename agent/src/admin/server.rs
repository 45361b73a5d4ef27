//! The agent's side of the socket.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{API, Reply, Request, Snapshot, Turn, VersionView, policy, service, status};
use crate::bpf::Tables;
use crate::log::{Log, LogError};
use crate::seats::{Seat, Seats};
use crate::state::{DropLog, DropView, Shared};

/// Where the agent listens when nothing else is configured.
pub const DEFAULT_SOCKET: &str = "/run/fairlead/agent.sock";

/// Longest question, in bytes, with the end of its line.
pub(super) const LONGEST: u64 = 64 << 10;

/// Connections at a time.
const CONNECTIONS: usize = 64;

/// How long a question may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What answers need.
#[derive(Debug)]
pub struct Admin {
    /// The model and the loop's progress.
    pub shared: Arc<Shared>,
    /// The maps, for reading.
    pub tables: Arc<Tables>,
    /// Dropped packets.
    pub drops: Arc<DropLog>,
    /// What is logged.
    pub log: Log,
    /// The comparison that runs.
    pub comparing: Turn,
}

/// Answers until it is dropped: so many connections at a time, of which the oldest that has asked nothing goes for a new one.
pub async fn serve(admin: Arc<Admin>, listener: UnixListener) {
    let seats = Seats::new(CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some(seat) = seats.take() else {
                    refuse(&stream);
                    continue;
                };
                let admin = Arc::clone(&admin);
                tokio::spawn(async move {
                    // Whoever asked has hung up: nobody is left to tell.
                    let _gone = converse(&admin, stream, &seat).await;
                });
            }
            Err(error) => {
                warn!(%error, "can't accept a connection to the admin socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Says that there is no room, and hangs up.
fn refuse(stream: &UnixStream) {
    let text = format!(
        "{CONNECTIONS} connections to the admin socket are open, which is the limit: close some, such as `fairlead \
         drops \
         --follow`, and ask again"
    );
    if let Ok(mut line) = serde_json::to_vec(&Reply::Error(text)) {
        line.push(b'\n');
        // There is room in a new socket for a line; who has hung up need not be told.
        let _gone = stream.try_write(&line);
    }
}

async fn converse(admin: &Arc<Admin>, stream: UnixStream, seat: &Seat) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(LONGEST));
    let Some(asked) = seat.wait(timeout(PATIENCE, read.read_line(&mut line))).await else { return Ok(()) };
    asked.map_err(io::Error::from)??;
    let request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => return send(&mut write, &Reply::Error(format!("invalid request: {error}"))).await,
    };
    let follow = matches!(request, Request::Drops { follow: true }).then(|| admin.drops.subscribe());
    send(&mut write, &answer_of(admin, request).await).await?;
    let Some(mut follow) = follow else { return Ok(()) };
    loop {
        // Who has hung up is not found out by telling him only when something is dropped again.
        let event = tokio::select! {
            event = follow.recv() => event,
            _hung_up = read.read_u8() => return Ok(()),
        };
        match event {
            Ok(event) => send(&mut write, &ok::<[DropView]>(&[event])).await?,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

async fn send(write: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    write.write_all(&line).await
}

fn ok<T: Serialize + ?Sized>(value: &T) -> Reply {
    serde_json::to_value(value).map_or_else(|error| Reply::Error(error.to_string()), Reply::Ok)
}

/// The answer to a question, which takes its own thread where it takes long.
async fn answer_of(admin: &Arc<Admin>, request: Request) -> Reply {
    let Request::PolicyWhatIf { manifests, delete, namespace } = request else { return answer(admin, request) };
    let shared = Arc::clone(&admin.shared);
    let compare = move || {
        let snapshot = Snapshot::of_agent(&shared.model())?;
        snapshot.what_if(&manifests, namespace.as_deref(), delete)
    };
    match admin.comparing.compare(compare).await {
        Ok(what_if) => ok(&what_if),
        Err(text) => Reply::Error(text),
    }
}

fn answer(admin: &Admin, request: Request) -> Reply {
    match request {
        Request::Status => ok(&status::status(admin)),
        Request::Version => ok(&VersionView { version: env!("CARGO_PKG_VERSION").to_owned(), api: API }),
        Request::ServiceList => ok(&service::list(&admin.shared.model())),
        Request::ServiceExplain { address } => match service::explain(admin, address) {
            Ok(explanations) => ok(&explanations),
            Err(text) => Reply::Error(text),
        },
        Request::PolicyExplain { .. } => match policy::explain(admin, &request) {
            Ok(explanation) => ok(&explanation),
            Err(text) => Reply::Error(text),
        },
        Request::PolicyList { pod } => match policy::list(admin, pod.as_deref()) {
            Ok(list) => ok(&list),
            Err(text) => Reply::Error(text),
        },
        Request::PolicyAudit { pod } => match policy::audit(admin, pod.as_deref()) {
            Ok(audit) => ok(&audit),
            Err(text) => Reply::Error(text),
        },
        // Answered before, on a thread of its own.
        Request::PolicyWhatIf { .. } => Reply::Error("not answered here".to_owned()),
        Request::LogLevel { filter } => match log_level(&admin.log, filter.as_deref()) {
            Ok(level) => ok(&level),
            Err(error) => Reply::Error(error.to_string()),
        },
        Request::Drops { follow: _ } => ok(&admin.drops.view(&admin.tables, &admin.shared)),
    }
}

fn log_level(log: &Log, filter: Option<&str>) -> Result<String, LogError> {
    if let Some(filter) = filter {
        log.set_level(filter)?;
        info!(filter, "log level changed");
    }
    Ok(log.level())
}
