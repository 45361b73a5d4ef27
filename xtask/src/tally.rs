//! How many tests passed and failed.

use std::{fmt, ops::AddAssign, process::exit};

/// A count of tests.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl Tally {
    /// One test.
    pub(crate) fn one(passed: bool) -> Self {
        if passed { Self { passed: 1, failed: 0 } } else { Self { passed: 0, failed: 1 } }
    }

    /// Ends this process with the tally as the last line, for programs that read it.
    pub(crate) fn conclude(self) -> ! {
        println!("{self}");
        exit(i32::from(self.failed > 0))
    }

    /// Reads a line of a Rust test binary's output: `test result: ok. 15 passed; 0 failed; …`.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("test result: ")?.split_whitespace().skip(1);
        let passed = words.next()?.parse().ok()?;
        let failed = words.nth(1)?.parse().ok()?;
        Some(Self { passed, failed })
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_is_read() {
        let line = "test result: FAILED. 15 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(Tally::parse(line), Some(Tally { passed: 15, failed: 2 }));
        assert_eq!(Tally::parse("test dns::d2 ... ok"), None);
    }

    #[test]
    fn tallies_add_up_and_are_one_line() {
        let mut tally = Tally::one(true);
        tally += Tally::one(false);
        tally += Tally { passed: 3, failed: 0 };
        assert_eq!(tally.to_string(), "4 passed, 1 failed");
    }
}
