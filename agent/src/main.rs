//! `fairlead`: the agent of a node, and the command that asks it.

use std::process::ExitCode;

use fairlead_agent::cli::{self, CliError};

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::No) => ExitCode::FAILURE,
        Err(CliError::Code(code)) => ExitCode::from(code),
        Err(error) => {
            eprintln!("fairlead: {error}");
            ExitCode::from(2)
        }
    }
}
