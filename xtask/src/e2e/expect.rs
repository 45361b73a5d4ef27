//! What is expected of a spec: to pass, unless a file in `tests/cluster` says otherwise, by name and with the reason.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::specs::{Spec, State};
use crate::tally::Tally;

/// What a line of `tests/cluster/known-failures` begins with when its spec is not even tried.
const CANNOT: &str = "cannot";

/// The file `known-failures`: lines of `ROW: NAME`, the row being the one of the behaviour tables that the spec waits for, and of
/// `cannot, REASON: NAME` for what can't run on the kernels that the tests have.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Name to row.
    pub(super) fails: BTreeMap<String, String>,
    /// Name to reason.
    pub(super) cannot: BTreeMap<String, String>,
}

impl Known {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut known = Self::default();
        for (number, line) in lines(text) {
            let Some((reason, name)) = line.split_once(": ").filter(|(_, name)| name.starts_with("[sig-")) else {
                bail!("known-failures, line {number}: expected `ROW: NAME` with the spec's whole name, not {line:?}");
            };
            let before = match reason.strip_prefix(CANNOT) {
                Some(why) => {
                    let why = why.trim_start_matches(',').trim();
                    known.cannot.insert(name.to_owned(), why.to_owned())
                }
                None => known.fails.insert(name.to_owned(), reason.to_owned()),
            };
            if before.is_some() {
                bail!("known-failures, line {number}: a second line for {name:?}");
            }
        }
        Ok(known)
    }

    /// A spec that upstream has renamed or removed is not known any more.
    pub(super) fn are_among(&self, names: &[String]) -> Result<()> {
        let mut gone = self.fails.keys().chain(self.cannot.keys()).filter(|name| !names.contains(name));
        match gone.next() {
            Some(name) => bail!("known-failures lists {name:?}, which upstream does not have: remove it"),
            None => Ok(()),
        }
    }
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// What became of the run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(super) passed: Vec<String>,
    /// Failed and known to, with the row.
    pub(super) known: Vec<(String, String)>,
    /// What is wrong, a line each.
    pub(crate) wrong: Vec<String>,
}

impl Verdict {
    /// A line for each spec.
    pub(super) fn say(&self) {
        for name in &self.passed {
            println!("passed  {name}");
        }
        for (name, row) in &self.known {
            println!("known   {name}: waits for {row}");
        }
        for line in &self.wrong {
            println!("FAILED  {line}");
        }
    }

    /// What is known to fail and does so is as it should be.
    pub(crate) fn tally(&self) -> Tally {
        Tally { passed: self.passed.len() + self.known.len(), failed: self.wrong.len() }
    }
}

/// Compares what was asked for with what came.
pub(super) fn judge(chosen: &[&str], ran: &[Spec], known: &Known) -> Verdict {
    let ran: BTreeMap<&str, &Spec> = ran.iter().map(|spec| (spec.name.as_str(), spec)).collect();
    let mut verdict = Verdict::default();
    for &name in chosen {
        let row = known.fails.get(name);
        let state = ran.get(name).map_or(State::NotRun, |spec| spec.state);
        let message = || ran.get(name).map_or_else(String::new, |spec| first_line(&spec.message));
        match (state, row) {
            (State::Passed, None) => verdict.passed.push(name.to_owned()),
            (State::Passed, Some(row)) => verdict
                .wrong
                .push(format!("{name} passes, but known-failures says that it waits for {row}: remove it there")),
            (State::Failed, Some(row)) => verdict.known.push((name.to_owned(), row.clone())),
            (State::Failed, None) => verdict.wrong.push(format!("{name}: {}", message())),
            (State::LeftOut, _) => verdict.wrong.push(format!("{name} was skipped: {}", message())),
            (State::NotRun, _) => verdict.wrong.push(format!("{name} did not run: the run ended before")),
        }
    }
    verdict
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason given").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, state: State) -> Spec {
        Spec { name: name.to_owned(), state, seconds: 1.0, message: "\n why\nmore".to_owned() }
    }

    const A: &str = "[sig-network] a";
    const B: &str = "[sig-network] b: with a colon";

    #[test]
    fn the_file_names_rows_and_what_cannot_run() {
        let known = Known::parse(&format!("# text\n\nS12: {A}\ncannot, no SCTP in the kernel: {B}\n")).unwrap();
        assert_eq!(known.fails[A], "S12");
        assert_eq!(known.cannot[B], "no SCTP in the kernel");
        assert!(Known::parse("S12 [sig-network] a").is_err());
        assert!(Known::parse(&format!("S12: {A}\nS13: {A}")).is_err());
        assert!(known.are_among(&[A.to_owned(), B.to_owned()]).is_ok());
        assert!(known.are_among(&[A.to_owned()]).unwrap_err().to_string().contains(B));
    }

    #[test]
    fn a_known_failure_that_passes_is_wrong_and_an_unknown_one_too() {
        let known = Known::parse(&format!("S12: {A}")).unwrap();
        let verdict = judge(&[A, B], &[spec(A, State::Failed), spec(B, State::Passed)], &known);
        assert_eq!((verdict.wrong.len(), verdict.known.len(), verdict.passed.len()), (0, 1, 1));
        let verdict = judge(&[A, B], &[spec(A, State::Passed), spec(B, State::Failed)], &known);
        assert!(verdict.wrong[0].contains("waits for S12"), "{verdict:?}");
        assert_eq!(verdict.wrong[1], format!("{B}: why"));
    }

    #[test]
    fn what_did_not_run_is_wrong() {
        assert_eq!(judge(&[A], &[], &Known::default()).wrong.len(), 1);
        assert_eq!(judge(&[A], &[spec(A, State::LeftOut)], &Known::default()).wrong.len(), 1);
    }
}
