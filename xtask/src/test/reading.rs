//! What `cargo test` prints: how many tests passed, which failed, and what those said.

use std::collections::BTreeMap;

use super::Outcome;
use crate::tally::Tally;

/// So many lines of what a failed test said are repeated at the end.
const LINES: usize = 16;
/// So much of a line is.
const COLUMNS: usize = 400;

/// What has been read.
#[derive(Default)]
pub(super) struct Reading {
    tally: Tally,
    failures: Vec<String>,
    /// Of the binary that runs.
    binary: Binary,
}

/// What the tests of one binary do.
#[derive(Default)]
struct Binary {
    failed: Vec<String>,
    said: BTreeMap<String, Vec<String>>,
    /// The one that speaks.
    speaks: Speaks,
}

#[derive(Default)]
enum Speaks {
    #[default]
    Nobody,
    /// A test, as it runs.
    Test(String),
    /// A test, of which it is told after all have run.
    Section(String),
    /// The list of those that failed.
    Failures,
}

impl Reading {
    pub(super) fn line(&mut self, line: &str) {
        match Tally::parse(line) {
            Some(tally) => {
                self.tally += tally;
                self.failures.extend(std::mem::take(&mut self.binary).failures());
            }
            None => self.binary.line(line),
        }
    }

    /// A cargo that failed without a failed test could not build, or a test ended its process.
    pub(super) fn end(mut self, success: bool) -> Outcome {
        self.failures.extend(self.binary.failures());
        if !success && self.tally.failed == 0 {
            self.tally += Tally::one(false);
            let failure = "cargo test: a test does not build, or its process ended early; see above".to_owned();
            self.failures.push(failure);
        }
        Outcome { tally: self.tally, failures: self.failures }
    }
}

impl Binary {
    fn line(&mut self, line: &str) {
        if let Some((test, rest)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
            self.speaks = Speaks::Test(test.to_owned());
            self.says(rest);
        } else if let Some(test) = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----")) {
            self.speaks = Speaks::Section(test.to_owned());
        } else if line == "failures:" {
            self.speaks = Speaks::Failures;
        } else {
            self.says(line);
        }
    }

    fn says(&mut self, line: &str) {
        match &self.speaks {
            Speaks::Nobody => {}
            Speaks::Test(test) if line == "FAILED" => {
                self.failed.push(test.clone());
                self.speaks = Speaks::Nobody;
            }
            Speaks::Test(test) if line == "ok" => {
                self.said.remove(test);
                self.speaks = Speaks::Nobody;
            }
            Speaks::Test(test) | Speaks::Section(test) => {
                self.said.entry(test.clone()).or_default().push(line.to_owned());
            }
            // Whoever speaks without an end of the line hides the word behind.
            Speaks::Failures => {
                let test = line.trim();
                if !test.is_empty() && !self.failed.iter().any(|failed| failed == test) {
                    self.failed.push(test.to_owned());
                }
            }
        }
    }

    /// Those that failed, each with what tells why in lines behind.
    fn failures(self) -> impl Iterator<Item = String> {
        let Self { failed, said, .. } = self;
        failed.into_iter().map(move |test| {
            let why = said.get(&test).map(|said| complaint(said)).unwrap_or_default();
            [vec![test], why].concat().join("\n    ")
        })
    }
}

/// Of what a test said what tells why it failed: from its panic or error on, without the stack.
fn complaint(said: &[String]) -> Vec<String> {
    let starts = |line: &String| line.contains(" panicked at ") || line.starts_with("Error: ");
    let from = said.iter().position(starts).unwrap_or_else(|| said.len().saturating_sub(LINES));
    let lines = said[from..].iter().take_while(|line| !line.eq_ignore_ascii_case("stack backtrace:"));
    let lines = lines.filter(|line| !line.trim().is_empty()).take(LINES);
    lines.map(|line| line.chars().take(COLUMNS).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, success: bool) -> Outcome {
        let mut reading = Reading::default();
        text.lines().for_each(|line| reading.line(line));
        reading.end(success)
    }

    #[test]
    fn results_of_several_binaries_add_up_and_failures_say_why() {
        let outcome = read(
            "\
test d2_other_family_is_nodata ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
     Running tests/services.rs
test s33_no_endpoints_refuses ... FAILED
test s34_something_else ... ok

failures:

---- s33_no_endpoints_refuses stdout ----
something before

thread 's33_no_endpoints_refuses' (7271) panicked at tests/tests/services.rs:9:9:
assertion failed: is_refused
stack backtrace:
   0: __rustc::rust_begin_unwind

failures:
    s33_no_endpoints_refuses

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
error: test failed",
            false,
        );
        assert_eq!(outcome.tally, Tally { passed: 3, failed: 1 });
        let why = "s33_no_endpoints_refuses\n    thread 's33_no_endpoints_refuses' (7271) panicked at tests/tests/services.rs:9:9:\n    \
            assertion failed: is_refused";
        assert_eq!(outcome.failures, [why]);
    }

    #[test]
    fn failures_that_are_shown_as_they_come_say_why() {
        let outcome = read(
            "\
running 3 tests
test one ... Report { attempted: 3 }
ok
test two ... Report { attempted: 4 }
Error: pods are not ready

Caused by:
    kubectl failed
FAILED
test three ... ok

failures:

failures:
    two

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            false,
        );
        assert_eq!(outcome.tally, Tally { passed: 2, failed: 1 });
        assert_eq!(outcome.failures, ["two\n    Error: pods are not ready\n    Caused by:\n        kubectl failed"]);
    }

    #[test]
    fn of_a_long_text_the_beginning_is_repeated() {
        let numbers = (0..40).map(|number| number.to_string());
        let said: Vec<String> = ["before", "Error: much"].into_iter().map(str::to_owned).chain(numbers).collect();
        let complaint = complaint(&said);
        assert_eq!((complaint.len(), complaint[0].as_str()), (LINES, "Error: much"));
        assert_eq!(super::complaint(&["x".repeat(COLUMNS + 1)])[0].len(), COLUMNS);
    }

    #[test]
    fn a_build_that_fails_is_a_failed_test() {
        assert_eq!(read("", false).tally, Tally { passed: 0, failed: 1 });
        assert_eq!(read("", true).tally, Tally::default());
    }
}
