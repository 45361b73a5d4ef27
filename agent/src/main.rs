//! `fairlead`: the agent of a node, and the command that asks it.

use std::process::ExitCode;

use fairlead_agent::cli::{self, Build, CliError};

fn main() -> ExitCode {
    // Set by whoever builds a release. What is built of one commit is the same bytes wherever and whenever that is.
    match cli::run(Build { commit: option_env!("FAIRLEAD_COMMIT") }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::No) => ExitCode::FAILURE,
        Err(CliError::Code(code)) => ExitCode::from(code),
        Err(error) => {
            eprintln!("fairlead: {error}");
            ExitCode::from(2)
        }
    }
}
