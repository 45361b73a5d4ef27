//! dnsperf: its questions, and what it says.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{NAMESPACES, SERVICES};

/// How clients ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Udp,
    Tcp,
    Dot,
}

impl Mode {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Dot => "DoT",
        }
    }

    const fn argument(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Dot => "dot",
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Questions {
    /// Addresses of Services, each of them in turn.
    Service,
    /// Addresses of headless Services with five endpoints.
    Headless,
    /// What a resolver tries first for a name of the world, by its search path.
    Search,
    /// A hundred names of the world.
    Hit,
    /// Names of the world, no two alike.
    Miss,
}

/// Names of which none comes twice in a turn: more than are asked in it.
const UNLIKE: usize = 400_000;

impl Questions {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Service => "zone",
            Self::Headless => "zone, headless",
            Self::Search => "zone, search path",
            Self::Hit => "forwarded, cached",
            Self::Miss => "forwarded",
        }
    }

    /// Writes them to a file of a turn.
    pub(super) fn write(self, dir: &Path, turn: u32) -> Result<PathBuf> {
        let path = dir.join("questions");
        fs::write(&path, self.lines(turn))?;
        Ok(path)
    }

    fn lines(self, turn: u32) -> String {
        let mut text = String::new();
        let mut line = |name: String, kind: &str| writeln!(text, "{name} {kind}").expect("a string takes all");
        let is_headless = |number: &usize| number % 10 == 9;
        let service = |number: usize| format!("{}.svc.cluster.local", service_name(number));
        match self {
            Self::Service => {
                for number in (0..SERVICES).filter(|number| !is_headless(number)) {
                    line(service(number), if number % 3 == 0 { "AAAA" } else { "A" });
                }
            }
            Self::Headless => (0..SERVICES).filter(is_headless).for_each(|number| line(service(number), "A")),
            Self::Search => {
                for number in 0..1_000 {
                    let search =
                        format!("ns-{}.svc.cluster.local svc.cluster.local cluster.local", number % NAMESPACES);
                    for domain in search.split(' ') {
                        line(format!("www-{number}.example.org.{domain}"), "A");
                        line(format!("www-{number}.example.org.{domain}"), "AAAA");
                    }
                }
            }
            Self::Hit => (0..100).for_each(|number| line(format!("www-{number}.example.org"), "A")),
            Self::Miss => (0..UNLIKE).for_each(|number| line(format!("t{turn}-{number}.example.net"), "A")),
        }
        text
    }
}

/// Name and namespace of a Service, as in its names.
pub(super) fn service_name(number: usize) -> String {
    format!("svc-{number}.ns-{}", number % NAMESPACES)
}

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Counted {
    pub(super) sent: u64,
    pub(super) answered: u64,
    pub(super) lost: u64,
    /// Answered with SERVFAIL or REFUSED.
    pub(super) failed: u64,
    pub(super) seconds: f64,
    /// Mean time of an answer, in seconds.
    pub(super) latency: f64,
}

/// Asks for a time.
pub(super) fn run(to: SocketAddr, mode: Mode, file: &Path, during: Duration, rate: u32) -> Result<Counted> {
    let mut command = Command::new("dnsperf");
    command.args(["-m", mode.argument(), "-s", &to.ip().to_string(), "-p", &to.port().to_string()]);
    command.args(["-l", &during.as_secs_f64().ceil().to_string(), "-c", "8", "-q", "100", "-d"]).arg(file);
    if rate > 0 {
        command.args(["-Q", &rate.to_string()]);
    }
    let ended = command.output().context("can't start dnsperf: `cargo xtask setup` installs it")?;
    let text = String::from_utf8_lossy(&ended.stdout);
    ensure!(ended.status.success(), "dnsperf: {}{text}", String::from_utf8_lossy(&ended.stderr));
    parse(&text).with_context(|| format!("dnsperf says something else than expected:\n{text}"))
}

fn parse(text: &str) -> Option<Counted> {
    let value = |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim);
    let first = |key: &str| value(key)?.split(' ').next();
    let codes = value("Response codes:").unwrap_or_default();
    let of_code = |code: &str| {
        let words: Vec<&str> = codes.split([' ', ',']).collect();
        words.windows(2).find(|pair| pair[0] == code).and_then(|pair| pair[1].parse::<u64>().ok()).unwrap_or_default()
    };
    Some(Counted {
        sent: first("Queries sent:")?.parse().ok()?,
        answered: first("Queries completed:")?.parse().ok()?,
        lost: first("Queries lost:")?.parse().ok()?,
        failed: of_code("SERVFAIL") + of_code("REFUSED"),
        seconds: first("Run time (s):")?.parse().ok()?,
        latency: first("Average Latency (s):")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dnsperf_says_is_read() {
        let text = "Statistics:\n\n  Queries sent:         20\n  Queries completed:    18 (90.00%)\n  Queries lost:         2 (10.00%)\n\n  \
            Response codes:       NOERROR 10 (50.00%), SERVFAIL 7 (35.00%), REFUSED 1 (5.00%)\n  Average packet size:  request 40, response 56\n  \
            Run time (s):         1.500000\n  Queries per second:   12.0\n\n  Average Latency (s):  0.000250 (min 0.000017, max 0.001500)\n";
        let wanted = Counted { sent: 20, answered: 18, lost: 2, failed: 8, seconds: 1.5, latency: 0.00025 };
        assert_eq!(parse(text), Some(wanted));
        assert_eq!(parse("nothing"), None);
    }

    #[test]
    fn names_that_are_not_to_be_cached_differ_in_every_turn() {
        let (one, other) = (Questions::Miss.lines(1), Questions::Miss.lines(2));
        assert_eq!(one.lines().count(), UNLIKE);
        assert_ne!(one.lines().next(), other.lines().next());
        assert_eq!(Questions::Headless.lines(1).lines().count(), SERVICES / 10);
    }
}
