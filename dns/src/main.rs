//! The cluster's DNS server as a process.
#![forbid(unsafe_code)]

mod cli;

use std::io::IsTerminal;
use std::sync::{Arc, RwLock};

use anyhow::{Context, Result, bail};
use clap::Parser;
use fairlead_dns::fast::Manner;
use fairlead_dns::feed::feed;
use fairlead_dns::forward::{Forwarder, Limits};
use fairlead_dns::full::Responder;
use fairlead_dns::server::{Config, Server};
use fairlead_dns::stats::Stats;
use fairlead_dns::{Builder, Zone};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::cli::Args;

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    // hickory-server has two lines at the level `info` for each query.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,hickory_server=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();

    let listen = args.listen();
    let forwarder = Forwarder::new(args.upstreams(&listen)?, Limits::default());
    let zone = Arc::new(RwLock::new(Zone::new(args.zone.clone(), args.ttl)?));
    let manner = Manner { recursion: forwarder.is_some(), max_udp: args.max_udp };
    let responder = Arc::new(Responder { zone: Arc::clone(&zone), forwarder, manner, stats: Stats::default() });
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    // Queries are answered from now on: with SERVFAIL until the objects are known.
    let server = Server::start(&Config { listen, threads: args.threads() }, &responder).await?;
    let feed = feed(args.source().spawn(), Builder::new(&args.zone)?, zone);
    let ended = tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        () = feed => true,
    };
    server.stop().await;
    tracing::info!(stats = ?responder.stats, "stopped");
    if ended {
        bail!("the source of objects ended: answers would go stale, so the server ends too; start it again");
    }
    Ok(())
}
