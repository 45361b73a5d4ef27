//! The command line.

mod args;
mod print;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use clap::Parser;
use fairlead_objects::Source;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admin::{
    ClientError, Connection, DropView, DropsView, Request, ServiceExplanation, ServiceView, StatusView,
};
use crate::bpf::{BpfError, PinDir, remove_filters};
use crate::daemon::{self, DaemonError};
use crate::wiring::{Netlink, PodLinks, WiringError};
use args::{AgentArgs, Args, Command, DropsArgs, Output, PolicyCommand, ServiceCommand, UninstallArgs};
use print::Table;

/// Why a command failed. Its text is for a person.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The agent.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The agent's answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Removing what is pinned.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// Removing what is wired.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// Something that the machine refuses.
    #[error("{0}: {1}")]
    Io(&'static str, std::io::Error),
    /// A question that can't be asked.
    #[error("{0}")]
    Usage(String),
    /// The asked-for thing is not so: exit code 1, nothing to say.
    #[error("")]
    No,
}

/// Runs what the command line says.
///
/// # Errors
/// It failed, or its answer is no.
pub fn run() -> Result<(), CliError> {
    let Args { command, socket, output } = Args::parse();
    match command {
        Command::Agent(args) => agent(args),
        Command::Status => {
            let status: StatusView = ask(&socket, &Request::Status)?;
            show(output, &status, || print::status(&status))?;
            if status.health == "impaired" { Err(CliError::No) } else { Ok(()) }
        }
        Command::Service(ServiceCommand::List) => {
            let services: Vec<ServiceView> = ask(&socket, &Request::ServiceList)?;
            show(output, &services, || print::services(&services))
        }
        Command::Service(ServiceCommand::Explain { address }) => {
            let explained: Vec<ServiceExplanation> = ask(&socket, &Request::ServiceExplain { address })?;
            show(output, &explained, || print::explained(&explained))
        }
        Command::Policy(PolicyCommand::Explain { from, to }) => {
            let args::Destination { end, port, protocol } = to;
            let request = Request::PolicyExplain { from, to: end, port, protocol };
            let explanation: serde_json::Value = ask(&socket, &request)?;
            show(output, &explanation, || print::policy(&explanation))
        }
        Command::Drops(DropsArgs { follow }) => drops(&socket, output, follow),
        Command::Uninstall(args) => uninstall(&args),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
        .map_err(|error| CliError::Io("can't start threads", error))
}

fn agent(args: AgentArgs) -> Result<(), CliError> {
    let AgentArgs {
        node,
        objects,
        kubeconfig,
        run_dir,
        bpffs,
        cgroup_root,
        uplinks,
        node_port_addresses,
        tunnel,
        vxlan_port,
    } = args;
    let source = objects.map_or(Source::Kubernetes { kubeconfig }, Source::Directory);
    let config =
        daemon::Config { node, source, run_dir, bpffs, cgroup_root, uplinks, node_port_addresses, tunnel, vxlan_port };
    let runtime = runtime()?;
    let result = runtime.block_on(daemon::run(config));
    // Whatever still runs has nothing to save: the journal and the maps are as they are after a kill.
    runtime.shutdown_background();
    Ok(result?)
}

fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, CliError> {
    Ok(Connection::ask(socket, request)?.answer()?)
}

fn say(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever read has seen enough, as `head` does.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CliError::Io("can't write", error)),
        _ => Ok(()),
    }
}

fn show<T: Serialize>(output: Output, value: &T, table: impl FnOnce() -> String) -> Result<(), CliError> {
    match output {
        Output::Table => say(&table()),
        Output::Json => {
            let text = serde_json::to_string_pretty(value).map_err(|e| CliError::Usage(e.to_string()))?;
            say(&(text + "\n"))
        }
    }
}

fn drops(socket: &Path, output: Output, follow: bool) -> Result<(), CliError> {
    let mut connection = Connection::ask(socket, &Request::Drops { follow })?;
    let view: DropsView = connection.answer()?;
    if !follow {
        return show(output, &view, || print::drops(&view));
    }
    loop {
        let seen: Vec<DropView> = connection.answer()?;
        for drop in &seen {
            match output {
                Output::Table => say(&print::drop_line(drop))?,
                Output::Json => {
                    let line = serde_json::to_string(drop).map_err(|e| CliError::Usage(e.to_string()))?;
                    say(&(line + "\n"))?;
                }
            }
        }
    }
}

fn uninstall(args: &UninstallArgs) -> Result<(), CliError> {
    let UninstallArgs { bpffs, run_dir } = args;
    let socket = run_dir.join("agent.sock");
    if Connection::ask(&socket, &Request::Status).is_ok() {
        return Err(CliError::Usage("an agent runs on this node: stop it first, then uninstall".to_owned()));
    }
    let (links, routes) = runtime()?.block_on(async {
        let netlink = Netlink::open()?;
        let routes = netlink.node_routes().await?.len();
        for error in netlink.set_node_routes(&BTreeSet::new()).await? {
            tracing::warn!(%error, "a route stays");
        }
        for error in netlink.keep_neighbours(&BTreeSet::new()).await? {
            tracing::warn!(%error, "a neighbour stays");
        }
        if let Err(error) = netlink.remove_overlay().await {
            tracing::warn!(%error, "the tunnel's device stays");
        }
        let links = PodLinks::new(netlink);
        let found = links.list().await?;
        for link in &found {
            links.delete(&link.name).await?;
        }
        Ok::<_, WiringError>((found.len(), routes))
    })?;
    remove_filters();
    let pins = PinDir::remove(bpffs)?;
    match std::fs::remove_dir_all(run_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(CliError::Io("can't remove the run directory", error));
        }
        _ => {}
    }
    let mut table = Table::new(["removed", "count"]);
    table.row(["pod links with their routes".to_owned(), links.to_string()]);
    table.row(["routes to other nodes' pods".to_owned(), routes.to_string()]);
    table.row(["pinned programs and maps".to_owned(), pins.to_string()]);
    say(&table.to_string())
}
