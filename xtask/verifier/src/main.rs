//! Loads every program of an eBPF object and says what the kernel's verifier thought of it.
//!
//! `fairlead-verifier OBJECT` does so on the running kernel. As the first process of a machine (it is then all that the
//! initramfs has, besides /object) it mounts what loading needs, does the same and turns the machine off.
//!
//! It prints one line for each program, with tabs between: `fairlead-verifier`, `ok`, name, verified instructions; or
//! `fairlead-verifier`, `failed`, name, the error and the end of the verifier's log, with `\n` for line ends. The last
//! line is `fairlead-verifier`, `done`, the kernel's release.
#![forbid(unsafe_code)]

mod guest;
mod load;

use std::{env, fs, process::ExitCode};

use anyhow::{Context, Result};

fn main() -> ExitCode {
    let first = std::process::id() == 1;
    let result = if first { guest::prepare().and_then(|()| verify(guest::OBJECT)) } else { from_arguments() };
    if let Err(error) = &result {
        println!("fairlead-verifier\tfailed\t-\t{}", load::one_line(&format!("{error:#}")));
    }
    if first {
        guest::power_off();
    }
    if result.is_ok_and(|all_loaded| all_loaded) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn from_arguments() -> Result<bool> {
    let object = env::args().nth(1).context("usage: fairlead-verifier OBJECT (as root)")?;
    verify(&object)
}

/// Whether every program of the object at this path was loaded.
fn verify(path: &str) -> Result<bool> {
    let object = fs::read(path).with_context(|| format!("can't read {path}"))?;
    let all_loaded = load::all(&object)?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("fairlead-verifier\tdone\t{}", release.trim_end());
    Ok(all_loaded)
}
