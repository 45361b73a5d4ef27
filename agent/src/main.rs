//! `fairlead`: the agent of a node, and the command that asks it.

use std::io::IsTerminal;
use std::process::ExitCode;

use fairlead_agent::cli::{self, CliError};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::No) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fairlead: {error}");
            ExitCode::from(2)
        }
    }
}
