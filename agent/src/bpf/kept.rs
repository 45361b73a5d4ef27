//! What whoever keeps the node's bpf file system mounted says of itself (`fairlead install --keep`), in the file that it keeps locked:
//! a line of when it looked and what it holds, then one for each thing that it can't put right.

use std::path::Path;
use std::time::Duration;

use fairlead_files::Lock;
use nix::time::{ClockId, clock_gettime};

/// A keeper that has not looked for so long is not waited for. It looks every ten seconds.
const SILENT: Duration = Duration::from_secs(60);

/// What is made of a file that is empty.
const UNSAID: &str =
    "state: it has not said how things are: is there space on the run directory's file system (df -h, df -i)?\n";

/// What a keeper says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// When it last looked, by CLOCK_MONOTONIC. `None`: it could not say.
    looked: Option<Duration>,
    /// The number (`st_dev`) of the bpf file system that it holds.
    holds: Option<u64>,
    /// A line for each thing that it can't put right.
    failing: String,
}

impl Kept {
    /// What one says that looks now.
    #[must_use]
    pub fn now(holds: Option<u64>, failing: String) -> Self {
        Self { looked: now(), holds, failing }
    }

    /// What the holder of a lock says. `None`: nobody holds it.
    #[must_use]
    pub fn of(lock: &Path) -> Option<Self> {
        Lock::said(lock).map(|text| Self::parse(&text))
    }

    /// The file's content. The first line is always as long, so that it can be written where there is no space left.
    #[must_use]
    pub fn to_text(&self) -> String {
        let looked = self.looked.unwrap_or_default().as_secs();
        let holds = self.holds.map_or_else(|| "nothing".to_owned(), |device| device.to_string());
        format!("looked {looked:012} holds {holds:>20}\n{}", self.failing)
    }

    fn parse(text: &str) -> Self {
        let (head, failing) = text.split_once('\n').unwrap_or((text, ""));
        let head = head.strip_prefix("looked ").and_then(|head| head.split_once(" holds "));
        let Some((Ok(looked), holds)) = head.map(|(looked, holds)| (looked.parse(), holds)) else {
            let failing = if text.is_empty() { UNSAID } else { text };
            return Self { looked: None, holds: None, failing: failing.to_owned() };
        };
        Self {
            looked: Some(Duration::from_secs(looked)),
            holds: holds.trim().parse().ok(),
            failing: failing.to_owned(),
        }
    }

    /// A line for each thing that it can't put right.
    #[must_use]
    pub fn failing(&self) -> &str {
        &self.failing
    }

    /// The number of the bpf file system that it holds, as long as it looks.
    #[must_use]
    pub fn holds(&self) -> Option<u64> {
        self.holds.filter(|_| self.silent_for().is_none())
    }

    /// How long it has not looked, if that is so long that it is not to be waited for.
    #[must_use]
    pub fn silent_for(&self) -> Option<Duration> {
        self.silent_at(now()?)
    }

    fn silent_at(&self, now: Duration) -> Option<Duration> {
        self.looked.map(|looked| now.saturating_sub(looked)).filter(|silent| *silent > SILENT)
    }
}

fn now() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_MONOTONIC).ok().map(Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_and_its_first_line_is_always_as_long() {
        let mut lengths = Vec::new();
        for (holds, failing) in [(None, ""), (Some(7), "a: b\nc: d\n"), (Some(u64::MAX), "a: b\n")] {
            let said = Kept { looked: Some(Duration::from_secs(77)), holds, failing: failing.to_owned() };
            let text = said.to_text();
            assert_eq!(Kept::parse(&text), said, "{text}");
            lengths.push(text.lines().next().unwrap().len());
        }
        assert_eq!(lengths, [lengths[0]; 3]);
        for (other, failing) in
            [("", UNSAID), ("CNI plugin: no\n", "CNI plugin: no\n"), ("looked x holds y", "looked x holds y")]
        {
            assert_eq!(Kept::parse(other), Kept { looked: None, holds: None, failing: failing.to_owned() });
        }
    }

    #[test]
    fn one_that_has_not_looked_for_a_minute_is_silent() {
        let said = Kept { looked: Some(Duration::from_secs(100)), holds: Some(1), failing: String::new() };
        let at = |seconds| said.silent_at(Duration::from_secs(seconds));
        assert_eq!((at(0), at(100), at(160)), (None, None, None));
        assert_eq!(at(161), Some(Duration::from_secs(61)));
        assert_eq!(Kept { looked: None, ..said.clone() }.silent_at(Duration::MAX), None, "it could not say");
    }
}
