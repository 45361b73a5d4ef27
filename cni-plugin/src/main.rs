//! `fairlead-cni`: the binary that a container runtime executes for every pod.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut stdin = Vec::new();
    let outcome = match std::io::stdin().read_to_end(&mut stdin) {
        Ok(_) => fairlead_cni::run(|name| std::env::var(name).ok(), &stdin),
        Err(source) => fairlead_cni::Outcome::unreadable_input(source),
    };
    // The runtime reads the answer from here and nowhere else; when it is gone there is nobody to tell.
    let written = std::io::stdout().lock().write_all(outcome.stdout.as_bytes());
    if outcome.success && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
