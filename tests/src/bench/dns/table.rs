//! What was found, as a table.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::perf::Counted;

/// What a row came to with one of the two.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Side {
    /// Questions that were answered.
    pub answered: u64,
    /// Questions without an answer within 5 s.
    pub lost: u64,
    /// Answers that say SERVFAIL or REFUSED.
    pub failed: u64,
    /// Seconds of load.
    pub seconds: f64,
    /// Seconds of CPU that the server used, of the kernel for it too.
    pub cpu: f64,
    /// Sum of the mean times to an answer, in seconds, each by its answers.
    pub waited: f64,
    /// Memory of the server that is resident at the end, in KiB.
    pub resident_kib: u64,
}

impl Side {
    pub(super) fn add(&mut self, counted: &Counted, cpu: Duration, resident_kib: u64) {
        let Counted { sent: _, answered, lost, failed, seconds, latency } = counted;
        self.answered += answered;
        self.lost += lost;
        self.failed += failed;
        self.seconds += seconds;
        self.cpu += cpu.as_secs_f64();
        self.waited += latency * *answered as f64;
        self.resident_kib = resident_kib;
    }

    /// Answers a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.seconds
    }

    /// Microseconds of CPU for an answer.
    #[must_use]
    pub fn cpu_us(&self) -> f64 {
        self.cpu * 1e6 / self.answered as f64
    }

    /// Mean time to an answer, in microseconds.
    #[must_use]
    pub fn latency_us(&self) -> f64 {
        self.waited * 1e6 / self.answered as f64
    }
}

/// One kind of question over one transport, with both.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What is asked, and how.
    pub name: String,
    /// What is wanted, if anything: CPU of an answer, as a part of CoreDNS'.
    pub aim: Option<f64>,
    /// With fairlead-dns.
    pub fairlead: Side,
    /// With CoreDNS.
    pub coredns: Side,
}

impl Row {
    /// CPU of an answer, as a part of CoreDNS'.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.fairlead.cpu_us() / self.coredns.cpu_us()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |side: &Side| {
            let (rate, cpu, wait) = (side.rate(), side.cpu_us(), side.latency_us());
            format!("{rate:.0}/s, {} | {cpu:.1} | {wait:.0}", side.lost + side.failed)
        };
        let (own, theirs) = (side(&self.fairlead), side(&self.coredns));
        let aim = self.aim.map(|aim| format!("{aim} ×")).unwrap_or_default();
        write!(f, "| {} | {own} | {theirs} | {:.2} × | {aim} |", self.name, self.ratio())
    }
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
    /// How many questions fairlead-dns did not answer, or failed to.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.rows.iter().map(|row| row.fairlead.lost + row.fairlead.failed).sum()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| questions | Fairlead: rate, errors | CPU µs | mean µs | CoreDNS: rate, errors | CPU µs | mean µs | CPU | aim |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        if let Some(Row { fairlead, coredns, .. }) = self.rows.last() {
            let mib = |side: &Side| side.resident_kib / 1024;
            writeln!(f, "resident at the end: Fairlead {} MiB, CoreDNS {} MiB", mib(fairlead), mib(coredns))?;
        }
        let ([before, after], pace) = (self.load_average, self.rate);
        writeln!(
            f,
            "{} s each, pace {pace}, {} CPUs, load average {before:.1} before and {after:.1} after",
            self.seconds, self.cpus
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_how_the_two_compare() {
        let side = |cpu: u64| {
            let mut side = Side::default();
            for _ in 0..2 {
                let counted = Counted { sent: 1001, answered: 1000, lost: 1, failed: 0, seconds: 0.5, latency: 0.0002 };
                side.add(&counted, Duration::from_millis(cpu), 20_480);
            }
            side
        };
        let row = Row { name: "zone, UDP".into(), aim: Some(0.1), fairlead: side(5), coredns: side(50) };
        assert_eq!(row.to_string(), "| zone, UDP | 2000/s, 2 | 5.0 | 200 | 2000/s, 2 | 50.0 | 200 | 0.10 × | 0.1 × |");
        let findings = Findings { seconds: 1, rate: 0, load_average: [0.5, 1.0], cpus: 2, rows: vec![row] };
        assert_eq!(findings.errors(), 2);
        assert!(findings.to_string().contains("Fairlead 20 MiB"));
    }
}
