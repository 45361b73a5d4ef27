//! Tests that cargo runs: units, and behaviour in the lab.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result};

use super::{Outcome, binaries};
use crate::{run, tally::Tally, toolchain};

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
    in_labs(filter, &["--ignored", "--test-threads=1", "--nocapture"])
}

/// Tests in `tests` folders, as root: these make network namespaces.
fn in_labs(filter: Option<&str>, harness: &[&str]) -> Result<Outcome> {
    let mut command = test(&["--test", "*"], filter, harness);
    command.env("FAIRLEAD_BIN_DIR", binaries());
    let root = run::root_prefix()?;
    if !root.is_empty() {
        let triple = toolchain::host().to_uppercase().replace('-', "_");
        command.env(format!("CARGO_TARGET_{triple}_RUNNER"), root.join(" "));
    }
    cargo_test(&mut command)
}

/// The same choice of packages as for the programs, so that nothing is built twice.
fn test(which: &[&str], filter: Option<&str>, harness: &[&str]) -> Command {
    let mut command = run::cargo();
    command.args(["test", "--locked", "--no-fail-fast"]).args(which).args(filter).arg("--").args(harness);
    command
}

/// Runs a `cargo test`, shows what it prints and counts.
pub(super) fn cargo_test(command: &mut Command) -> Result<Outcome> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("can't start cargo")?;
    let mut reading = Reading::default();
    for line in BufReader::new(child.stdout.take().context("cargo has no output")?).lines() {
        let line = line?;
        println!("{line}");
        reading.line(&line);
    }
    Ok(reading.end(child.wait()?.success()))
}

/// What has been read of the output of `cargo test`.
#[derive(Default)]
struct Reading {
    outcome: Outcome,
}

impl Reading {
    fn line(&mut self, line: &str) {
        if let Some(tally) = Tally::parse(line) {
            self.outcome.tally += tally;
        }
        if let Some(name) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
            self.outcome.failures.push(name.to_owned());
        }
    }

    /// A cargo that failed without a failed test could not build, or a test ended its process.
    fn end(mut self, success: bool) -> Outcome {
        if !success && self.outcome.tally.failed == 0 {
            self.outcome.tally += Tally::one(false);
            self.outcome
                .failures
                .push("cargo test: a test does not build, or its process ended early; see above".to_owned());
        }
        self.outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_add_up() {
        let mut reading = Reading::default();
        for line in [
            "test d2_other_family_is_nodata ... ok",
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test s33_no_endpoints_refuses ... FAILED",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            reading.line(line);
        }
        let outcome = reading.end(false);
        assert_eq!(outcome.tally, Tally { passed: 3, failed: 1 });
        assert_eq!(outcome.failures, ["s33_no_endpoints_refuses"]);
    }

    #[test]
    fn a_build_that_fails_is_a_failed_test() {
        assert_eq!(Reading::default().end(false).tally, Tally { passed: 0, failed: 1 });
        assert_eq!(Reading::default().end(true).tally, Tally::default());
    }
}
