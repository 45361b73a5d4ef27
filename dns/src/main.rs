//! The cluster's DNS server as a process.
#![forbid(unsafe_code)]

mod check;
mod cli;
mod follow;
mod health;
mod metrics;
mod planned;
mod values;

use std::io::IsTerminal;
use std::sync::{Arc, RwLock};

use anyhow::{Context, Result, bail};
use fairlead_dns::feed::{Make, feed};
use fairlead_dns::files::Disk;
use fairlead_dns::full::{Responder, Transfers};
use fairlead_dns::manner::Manner;
use fairlead_dns::mirror::{self, Mirror};
use fairlead_dns::names::Gate as NameGate;
use fairlead_dns::server::{Config, Server};
use fairlead_dns::site::log::Gate;
use fairlead_dns::stats::Stats;
use fairlead_dns::{Builder, Zone, descriptors};
use fairlead_objects::kubernetes::Cluster;
use fairlead_observe::Process;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::cli::{Args, QUIET, Verb};
use crate::follow::Follower;
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

    if let Some(Verb::Check { corefile }) = &args.command {
        print!("{}", check::check(corefile, &Disk)?);
        return Ok(());
    }
    let mut follower = Follower::new(args.clone());
    let plan = follower.plan()?;
    plan.notes.iter().for_each(|note| tracing::info!("{note}"));
    let listen = args.listen(&plan);
    let zone = Arc::new(RwLock::new(Zone::new(plan.origin.clone(), plan.ttl)?));
    let site = RwLock::new(Arc::new(follower.make(&plan, &listen)?));
    let manner = Manner { recursion: false, max_udp: args.max_udp };
    let names = Arc::new(NameGate::default());
    if let Some(directory) = &args.names_dir {
        names.follow(directory);
    }
    let responder = Arc::new(Responder {
        zone,
        site,
        gate: Gate::default(),
        manner,
        transfers: Transfers::default(),
        names: Arc::clone(&names),
        stats: Stats::default(),
    });
    let process = Process::new();
    metrics::count_panics();
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    // Queries are answered from now on: with SERVFAIL until the objects are known.
    let connections = args.connections(descriptors::raise());
    let config = Config { listen: listen.clone(), threads: args.threads(), connections, tls: args.tls()? };
    let server = Server::start(&config, &responder).await?;
    let (make, made) = watch::channel(Make { options: plan.options.clone(), ttl: plan.ttl });
    tokio::spawn(follower.follow(plan.clone(), listen.clone(), Arc::clone(&responder), make));
    let source = args.source(&plan);
    let cluster = source.cluster().cloned();
    let troubles = move || cluster.as_ref().map(Cluster::troubles).unwrap_or_default();
    let readiness = Arc::new(Readiness::new(Arc::clone(&responder), Box::new(troubles), args.patience()));
    if let Some(directory) = args.names_dir.clone() {
        let fitness = Arc::clone(&readiness);
        let obstacle = Box::new(move || fitness.unfit());
        let own = mirror::Server { directory, listen, obstacle };
        tokio::spawn(Mirror::new(Arc::clone(&responder), own).keep());
    }
    let numbers = Metrics { responder: Arc::clone(&responder), readiness: Arc::clone(&readiness), process };
    health::serve(&args.places(&plan), &readiness, move |path: &str| numbers.answer(path));
    let feed = feed(source.spawn(), Builder::new(&plan.origin)?, Arc::clone(&responder), made);
    let mut feed = std::pin::pin!(feed);
    let mut ended = tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        () = &mut feed => true,
    };
    readiness.drain();
    if !ended && !args.lameduck(&plan).is_zero() {
        tracing::info!(time = ?args.lameduck(&plan), "terminating, still serving until clients have moved away");
        ended = tokio::select! {
            () = tokio::time::sleep(args.lameduck(&plan)) => false,
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
            () = &mut feed => true,
        };
    }
    server.stop().await;
    // What was asked elsewhere is still to be answered.
    for forwarder in responder.site().forwarders() {
        forwarder.idle().await;
    }
    tracing::info!(stats = ?responder.stats, "stopped");
    if ended {
        bail!("the source of objects ended: exiting, since answers would go stale; restart the server");
    }
    Ok(())
}
