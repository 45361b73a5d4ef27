//! What a bench found, as a table.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::drive::{Driven, Ending};

/// What a path came to with one of the two.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// New connections, or questions, a second.
    pub rate: f64,
    /// How many began.
    pub attempted: u64,
    /// How many failed, and why.
    pub failed: std::collections::BTreeMap<String, u64>,
    /// Half were set up within so many microseconds.
    pub p50_us: u64,
    /// All but one in a hundred were.
    pub p99_us: u64,
    /// Segments that TCP sent again.
    pub retransmitted: u64,
    /// Seconds by which the generator fell behind its pace.
    pub behind: f64,
}

impl From<&Driven> for Side {
    fn from(driven: &Driven) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            rate: driven.rate(),
            attempted: driven.attempted,
            failed: driven.failed.clone(),
            p50_us: micros(driven.setup(500)),
            p99_us: micros(driven.setup(990)),
            retransmitted: driven.retransmitted,
            behind: driven.behind.as_secs_f64(),
        }
    }
}

impl Side {
    fn errors(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// A path and a way to end, with both.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The path.
    pub path: String,
    /// How exchanges end.
    pub ending: Ending,
    /// With Fairlead.
    pub fairlead: Side,
    /// With the kernel's netfilter.
    pub netfilter: Side,
}

/// Everything that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Findings {
    /// Seconds of load for each row and side.
    pub seconds: u64,
    /// The pace asked for; 0: none.
    pub rate: u32,
    /// How many processes wanted a CPU, of the last minute, before and after: others may have been at work.
    pub load_average: [f64; 2],
    /// CPUs of the machine.
    pub cpus: usize,
    /// The rows.
    pub rows: Vec<Row>,
}

impl Findings {
    /// How many exchanges failed with Fairlead.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.rows.iter().map(|row| row.fairlead.errors()).sum()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| path | ends | Fairlead: rate, errors | p50, p99 µs | netfilter: rate, errors | p50, p99 µs | rate | p99 |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let (own, theirs) = (&row.fairlead, &row.netfilter);
            let rate = |side: &Side| format!("{:.0}/s, {}", side.rate, side.errors());
            let times = |side: &Side| format!("{}, {}", side.p50_us, side.p99_us);
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {} | {:.2} × | {:.2} × |",
                row.path,
                row.ending,
                rate(own),
                times(own),
                rate(theirs),
                times(theirs),
                ratio(own.rate, theirs.rate),
                ratio(own.p99_us as f64, theirs.p99_us as f64),
            )?;
        }
        for row in &self.rows {
            for (who, side) in [("Fairlead", &row.fairlead), ("netfilter", &row.netfilter)] {
                for (reason, count) in &side.failed {
                    writeln!(f, "{who}, {}, {}: {count} × {reason}", row.path, row.ending)?;
                }
            }
        }
        let [before, after] = self.load_average;
        writeln!(
            f,
            "{} s each, pace {}, {} CPUs, load average {before:.1} before and {after:.1} after",
            self.seconds, self.rate, self.cpus
        )
    }
}

fn ratio(own: f64, theirs: f64) -> f64 {
    if theirs > 0.0 { own / theirs } else { f64::NAN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_how_the_two_compare() {
        let side = |rate: f64, p99_us| Side {
            rate,
            attempted: 10,
            failed: [("connect: no answer".to_owned(), 2)].into(),
            p50_us: 100,
            p99_us,
            retransmitted: 0,
            behind: 0.0,
        };
        let row = Row {
            path: "pod to the outside".into(),
            ending: Ending::Datagram,
            fairlead: side(1500.0, 200),
            netfilter: side(1000.0, 400),
        };
        let findings = Findings { seconds: 2, rate: 0, load_average: [0.5, 1.0], cpus: 2, rows: vec![row] };
        let text = findings.to_string();
        assert!(text.contains("| UDP | 1500/s, 2 | 100, 200 | 1000/s, 2 | 100, 400 | 1.50 × | 0.50 × |"), "{text}");
        assert!(text.contains("Fairlead, pod to the outside, UDP: 2 × connect: no answer"), "{text}");
        assert_eq!(findings.errors(), 2);
    }
}
