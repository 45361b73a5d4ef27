//! The loop that connects source, model, compiler, planner and tables, and what surrounds it.

mod adopt;
mod conflist;
mod content;
mod drops;
mod engine;
mod error;
mod node;
mod pods;
mod proxy;
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
use crate::bpf::{Hooks, ObjectFile, PinDir, Tables, cgroup2_root, follow_packet_log, load};
use crate::cni::Server;
use crate::install::Conflist;
use crate::model::Model;
use crate::wiring::{Netlink, PodLinks, Sysctls};

pub use content::world;
pub use drops::DropLog;
pub use error::DaemonError;
pub use shared::{Network, Progress, Shared};

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
    /// The cgroup whose sockets are served, or where cgroup v2 is mounted below; without, the root of cgroup v2.
    pub cgroup_root: Option<PathBuf>,
    /// Where the kernel's settings are.
    pub proc_sys: PathBuf,
    /// Where the container runtime looks for CNI configurations.
    pub cni_conf_dir: PathBuf,
    /// The name of ours.
    pub cni_conf_name: String,
    /// The interfaces that lead out of the node; without, those of the default routes.
    pub uplinks: Vec<String>,
    /// Prefixes of the node's addresses that NodePorts are at; without, its primary addresses.
    pub node_port_addresses: Vec<IpNetwork>,
}

/// Runs the agent until it is told to end. What it attached stays attached.
///
/// # Errors
/// It can't start: the text says what to do.
pub async fn run(config: Config) -> Result<(), DaemonError> {
    let Config {
        node,
        source,
        run_dir,
        bpffs,
        cgroup_root,
        proc_sys,
        cni_conf_dir,
        cni_conf_name,
        uplinks,
        node_port_addresses,
    } = config;
    std::fs::create_dir_all(&run_dir).map_err(|source| DaemonError::RunDir { path: run_dir.clone(), source })?;
    let mut end = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);

    let socket = run_dir.join("agent.sock");
    let questions = admin::listen(&socket).map_err(|source| DaemonError::Admin { path: socket, source })?;
    let object = ObjectFile::find()?;
    let cgroup = cgroup2_root(cgroup_root.as_deref())?;
    let pins = PinDir::open(&bpffs)?;
    let definition = object.definition()?;
    info!(mib = definition.memory().div_ceil(1 << 20), "memory of the tables, which counts against the agent's limit");
    let mut loaded = load(&object, &pins)?;
    follow_packet_log(&mut loaded.ebpf);
    let readable = Tables::open(&definition, &pins)?;
    let mut hooks = Hooks::new(loaded.ebpf, pins.clone());
    let netlink = Netlink::open()?;

    let wire = Wire::new(netlink.clone(), uplinks, Sysctls::new(&proc_sys, &run_dir));
    hooks.attach_sockets(&cgroup)?;

    let shared = Arc::new(Shared::new(Model::new(&node), loaded.programs, loaded.adopted));
    let (inputs, received) = mpsc::channel(QUEUE);
    let pods = Arc::new(Pods { shared: Arc::clone(&shared), inputs: inputs.clone() });
    let cni_socket = run_dir.join("cni.sock");
    let server = Server::open(pods, PodLinks::new(netlink.clone()), &cni_socket).await?;
    // The pods of the agent before: their programs are replaced now, and the first content knows them.
    for pod in server.adopted() {
        if let Err(error) = hooks.attach_pod(&pod.host_link, pod.ifindex) {
            warn!(pod = %pod.key, %error, "the programs of a pod can't be replaced: the ones before go on");
        }
        shared.model_mut().attach(local(pod));
    }

    let network = Network::default();
    let content = if loaded.adopted { Content::adopt(&network, &loaded.tables)? } else { Content::empty(&network) };
    let mut engine = Engine::new(Arc::clone(&shared), hooks, loaded.tables, content, node_port_addresses);
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
    let conflist = Conflist::new(&cni_conf_dir, &cni_conf_name, &cni_socket);
    let conflist = conflist::keep(Arc::clone(&shared), conflist);
    let proxy = proxy::watch(Arc::clone(&shared));
    info!(node, "the agent runs");
    tokio::select! {
        () = wait(terminate) => {}
        () = wait(interrupt) => {}
        () = server.run() => {}
        result = wiring => result?,
        () = forwarding => return Err(DaemonError::SourceEnded),
        () = conflist => {}
        () = proxy => {}
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
