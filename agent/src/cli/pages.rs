//! Completions and manual pages, made of the definition of the command line.

use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::CliError;
use super::args::Args;
use super::show::say;

/// The command line as it is defined, with the name of the program.
fn command() -> Command {
    Args::command().name("fairlead")
}

/// Completions for a shell, to be sourced or put where it looks for them.
pub(super) fn completions(shell: Shell) -> Result<(), CliError> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(), "fairlead", &mut text);
    say(&String::from_utf8_lossy(&text))
}

/// Writes a page of section 1 for `fairlead` and one for each of its commands.
pub(super) fn manual(directory: &Path) -> Result<(), CliError> {
    std::fs::create_dir_all(directory).map_err(|error| CliError::Io("can't make the directory of the pages", error))?;
    clap_mangen::generate_to(command(), directory).map_err(|error| CliError::Io("can't write a manual page", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_manual_page() {
        let directory = std::env::temp_dir().join(format!("fairlead-manual-{}", std::process::id()));
        manual(&directory).unwrap();
        let page = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
        assert!(page("fairlead.1").contains("fairlead\\-status(1)"), "{}", page("fairlead.1"));
        for name in ["fairlead-status.1", "fairlead-service-explain.1", "fairlead-uninstall.1", "fairlead-agent.1"] {
            assert!(page(name).contains(".SH OPTIONS"), "{name}");
        }
        assert!(!directory.join("fairlead-stay.1").exists(), "a hidden command has none");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn completions_name_commands() {
        let mut text = Vec::new();
        clap_complete::generate(Shell::Bash, &mut command(), "fairlead", &mut text);
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("uninstall") && text.contains("--dry-run"), "{text}");
    }
}
