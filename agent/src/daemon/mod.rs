//! The loop that connects source, model, compiler, planner and tables, and what surrounds it.

mod adopt;
mod content;
mod drops;
mod engine;
mod error;
mod node;
mod overlay;
mod pods;
mod shared;
mod sweep;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use fairlead_objects::Source;
use ipnetwork::IpNetwork;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::bpf::{Hooks, ObjectFile, PinDir, Tables, cgroup2_mount, follow_packet_log, load};
use crate::cni::Server;
use crate::model::Model;
use crate::network::{Network, Tunnel};
use crate::wiring::{Netlink, PodLinks};

pub use content::world;
pub use drops::DropLog;
pub use error::DaemonError;
pub use shared::{Progress, Shared};

use content::Content;
use engine::{Engine, Input, local};
use pods::Pods;
use wire::Wire;

/// Inputs that may wait for the loop before their senders wait too.
const QUEUE: usize = 1024;

/// How the agent runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of this node's Node object.
    pub node: String,
    /// Where objects come from.
    pub source: Source,
    /// Where sockets and the journal are.
    pub run_dir: PathBuf,
    /// Where maps and links are pinned.
    pub bpffs: PathBuf,
    /// The cgroup whose sockets are served; without, the root of cgroup v2.
    pub cgroup_root: Option<PathBuf>,
    /// The interfaces that lead out of the node; without, those of the default routes.
    pub uplinks: Vec<String>,
    /// Prefixes of the node's addresses that NodePorts are at; without, its primary addresses.
    pub node_port_addresses: Vec<IpNetwork>,
    /// Whether packets to other nodes go through the tunnel.
    pub tunnel: Tunnel,
    /// The tunnel's UDP port, the same on every node.
    pub vxlan_port: u16,
}

/// Runs the agent until it is told to end. What it attached stays attached.
///
/// # Errors
/// It can't start: the text says what to do.
pub async fn run(config: Config) -> Result<(), DaemonError> {
    let Config { node, source, run_dir, bpffs, cgroup_root, uplinks, node_port_addresses, tunnel, vxlan_port } = config;
    std::fs::create_dir_all(&run_dir).map_err(|source| DaemonError::RunDir { path: run_dir.clone(), source })?;
    let mut end = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);

    let socket = run_dir.join("agent.sock");
    let questions = admin::listen(&socket).map_err(|source| DaemonError::Admin { path: socket, source })?;
    let object = ObjectFile::find()?;
    let pins = PinDir::open(&bpffs)?;
    let mut loaded = load(&object, &pins)?;
    follow_packet_log(&mut loaded.ebpf);
    let readable = Tables::open(&object.definition()?, &pins)?;
    let mut hooks = Hooks::new(loaded.ebpf, pins.clone());
    let netlink = Netlink::open()?;

    let wire = Wire::new(netlink.clone(), uplinks, tunnel, vxlan_port);
    let cgroup = cgroup_root.map_or_else(cgroup2_mount, Ok)?;
    hooks.attach_sockets(&cgroup)?;

    let shared = Arc::new(Shared::new(Model::new(&node), loaded.programs, loaded.adopted));
    let (inputs, received) = mpsc::channel(QUEUE);
    let pods = Arc::new(Pods { shared: Arc::clone(&shared), inputs: inputs.clone() });
    let server = Server::open(pods, PodLinks::new(netlink.clone()), &run_dir.join("cni.sock")).await?;
    // The pods of the agent before: their programs are replaced now, and the first content knows them.
    for pod in server.adopted() {
        if let Err(error) = hooks.attach_pod(&pod.host_link, pod.ifindex) {
            warn!(pod = %pod.key, %error, "the programs of a pod can't be replaced: the ones before go on");
        }
        shared.model_mut().attach(local(pod));
    }

    let network = Network::default();
    let content = if loaded.adopted { Content::adopt(&network, &loaded.tables)? } else { Content::empty(&network) };
    let mut engine = Engine::new(Arc::clone(&shared), hooks, loaded.tables, content, node_port_addresses, tunnel);
    engine.set_uplinks(wire.uplinks(&[]).await?);
    engine.set_addresses(netlink.addresses().await?);
    let wiring = wire.run(Arc::clone(&shared), inputs.clone());
    let runtime = tokio::runtime::Handle::current();
    let mut looping = tokio::task::spawn_blocking(move || engine.run(received, &runtime));

    let mut events = source.spawn();
    let forwarding = async move {
        while let Some(event) = events.recv().await {
            if inputs.send(Input::Event(event)).await.is_err() {
                return;
            }
        }
    };
    let drops = Arc::new(DropLog::default());
    drops.start(&pins, Arc::clone(&shared))?;
    let admin = Arc::new(Admin { shared: Arc::clone(&shared), tables: readable, drops: Arc::clone(&drops) });
    let [terminate, interrupt] = &mut end;
    info!(node, "the agent runs");
    tokio::select! {
        () = wait(terminate) => {}
        () = wait(interrupt) => {}
        () = server.run() => {}
        result = wiring => result?,
        () = forwarding => return Err(DaemonError::SourceEnded),
        () = admin::serve(admin, questions) => {}
        _ = &mut looping => return Err(DaemonError::LoopEnded),
    }
    info!("the agent ends; programs and maps stay");
    Ok(())
}

async fn wait(signal: &mut std::io::Result<tokio::signal::unix::Signal>) {
    match signal {
        Ok(signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}
