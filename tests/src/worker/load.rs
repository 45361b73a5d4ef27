//! The load generator: a clock that starts attempts on time, whatever became of those before, and threads that make them.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use socket2::Type;

use super::dial::{self, Conversation};
use crate::load::{Load, Report, Tally};
use crate::probe::{Probe, ProbeError};

/// Threads for each kind of load: more than attempts under way at a time as long as these take less than
/// `THREADS / rate` seconds.
const THREADS: usize = 16;

/// The attempts of one thread.
#[derive(Default)]
struct Attempts {
    took: Vec<Duration>,
    failed: Vec<String>,
}

/// Generates load until its time is over.
pub(super) fn generate(load: &Load) -> Result<Report> {
    let begin = Instant::now();
    let until = begin + load.during;
    let time = (begin, until);
    let attempt_of = |probe: &Probe| dial::probe(probe).map(|_| ());
    // Threads made by this one are in its network namespace too.
    thread::scope(|scope| {
        let short = load.short.as_ref().map(|(p, rate)| scope.spawn(|| at_rate(*rate, time, || || attempt_of(p))));
        let udp = load.udp.as_ref().map(|(p, rate)| scope.spawn(|| at_rate(*rate, time, || || attempt_of(p))));
        let dns = load.dns.as_ref().map(|(to, name, rate)| {
            scope.spawn(|| {
                at_rate(*rate, time, || {
                    let mut resolver = Resolver::new(*to, name);
                    move || resolver.ask()
                })
            })
        });
        let long = load.long.as_ref().map(|(p, count, every)| scope.spawn(|| exchanges(p, *count, *every, until)));
        let tally = |kind: Option<thread::ScopedJoinHandle<'_, Vec<Attempts>>>| -> Result<Tally> {
            let Some(kind) = kind else { return Ok(Tally::default()) };
            let attempts = kind.join().map_err(|_| anyhow::anyhow!("the load generator broke"))?;
            Ok(summary(attempts))
        };
        let report = Report { short: tally(short)?, long: tally(long)?, udp: tally(udp)?, dns: tally(dns)? };
        ensure!(
            report.short.attempted + report.long.attempted + report.udp.attempted + report.dns.attempted > 0,
            "no load was asked for, or its time was over before it began"
        );
        Ok(report)
    })
}

/// Starts `rate` attempts a second. Each thread has what `begin` makes, and attempts with it.
fn at_rate<A: FnMut() -> Result<(), ProbeError>>(
    rate: u32,
    (started, until): (Instant, Instant),
    begin: impl Fn() -> A + Sync,
) -> Vec<Attempts> {
    let next = AtomicU64::new(0);
    let pull = || {
        let mut attempts = Attempts::default();
        let mut attempt = begin();
        loop {
            let ticket = next.fetch_add(1, Ordering::Relaxed);
            let due = started + Duration::from_secs_f64(ticket as f64 / f64::from(rate.max(1)));
            if due >= until {
                return attempts;
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
            attempts.record(&mut attempt);
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(pull)).collect();
        threads.into_iter().filter_map(|each| each.join().ok()).collect()
    })
}

/// Keeps connections open and uses each of them every so often.
fn exchanges(probe: &Probe, count: u32, every: Duration, until: Instant) -> Vec<Attempts> {
    let keep = || {
        let mut attempts = Attempts::default();
        let mut conversation = Conversation::open(probe).map(|(conversation, _)| conversation);
        while Instant::now() < until {
            attempts.record(|| match &mut conversation {
                Ok(open) => open.exchange(0, 0).map(|_| ()),
                Err(error) => Err(error.clone()),
            });
            thread::sleep(every);
        }
        attempts
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(keep)).collect();
        threads.into_iter().filter_map(|each| each.join().ok()).collect()
    })
}

impl Attempts {
    fn record(&mut self, attempt: impl FnOnce() -> Result<(), ProbeError>) {
        let started = Instant::now();
        match attempt() {
            Ok(()) => self.took.push(started.elapsed()),
            Err(error) => self.failed.push(error.to_string()),
        }
    }
}

fn summary(attempts: Vec<Attempts>) -> Tally {
    let mut tally = Tally::default();
    let mut took = Vec::new();
    for each in attempts {
        tally.attempted += (each.took.len() + each.failed.len()) as u64;
        took.extend(each.took);
        for reason in each.failed {
            *tally.failed.entry(reason).or_insert(0) += 1;
        }
    }
    took.sort_unstable();
    let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
    (tally.p50, tally.p99) = (at(50), at(99));
    tally
}

/// Asks for the A record of a name (RFC 1035, section 4), by turns from a new socket, as the C library does, and from one that
/// it keeps, as resolvers within programs do: the flow of that one is as old as the load.
struct Resolver {
    server: SocketAddr,
    message: Vec<u8>,
    kept: Option<UdpSocket>,
    asked: u16,
}

impl Resolver {
    fn new(server: SocketAddr, name: &str) -> Self {
        // Recursion desired, one question.
        let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.trim_end_matches('.').split('.') {
            message.push(u8::try_from(label.len()).expect("a label has at most 63 bytes"));
            message.extend(label.bytes());
        }
        // The root, type A, class IN.
        message.extend([0, 0, 1, 0, 1]);
        Self { server, message, kept: None, asked: 0 }
    }

    fn ask(&mut self) -> Result<(), ProbeError> {
        self.asked = self.asked.wrapping_add(1);
        self.message[..2].copy_from_slice(&self.asked.to_be_bytes());
        if self.asked.is_multiple_of(2) {
            return exchange(&connect(self.server)?, &self.message);
        }
        let socket = match self.kept.take() {
            Some(kept) => kept,
            None => connect(self.server)?,
        };
        exchange(self.kept.insert(socket), &self.message)
    }
}

fn connect(server: SocketAddr) -> Result<UdpSocket, ProbeError> {
    let probe = Probe::udp(server.ip(), server.port());
    let socket = dial::socket(&probe, Type::DGRAM)?;
    socket.connect(&server.into())?;
    let socket: UdpSocket = socket.into();
    socket.set_read_timeout(Some(probe.timeout))?;
    Ok(socket)
}

/// Sends a query and waits for its answer; one that came too late for an earlier query is not.
fn exchange(socket: &UdpSocket, message: &[u8]) -> Result<(), ProbeError> {
    socket.send(message)?;
    let mut answer = [0; 4096];
    loop {
        let count = socket.recv(&mut answer)?;
        match answer.get(..count.min(12)) {
            Some(header) if count >= 12 && header[..2] == message[..2] => {
                return match (header[3] & 15, header[6], header[7]) {
                    (0, 0, 0) => Err(ProbeError::Other("DNS: no record in the answer".into())),
                    (0, _, _) => Ok(()),
                    (code, _, _) => Err(ProbeError::Other(format!("DNS: response code {code}"))),
                };
            }
            // A response.
            Some(header) if count >= 12 && header[2] & 0x80 != 0 => {}
            _ => return Err(ProbeError::Other("DNS: this is no answer to the question".into())),
        }
    }
}
