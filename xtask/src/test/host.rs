//! Tests that cargo runs: units, and behaviour in the lab.

use std::{
    io::{self, BufRead as _, BufReader},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result};

use super::{Outcome, binaries, reading::Reading};
use crate::{next, run, toolchain};

/// What needs an agent with other tables.
const TO_NEXT: &str = "c52_ten_thousand_connections_go_on_to_the_next_release_and_back";

/// Unit tests of every crate, and the examples in their documentation.
pub(super) fn units(filter: Option<&str>) -> Result<Outcome> {
    let mut outcome = cargo_test(&mut test(&["--lib", "--bins"], filter, &[]))?;
    let examples = cargo_test(&mut test(&["--doc"], filter, &[]))?;
    outcome.tally += examples.tally;
    outcome.failures.extend(examples.failures);
    Ok(outcome)
}

/// Everything in `tests` folders.
pub(super) fn behaviour(filter: Option<&str>, threads: Option<usize>) -> Result<Outcome> {
    let threads = threads.unwrap_or_else(|| thread::available_parallelism().map_or(2, usize::from));
    in_labs(filter, &[&format!("--test-threads={threads}")])
}

/// What is marked there as taking too long for every change, one after the other, with what it says.
pub(super) fn long(filter: Option<&str>) -> Result<Outcome> {
    // One goes to the next release and back.
    if filter.is_none_or(|filter| TO_NEXT.contains(filter)) {
        next::build()?;
    }
    // Those of SCTP and of VLAN devices run in a guest.
    in_labs(filter, &["--ignored", "--skip=sctp", "--skip=vlan_device", "--test-threads=1", "--nocapture"])
}

/// The tests of Services, with XDP at the uplinks of all labs.
pub(super) fn with_xdp() -> Result<Outcome> {
    let mut command = test(&["--test", "outside", "--test", "services"], None, &["--test-threads=2"]);
    cargo_test(as_root(command.env("FAIRLEAD_LAB_XDP", "1"))?)
}

/// Tests in `tests` folders.
fn in_labs(filter: Option<&str>, harness: &[&str]) -> Result<Outcome> {
    cargo_test(as_root(&mut test(&["--test", "*"], filter, harness))?)
}

/// Has tests run as root: these make network namespaces.
fn as_root(command: &mut Command) -> Result<&mut Command> {
    command.env("FAIRLEAD_BIN_DIR", binaries());
    let root = run::root_prefix()?;
    if !root.is_empty() {
        let triple = toolchain::host().to_uppercase().replace('-', "_");
        command.env(format!("CARGO_TARGET_{triple}_RUNNER"), root.join(" "));
    }
    Ok(command)
}

/// The same choice of packages as for the programs, so that nothing is built twice.
fn test(which: &[&str], filter: Option<&str>, harness: &[&str]) -> Command {
    let mut command = run::cargo();
    command.args(["test", "--locked", "--no-fail-fast"]).args(which).args(filter).arg("--").args(harness);
    command
}

/// Runs a `cargo test`, shows what it prints and counts.
pub(super) fn cargo_test(command: &mut Command) -> Result<Outcome> {
    // One pipe for both, so that what a test says is read in its place.
    let (out, both) = io::pipe().context("no pipe")?;
    let mut child = command.stdout(both.try_clone()?).stderr(both).spawn().context("can't start cargo")?;
    // It has the ends that are written to, and this process must not.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut reading = Reading::default();
    for line in BufReader::new(out).split(b'\n') {
        // What can't be read is the end of what cargo says, and it is waited for all the same.
        let Ok(line) = line else { break };
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        reading.line(&line);
    }
    Ok(reading.end(child.wait()?.success()))
}
