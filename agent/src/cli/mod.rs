//! The command line.

mod args;
mod node;
mod print;

use std::io::Write;
use std::path::Path;

use fairlead_objects::Source;
use fairlead_objects::kubernetes::{Access, Cluster, Interest};
use fairlead_settings::SettingsError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admin::{
    self, ClientError, Connection, DEFAULT_SOCKET, PolicyExplanation, PolicyVerdict, Request, ServiceExplanation,
    ServiceView, StatusView,
};
use crate::daemon::{self, DaemonError};
use crate::log::{self, Log};
use crate::settings::GROUPS;
use crate::state::{DropView, DropsView};
use args::{AgentArgs, Args, Command, DropsArgs, LogLevelArgs, Output, PolicyCommand, ServiceCommand};

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

/// Runs what the command line says.
///
/// # Errors
/// It failed, or its answer is no.
pub fn run() -> Result<(), CliError> {
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
        Command::Policy(PolicyCommand::Explain { from, to, exit_code }) => {
            let args::Destination { end, port, protocol } = to;
            let request = Request::PolicyExplain { from, to: end, port, protocol };
            let explanation: PolicyExplanation = ask(&socket, &request)?;
            show(output, &explanation, || print::policy(&explanation))?;
            match explanation.verdict {
                PolicyVerdict::Dropped | PolicyVerdict::Refused if exit_code => Err(CliError::Code(3)),
                PolicyVerdict::Partly if exit_code => Err(CliError::Code(4)),
                _ => Ok(()),
            }
        }
        Command::Drops(DropsArgs { follow }) => drops(&socket, output, follow),
        Command::LogLevel(LogLevelArgs { filter }) => {
            let level: String = ask(&socket, &Request::LogLevel { filter })?;
            show(output, &level, || format!("{level}\n"))
        }
        Command::Install(args) => node::install(&args, output),
        Command::Doctor(args) => node::doctor(&args, output),
        Command::Uninstall(args) => node::uninstall(&args, output),
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
