//! The loop that connects source, model, compiler, planner and tables, and what surrounds it.

mod audit;
mod conflist;
mod content;
mod desk;
mod engine;
mod error;
mod foreign;
mod gauge;
mod gone;
mod mounted;
mod names;
mod overlay;
mod pods;
mod ports;
mod proxy;
mod repair;
mod report;
mod sockets;
mod svc;
mod sweep;
mod wire;
mod zone;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use fairlead_datapath::config::{Lifetimes, MAX_CLOSED};
use fairlead_objects::{Event, Source};
use fairlead_observe::keep;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::bpf::{Hooks, ObjectFile, Tables, cgroup2_root, follow_packet_log, load};
use crate::cni::{Health, Server};
use crate::compile::node::Limits;
use crate::events::{Recorder, keep_network_available};
use crate::install::{Conflist, lock_of};
use crate::log::Log;
use crate::masquerade::Masquerade;
use crate::model::{Model, NodeLocalDns, Rules};
use crate::names as told;
use crate::network::TunnelSettings;
use crate::observe::{HealthServer, MetricsServer, configuration, serve_checks};
use crate::settings::{MetadataAccess, Settings};
use crate::socket::listen;
use crate::state::{DropLog, Shared};
use crate::wiring::{Choice, Netlink, PodLinks, Sysctls};
use crate::xdp::Xdp;
use crate::zone::InKernel;

pub use error::DaemonError;

use self::names::Keeper;
use content::{Content, Counters};
use desk::Desk;
use engine::{Engine, Input, local};
use pods::Pods;
use wire::Wire;

/// Inputs that may wait for the loop before their senders wait too.
const QUEUE: usize = 1024;

/// Where probes and load balancers look for health: kube-proxy's port.
const HEALTHZ_PORT: u16 = 10256;

/// Where they look beside kube-proxy.
const HEALTHZ_PORT_BESIDE: u16 = 10246;

/// What to do when the address for health is taken.
const HEALTHZ_TAKEN: &str = "if kube-proxy still runs on this node, remove it (kubectl -n kube-system delete daemonset \
                             kube-proxy); if something else has the port, free it or choose another with --healthz-bind";
/// What to do when the address for metrics is taken.
const METRICS_TAKEN: &str = "if kube-proxy still runs on this node, remove it (kubectl -n kube-system delete daemonset \
                             kube-proxy); if something else has the port, free it or choose another with --metrics-bind";

/// How long the agent waits at its end for the loop.
const END: Duration = Duration::from_secs(2);

/// How the agent runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of this node's Node object.
    pub node: String,
    /// Where objects come from.
    pub source: Source,
    /// What can be set.
    pub settings: Settings,
    /// The log.
    pub log: Log,
}

/// What can be wrong with settings of which each by itself is right. `fairlead install` asks before it changes anything.
///
/// # Errors
/// The text says what to do.
pub fn check(settings: &Settings) -> Result<(), DaemonError> {
    let count = settings.metadata_addresses.len();
    if count > MAX_CLOSED { Err(DaemonError::Metadata(count)) } else { Ok(()) }
}

/// Runs the agent until it is told to end. What it attached stays attached.
///
/// # Errors
/// It can't start: the text says what to do.
pub async fn run(config: Config) -> Result<(), DaemonError> {
    let Config { node, source, settings, log } = config;
    check(&settings)?;
    let Settings {
        log_level: _,
        parts,
        api_server: _,
        api_server_patience,
        uplinks: named,
        exclude_uplinks: excluded,
        xdp,
        cgroup_root,
        bpffs,
        run_dir,
        proc_sys,
        cni_conf_dir,
        cni_conf_name,
        cni_chain,
        node_port_addresses,
        service_ranges,
        external_ips,
        pod_ranges,
        annotated_ranges,
        metadata_access,
        metadata_addresses,
        node_local_dns,
        node_local_dns_service,
        dns_in_kernel,
        healthz_bind,
        metrics_bind,
        tunnel,
        tunnel_from,
        vxlan_port,
        clear_network_unavailable,
        masquerade_mode: mode,
        masquerade_except_cidrs: except,
        masquerade_port_range: ports,
        max_flows,
        max_open_flows,
        max_new_flows,
        conntrack_tcp_established_timeout: established,
        conntrack_tcp_close_wait_timeout: half_closed,
        conntrack_udp_timeout: udp,
        conntrack_udp_stream_timeout: udp_stream,
    } = settings;
    let tunnel = TunnelSettings { when: tunnel, from: tunnel_from, port: vxlan_port };
    let masquerade = Masquerade { mode, except, ports };
    let (tunnel, masquerade) =
        if parts.wires() { (tunnel, masquerade) } else { (tunnel.beside(), masquerade.beside()) };
    // Other nodes' pods are where the other network has them, which XDP does not ask.
    let xdp = match (parts.wires(), xdp) {
        (true, xdp) => xdp,
        (false, Xdp::Native) => {
            warn!(%parts, "there is no XDP beside another network: the setting xdp is ignored");
            Xdp::Off
        }
        (false, _) => Xdp::Off,
    };
    let port = if parts.serves() { HEALTHZ_PORT } else { HEALTHZ_PORT_BESIDE };
    let healthz = healthz_bind.unwrap_or_else(|| fairlead_observe::any(port));
    std::fs::create_dir_all(&run_dir).map_err(|source| DaemonError::RunDir { path: run_dir.clone(), source })?;
    let mut end = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);

    let socket = run_dir.join("agent.sock");
    let questions = listen(&socket).map_err(|source| DaemonError::Admin { path: socket.clone(), source })?;
    let object = ObjectFile::find()?;
    let cgroup = cgroup2_root(cgroup_root.as_deref())?;
    let ([terminate, _], keeper) = (&mut end, lock_of(&run_dir));
    let pins = tokio::select! {
        pins = mounted::pins(&bpffs, &keeper) => pins?,
        () = wait(terminate) => return Ok(()),
    };
    let definition = object.definition()?;
    info!(mib = definition.memory().div_ceil(1 << 20), "map memory, charged to the agent's memory limit");
    let mut loaded = load(&object, &pins)?;
    follow_packet_log(&mut loaded.ebpf);
    let readable = Arc::new(Tables::open(&definition, &pins)?);
    let mut hooks = Hooks::new(loaded.ebpf, pins.clone()).with_xdp(xdp);
    let own = repair::Socket::of(&socket);
    let sentry = hooks.watch_filters(move || own.is_taken())?;
    let netlink = Netlink::open()?;

    let sysctls = Sysctls::new(&proc_sys, &run_dir);
    // A socket of its own: the kernel serves one list at a time on each.
    let wire = Wire::new(
        Netlink::open()?,
        Choice { named, excluded },
        sysctls,
        (tunnel, parts, service_ranges),
        &socket,
        (pins.clone(), sentry),
    );
    if parts.serves() {
        hooks.attach_sockets(&cgroup)?;
    } else {
        hooks.detach_sockets();
    }

    let cluster = source.cluster().cloned();
    let events = cluster.clone().map_or_else(Recorder::nowhere, |cluster| Recorder::start(cluster, &node));
    let of_cluster = cluster.clone();
    let model = Model::new(&node).with_rules(Rules {
        external_ips,
        pod_ranges,
        annotated_ranges,
        metadata: metadata_addresses,
        metadata_closed: metadata_access == MetadataAccess::Closed,
        masquerade,
        node_local_dns: NodeLocalDns { addresses: node_local_dns, service: node_local_dns_service },
        tunnel_port: tunnel.guarded_port(),
        health_port: (!healthz.ip().is_loopback()).then_some(healthz.port()),
        parts,
    });
    let shared = Shared::new(model, cluster, events, loaded.programs, loaded.adopted);
    let shared = Arc::new(shared.with_migrated(loaded.migrated));
    let (inputs, received) = mpsc::channel(QUEUE);
    // The loop ends with its last sender, which that thread is not.
    let of_links = inputs.downgrade();
    let filters = hooks.begin_with_filters(move |linked| {
        of_links.upgrade().is_some_and(|inputs| inputs.blocking_send(Input::Linked(linked)).is_ok())
    })?;
    let pods = Arc::new(Pods { shared: Arc::clone(&shared), inputs: inputs.clone(), pins: pins.clone(), filters });
    let cni_socket = run_dir.join("cni.sock");
    let server = Server::open(pods, PodLinks::new(netlink.clone()), &cni_socket).await?;
    let mut leaving = Vec::new();
    // The pods of the agent before: their programs are replaced now, and the first content knows those that stay.
    for pod in server.adopted() {
        if let Err(error) = hooks.attach_pod(&pod.host_link, pod.ifindex) {
            warn!(pod = %pod.key, %error, "can't replace the programs of a pod: the previous ones stay");
        }
        if server.is_leaving(&pod) {
            leaving.push(pod);
        } else {
            shared.model_mut().attach(local(pod));
        }
    }

    // There is none to wait for.
    shared.note(|progress| progress.conflist = !parts.wires());
    let foreign_pods = run_dir.join("foreign-pods");
    let mut foreign = match parts.wires() {
        true => {
            foreign::forget_all(&foreign_pods);
            None
        }
        false => Some(foreign::Keeper::open(Arc::clone(&shared), netlink.clone(), foreign_pods)),
    };
    let adopted: Vec<_> =
        foreign.iter().flat_map(foreign::Keeper::adopted).map(crate::foreign::ForeignPod::to_pod).collect();
    foreign::note_only(&loaded.tables, &adopted)?;
    for pod in foreign.iter().flat_map(foreign::Keeper::adopted) {
        let attached = pod.to_pod();
        if let Err(error) = hooks.attach_foreign(&pod.link, pod.ifindex) {
            warn!(pod = %pod.key, %error, "can't replace the programs of a pod: the previous ones stay");
        }
        shared.model_mut().attach(local(attached));
    }

    let lifetimes = Lifetimes { established, half_closed, udp, udp_stream };
    let limits = Limits { flows: max_flows, open: max_open_flows, rate: max_new_flows, lifetimes };
    let counters = Counters::adopt(Arc::clone(&shared.rule_hits), &loaded.tables, loaded.adopted, &run_dir);
    let of_names = inputs.downgrade();
    let wake = move || {
        // A loop that has that much to do takes over what was said in any case.
        if let Some(inputs) = of_names.upgrade() {
            let _full = inputs.try_send(Input::Told);
        }
    };
    let desk = Arc::new(Desk::new(Arc::clone(&readable), Arc::clone(&shared.told), wake));
    let at_desk = Arc::clone(&desk);
    let content = if loaded.adopted {
        Content::adopt(&loaded.tables, counters, at_desk)?
    } else {
        Content::empty(counters, at_desk)
    };
    let names_dir = run_dir.join(told::DIRECTORY);
    if let Err(error) = told::directory(&names_dir) {
        warn!(%error, path = %names_dir.display(), "can't let fairlead-dns in: run `fairlead install`, which can");
    }
    let journal = run_dir.join("names-journal");
    let keeper = Keeper::open(&names_dir, &journal, Arc::clone(&desk), Arc::clone(&shared.told), &shared);
    let asked = told::Server::open(&names_dir, Arc::clone(&shared.told))
        .map_err(|source| DaemonError::Names { path: names_dir.clone(), source })?;
    let unwanted = match dns_in_kernel {
        InKernel::Off => Some("the setting dns.inKernel is off"),
        InKernel::Auto if !parts.wires() => Some("another plugin has wired the pods of this node"),
        InKernel::Auto => None,
    };
    let told_zone = zone::serve(&names_dir, Arc::clone(&shared), Arc::clone(&readable), unwanted)
        .map_err(|source| DaemonError::Names { path: names_dir, source })?;
    let mut engine = Engine::new(
        Arc::clone(&shared),
        hooks,
        loaded.tables,
        (content, keeper),
        node_port_addresses.clone(),
        tunnel,
        limits,
    );
    leaving.iter().for_each(|pod| engine.departs(pod));
    let gone = foreign.as_mut().map(foreign::Keeper::take_gone).unwrap_or_default();
    gone.iter().for_each(|pod| engine.departs(&pod.to_pod()));
    match loaded.socket_list {
        Ok(list) => engine.list_sockets(list),
        Err(error) => warn!(
            error,
            "can't list the sockets that the hooks have redirected: connected UDP sockets of the node's processes \
             stay connected to backends that left their service"
        ),
    }
    engine.set_uplinks(wire.uplinks(&[]).await?, false);
    engine.set_addresses(wire::addresses(&netlink).await?);
    engine.settle();
    let wiring = wire.run(Arc::clone(&shared), inputs.clone());
    let runtime = tokio::runtime::Handle::current();
    let mut looping = tokio::task::spawn_blocking(move || engine.run(received, &runtime));

    let asking = asked
        .spawn(move |ask, reply| desk.answer(ask, reply))
        .map_err(|source| DaemonError::Names { path: run_dir.join(told::DIRECTORY), source })?;
    let of_foreign = inputs.clone();
    let foreign = async move {
        match foreign {
            Some(keeper) => keeper.run(of_foreign).await,
            None => pending().await,
        }
    };
    let mut events = source.spawn();
    let telling = Arc::clone(&shared);
    let forwarding = async move {
        while let Some(event) = events.recv().await {
            if matches!(event, Event::Applied(_) | Event::Deleted(..)) {
                telling.freshness.told();
            }
            if inputs.send(Input::Event(event)).await.is_err() {
                return;
            }
        }
    };
    if let Some(cluster) = of_cluster.filter(|_| clear_network_unavailable) {
        let health = Arc::clone(&shared);
        let ready = move || matches!(health.health(), Health::Ready);
        tokio::spawn(keep_network_available(cluster, node.clone(), ready));
    }
    let drops = Arc::new(DropLog::default());
    drops.start(&readable, Arc::clone(&shared))?;
    let numbers = Arc::new(MetricsServer {
        shared: Arc::clone(&shared),
        tables: Arc::clone(&readable),
        drops: Arc::clone(&drops),
        configuration: configuration(healthz, metrics_bind, &node_port_addresses),
    });
    let admin = Arc::new(Admin {
        shared: Arc::clone(&shared),
        tables: readable,
        drops,
        log,
        comparing: admin::Turn::default(),
    });
    // Nothing that serves pods waits for who looks in.
    if parts.serves() {
        tokio::spawn(serve_checks(Arc::clone(&shared), node_port_addresses, shared.checks.subscribe()));
    }
    let patience = (api_server_patience > 0).then(|| Duration::from_secs(api_server_patience));
    let health = Arc::new(HealthServer { shared: Arc::clone(&shared), patience });
    tokio::spawn(async move { keep(healthz, "health", HEALTHZ_TAKEN, health).await });
    tokio::spawn(async move { keep(metrics_bind, "metrics", METRICS_TAKEN, numbers).await });
    let [terminate, interrupt] = &mut end;
    let conflist = Conflist::new(&cni_conf_dir, &cni_conf_name, &cni_socket, cni_chain);
    let (of_conflist, of_proxy) = (Arc::clone(&shared), Arc::clone(&shared));
    let conflist =
        async move { if parts.wires() { conflist::keep(of_conflist, conflist).await } else { pending().await } };
    let proxy = async move { if parts.serves() { proxy::watch(of_proxy).await } else { pending().await } };
    admin::clear(&run_dir);
    info!(node, %parts, "agent started");
    tokio::select! {
        () = wait(terminate) => {}
        () = wait(interrupt) => {}
        result = server.run() => result?,
        result = wiring => result?,
        () = forwarding => return Err(DaemonError::SourceEnded),
        () = foreign => return Err(DaemonError::LoopEnded),
        () = conflist => {}
        () = proxy => {}
        _ = asking => return Err(DaemonError::LoopEnded),
        _ = told_zone => return Err(DaemonError::LoopEnded),
        () = admin::serve(admin, questions) => {}
        _ = &mut looping => return Err(DaemonError::LoopEnded),
    }
    // Nobody sends to the loop any more: it saves what rules have counted, and ends.
    if tokio::time::timeout(END, looping).await.is_err() {
        warn!("can't save the rule counters in time: what they counted in the last seconds may be lost");
    }
    info!("agent stopped: programs and maps stay in force");
    Ok(())
}

async fn wait(signal: &mut std::io::Result<tokio::signal::unix::Signal>) {
    match signal {
        Ok(signal) => drop(signal.recv().await),
        Err(_) => pending().await,
    }
}
