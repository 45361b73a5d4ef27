//! The cluster's DNS server as a process.
#![forbid(unsafe_code)]

mod cli;
mod health;
mod metrics;

use std::io::IsTerminal;
use std::sync::{Arc, RwLock};

use anyhow::{Context, Result, bail};
use fairlead_dns::descriptors;
use fairlead_dns::fast::Manner;
use fairlead_dns::feed::feed;
use fairlead_dns::forward::Forwarder;
use fairlead_dns::full::Responder;
use fairlead_dns::server::{Config, Server};
use fairlead_dns::stats::Stats;
use fairlead_dns::{Builder, Zone};
use fairlead_objects::kubernetes::Cluster;
use fairlead_observe::Process;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::cli::{Args, QUIET};
use crate::health::Readiness;
use crate::metrics::Metrics;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Args = fairlead_settings::parse(&[])?;
    let filter = EnvFilter::new(format!("{QUIET},{}", args.log_level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();

    let listen = args.listen();
    let forwarder = Forwarder::new(args.forward(&listen)?).map(Arc::new);
    let zone = Arc::new(RwLock::new(Zone::new(args.zone.clone(), args.ttl)?));
    let hosts = RwLock::new(Arc::new(args.hosts()?));
    let manner = Manner { recursion: forwarder.is_some(), max_udp: args.max_udp };
    let responder = Arc::new(Responder { zone, forwarder, hosts, manner, stats: Stats::default() });
    let process = Process::new();
    metrics::count_panics();
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    // Queries are answered from now on: with SERVFAIL until the objects are known.
    let connections = args.connections(descriptors::raise());
    let config = Config { listen: listen.clone(), threads: args.threads(), connections, tls: args.tls()? };
    let server = Server::start(&config, &responder).await?;
    if let Some(forwarder) = responder.forwarder.clone() {
        let (zone, listen) = (Arc::clone(&responder.zone), listen.clone());
        let local = || cli::local_addresses().unwrap_or_default();
        tokio::spawn(Arc::clone(&forwarder).tend(zone, listen.clone(), local));
        let args = args.clone();
        tokio::spawn(async move { args.follow_resolv_conf(&forwarder, &listen).await });
    }
    {
        let (args, responder) = (args.clone(), Arc::clone(&responder));
        tokio::spawn(async move { args.follow_hosts(&responder).await });
    }
    let source = args.source();
    let cluster = source.cluster().cloned();
    let troubles = move || cluster.as_ref().map(Cluster::troubles).unwrap_or_default();
    let readiness = Arc::new(Readiness::new(Arc::clone(&responder), Box::new(troubles), args.patience()));
    let numbers = Metrics { responder: Arc::clone(&responder), readiness: Arc::clone(&readiness), process };
    health::serve(&args.places(), &readiness, numbers);
    let feed = feed(source.spawn(), Builder::new(&args.zone)?, Arc::clone(&responder));
    let mut feed = std::pin::pin!(feed);
    let mut ended = tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        () = &mut feed => true,
    };
    readiness.drain();
    if !ended && !args.lameduck().is_zero() {
        tracing::info!(time = ?args.lameduck(), "terminating, still serving until clients have moved away");
        ended = tokio::select! {
            () = tokio::time::sleep(args.lameduck()) => false,
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
            () = &mut feed => true,
        };
    }
    server.stop().await;
    // What was asked elsewhere is still to be answered.
    if let Some(forwarder) = &responder.forwarder {
        forwarder.idle().await;
    }
    tracing::info!(stats = ?responder.stats, "stopped");
    if ended {
        bail!("the source of objects ended: exiting, since answers would go stale; restart the server");
    }
    Ok(())
}
