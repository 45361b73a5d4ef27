//! The command line.

mod args;
mod named;
mod node;
mod pages;
mod print;
mod show;
mod version;
mod what_if;

use std::path::Path;

use fairlead_objects::Source;
use fairlead_objects::kubernetes::{Access, Cluster, Interest};
use fairlead_settings::SettingsError;
use serde::de::DeserializeOwned;

use crate::admin::{
    self, ClientError, Connection, DEFAULT_SOCKET, PolicyAudit, PolicyExplanation, PolicyRuleView, PolicyVerdict,
    Request, ServiceExplanation, ServiceView, StatusView,
};
use crate::daemon::{self, DaemonError};
use crate::log::{self, Log};
use crate::settings::GROUPS;
use crate::state::{DropView, DropsView};
use args::{AgentArgs, Args, Command, DropsArgs, LogLevelArgs, PolicyCommand, ServiceCommand, StatusArgs};
use named::Asked;
use show::{List, Output, answer, line, say, show, text};

/// Why a command failed. Its text is for a person.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The settings file.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The agent.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The agent's answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Something that the machine refuses.
    #[error("{0}: {1}")]
    Io(&'static str, std::io::Error),
    /// A question that can't be asked.
    #[error("{0}")]
    Usage(String),
    /// The asked-for thing is not so: exit code 1, nothing to say.
    #[error("")]
    No,
    /// The answer is an exit code, and nothing is left to say.
    #[error("")]
    Code(u8),
}

/// What the build says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// The commit, where the work tree was exactly that.
    pub commit: Option<&'static str>,
}

/// Runs what the command line says.
///
/// # Errors
/// It failed, or its answer is no.
pub fn run(build: Build) -> Result<(), CliError> {
    let parsed = fairlead_settings::parse(&GROUPS);
    let Args { command, socket, output } = parsed.inspect_err(|error| {
        // Only an agent has settings, and its run directory is one of them.
        if let Some(run_dir) = Path::new(DEFAULT_SOCKET).parent() {
            admin::leave(run_dir, &error.to_string());
        }
    })?;
    let filter = std::env::var("RUST_LOG").ok().filter(|text| log::filter(text).is_ok());
    let filter = match &command {
        Command::Agent(args) => Some(args.settings.log_level.clone()),
        _ => filter,
    };
    let log = Log::start(filter.as_deref().unwrap_or(log::DEFAULT));
    match command {
        Command::Agent(args) => agent(*args, log),
        Command::Status(StatusArgs { verbose, watch }) => answer(output, watch, || {
            let status: StatusView = ask(&socket, &Request::Status)?;
            let verbose = verbose || output == Output::Wide;
            let text = text(output, "Status", &status, || print::status(&status, verbose))?;
            Ok((text, if status.health == "impaired" { Err(CliError::No) } else { Ok(()) }))
        }),
        Command::Service(ServiceCommand::List { watch }) => answer(output, watch, || {
            let services: Vec<ServiceView> = ask(&socket, &Request::ServiceList)?;
            let wide = output == Output::Wide;
            let text = text(output, "Services", &List { items: &services }, || print::services(&services, wide))?;
            Ok((text, Ok(())))
        }),
        Command::Service(ServiceCommand::Explain { asked, watch }) => answer(output, watch, || {
            let explained = explain(&socket, &asked)?;
            let list = List { items: &explained };
            Ok((text(output, "ServiceExplanations", &list, || print::explained(&explained))?, Ok(())))
        }),
        Command::Policy(PolicyCommand::Explain { from, to, exit_code, watch }) => answer(output, watch, || {
            let args::Destination { end, port, protocol } = to.clone();
            let request = Request::PolicyExplain { from: from.clone(), to: end, port, protocol };
            let explanation: PolicyExplanation = ask(&socket, &request)?;
            let text = text(output, "PolicyExplanation", &explanation, || print::policy(&explanation))?;
            let end = match explanation.verdict {
                PolicyVerdict::Dropped | PolicyVerdict::Refused if exit_code => Err(CliError::Code(3)),
                PolicyVerdict::Partly if exit_code => Err(CliError::Code(4)),
                _ => Ok(()),
            };
            Ok((text, end))
        }),
        Command::Policy(PolicyCommand::List { pod, stale, watch }) => answer(output, watch, || {
            let mut rules: Vec<PolicyRuleView> = ask(&socket, &Request::PolicyList { pod: pod.clone() })?;
            let (now, wide) = (crate::state::now(), output == Output::Wide);
            rules.retain(|rule| stale.is_none_or(|days| print::is_stale(rule, days, now)));
            let text = text(output, "Policies", &List { items: &rules }, || print::policies(&rules, now, wide))?;
            Ok((text, Ok(())))
        }),
        Command::Policy(PolicyCommand::Audit { pod, watch }) => answer(output, watch, || {
            let audit: PolicyAudit = ask(&socket, &Request::PolicyAudit { pod: pod.clone() })?;
            let text = text(output, "PolicyAudit", &audit, || print::audit(&audit, crate::state::now()))?;
            Ok((text, Ok(())))
        }),
        Command::Policy(PolicyCommand::WhatIf(args)) => what_if::run(&args, &socket, output),
        Command::Drops(DropsArgs { follow }) => drops(&socket, output, follow),
        Command::LogLevel(LogLevelArgs { filter }) => {
            let level: String = ask(&socket, &Request::LogLevel { filter })?;
            show(output, "LogLevel", &LogLevel { filter: &level }, || format!("{level}\n"))
        }
        Command::Install(args) => node::install(&args, output),
        Command::Doctor(args) => node::doctor(&args, output),
        Command::Uninstall(args) => node::uninstall(&args, output),
        Command::Version => version::version(&socket, build, output),
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { directory } => pages::manual(&directory),
        Command::Stay => node::stay(),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
        .map_err(|error| CliError::Io("can't start threads", error))
}

fn agent(args: AgentArgs, log: Log) -> Result<(), CliError> {
    let AgentArgs { node, objects, kubeconfig, config: _, settings } = args;
    let source = match objects {
        Some(dir) => Source::Directory(dir),
        None => {
            let (server, run_dir) = (settings.api_server.clone(), Some(settings.run_dir.clone()));
            let cluster = Cluster::new(Access { server, kubeconfig, run_dir });
            Source::Kubernetes(cluster, Interest::Node(node.clone()))
        }
    };
    let run_dir = settings.run_dir.clone();
    let config = daemon::Config { node, source, settings, log };
    let runtime = runtime()?;
    let result = runtime.block_on(daemon::run(config));
    // Whatever still runs has nothing to save: the journal and the maps are as they are after a kill.
    runtime.shutdown_background();
    if let Err(error) = &result {
        admin::leave(&run_dir, &error.to_string());
    }
    Ok(result?)
}

fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, CliError> {
    Ok(Connection::ask(socket, request)?.answer()?)
}

/// What is logged.
#[derive(serde::Serialize)]
struct LogLevel<'a> {
    filter: &'a str,
}

/// Explains an address, or each address of a Service.
fn explain(socket: &Path, asked: &Asked) -> Result<Vec<ServiceExplanation>, CliError> {
    let addresses = match asked {
        Asked::Address(address) => vec![*address],
        Asked::Service { service, port } => {
            let rows: Vec<ServiceView> = ask(socket, &Request::ServiceList)?;
            named::addresses(&rows, service, port.as_deref()).map_err(CliError::Usage)?
        }
    };
    let mut explained = Vec::new();
    for address in addresses {
        explained.extend(ask::<Vec<ServiceExplanation>>(socket, &Request::ServiceExplain { address })?);
    }
    Ok(explained)
}

fn drops(socket: &Path, output: Output, follow: bool) -> Result<(), CliError> {
    let mut connection = Connection::ask(socket, &Request::Drops { follow })?;
    let view: DropsView = connection.answer()?;
    if !follow {
        return show(output, "Drops", &view, || print::drops(&view));
    }
    loop {
        let seen: Vec<DropView> = connection.answer()?;
        for drop in &seen {
            match output {
                Output::Table | Output::Wide => say(&print::drop_line(drop))?,
                Output::Json | Output::Yaml => say(&line(output, "Drop", drop)?)?,
            }
        }
    }
}
