//! The load generator: a clock that starts attempts on time, whatever became of those before, and threads that make them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::dial::{self, Conversation};
use super::resolver::Resolver;
use crate::load::{Load, Report, Tally};
use crate::probe::{Probe, ProbeError};

/// Threads for each kind of load: more than attempts under way at a time as long as these take less than
/// `THREADS / rate` seconds.
const THREADS: usize = 16;

/// Of how many failures a report says when they were.
const FIRST: usize = 20;

/// How often each kind succeeds before it counts: one of six backends is then missed once in three hundred.
const IN_A_ROW: u32 = 32;

/// How long it takes until something that is waited for is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// What a load and whoever wants it tell each other.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Attempts that are over.
    pub(super) count: AtomicU64,
    /// Whether it may end when its time is over.
    pub(super) may_end: AtomicBool,
}

/// When attempts are made.
#[derive(Clone, Copy)]
struct Clock<'a> {
    begin: Instant,
    until: Instant,
    control: &'a Control,
}

impl Clock<'_> {
    fn is_over(self, at: Instant) -> bool {
        at >= self.until && self.control.may_end.load(Ordering::Relaxed)
    }
}

/// The attempts of one thread.
#[derive(Default)]
struct Attempts {
    took: Vec<Duration>,
    failed: Vec<(Duration, String)>,
}

/// A connection of the load, or why there is none.
type Kept = Result<Conversation, ProbeError>;

/// Generates load until its time is over and it may end. It is under way when its connections are open and, if it is to wait
/// for that, each kind has succeeded once.
pub(super) fn generate<'a>(load: &'a Load, control: &'a Control, under_way: impl FnOnce()) -> Result<Report> {
    ensure!(load.during > Duration::ZERO && load.is_some(), "no load was asked for");
    if let Some(patience) = load.patience {
        wait_for_each(load, Instant::now() + patience)?;
    }
    let keep = |wanted: &Option<(Probe, u32, Duration)>| {
        wanted.as_ref().map(|(probe, count, every)| (open(probe, *count), *every))
    };
    let (long, idle) = (keep(&load.long), keep(&load.idle));
    let begin = Instant::now();
    let clock = Clock { begin, until: begin + load.during, control };
    under_way();
    // Threads made by this one are in its network namespace too.
    thread::scope(|scope| {
        let of = |probe| move || move || attempt(probe);
        let paced = |wanted: &'a Option<(Probe, u32)>| {
            wanted.as_ref().map(|(probe, rate)| scope.spawn(move || at_rate(*rate, clock, of(probe))))
        };
        let (short, udp, uploads) = (paced(&load.short), paced(&load.udp), paced(&load.uploads));
        let dns = load.dns.as_ref().map(|(to, name, rate)| {
            scope.spawn(move || {
                at_rate(*rate, clock, || {
                    let mut resolver = Resolver::new(*to, name);
                    move || resolver.ask()
                })
            })
        });
        let used = |kept: Option<(Vec<Kept>, Duration)>| {
            kept.map(|(kept, every)| scope.spawn(move || exchanges(kept, every, clock)))
        };
        let (long, idle) = (used(long), used(idle));
        let half_closed = load.half_closed.as_ref();
        let half_closed =
            half_closed.map(|(probe, count, silence)| scope.spawn(move || half_closes(probe, *count, *silence, clock)));
        let tally = |kind: Option<thread::ScopedJoinHandle<'_, Vec<Attempts>>>| -> Result<Tally> {
            let Some(kind) = kind else { return Ok(Tally::default()) };
            let attempts = kind.join().map_err(|_| anyhow::anyhow!("the load generator broke"))?;
            Ok(summary(attempts))
        };
        Ok(Report {
            short: tally(short)?,
            long: tally(long)?,
            udp: tally(udp)?,
            dns: tally(dns)?,
            idle: tally(idle)?,
            uploads: tally(uploads)?,
            half_closed: tally(half_closed)?,
        })
    })
}

fn attempt(probe: &Probe) -> Result<(), ProbeError> {
    dial::probe(probe).map(|_| ())
}

/// Tries each kind until it succeeds so often in a row that every backend has been met: while a network is coming up, some
/// of them may be gone or not there yet.
fn wait_for_each(load: &Load, deadline: Instant) -> Result<()> {
    let wait = |what: &str, attempt: &mut dyn FnMut() -> Result<(), ProbeError>| {
        let mut in_a_row = 0;
        while in_a_row < IN_A_ROW {
            match attempt() {
                Ok(()) => in_a_row += 1,
                Err(error) if Instant::now() >= deadline => {
                    bail!("{what} did not succeed {IN_A_ROW} times in a row: {error}")
                }
                Err(_) => {
                    in_a_row = 0;
                    thread::sleep(AGAIN);
                }
            }
        }
        Ok(())
    };
    for (what, probe) in [
        ("a short connection", load.short.as_ref().map(|(probe, _)| probe)),
        ("a long connection", load.long.as_ref().map(|(probe, ..)| probe)),
        ("a UDP request", load.udp.as_ref().map(|(probe, _)| probe)),
    ] {
        if let Some(probe) = probe {
            wait(what, &mut || attempt(probe)).with_context(|| format!("to {}", probe.to))?;
        }
    }
    if let Some((to, name, _)) = &load.dns {
        let mut resolver = Resolver::new(*to, name);
        wait("a DNS query", &mut || resolver.ask()).with_context(|| format!("to {to}"))?;
    }
    Ok(())
}

/// Opens connections, all at the same time.
fn open(probe: &Probe, count: u32) -> Vec<Kept> {
    let open = || Conversation::open(probe).map(|(conversation, _)| conversation);
    join_all((0..count).map(|_| open))
}

/// Starts `rate` attempts a second. Each thread has what `begin` makes, and attempts with it.
fn at_rate<A: FnMut() -> Result<(), ProbeError>>(
    rate: u32,
    clock: Clock<'_>,
    begin: impl Fn() -> A + Sync,
) -> Vec<Attempts> {
    let next = AtomicU64::new(0);
    let pull = || {
        let mut attempts = Attempts::default();
        let mut attempt = begin();
        loop {
            let ticket = next.fetch_add(1, Ordering::Relaxed);
            let due = clock.begin + Duration::from_secs_f64(ticket as f64 / f64::from(rate.max(1)));
            if clock.is_over(due) {
                return attempts;
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
            attempts.record(clock, &mut attempt);
        }
    };
    join_all((0..THREADS).map(|_| &pull))
}

/// How long a connection that is open may stall.
const STALL: Duration = Duration::from_secs(2);

/// Uses each connection every so often.
fn exchanges(kept: Vec<Kept>, every: Duration, clock: Clock<'_>) -> Vec<Attempts> {
    join_all(kept.into_iter().map(|mut conversation| {
        move || {
            let mut attempts = Attempts::default();
            while !clock.is_over(Instant::now()) {
                attempts.record(clock, || match &mut conversation {
                    // What TCP sends again comes sooner.
                    Ok(open) => match open.exchange(0, 0)? {
                        reply if reply.took > STALL => Err(ProbeError::TimedOut),
                        _ => Ok(()),
                    },
                    Err(error) => Err(error.clone()),
                });
                thread::sleep(every);
            }
            attempts
        }
    }))
}

/// Has so many connections at a time that are half closed for this long.
fn half_closes(probe: &Probe, count: u32, silence: Duration, clock: Clock<'_>) -> Vec<Attempts> {
    let one_after_the_other = || {
        let mut attempts = Attempts::default();
        // One that would end after the load is not begun.
        while !clock.is_over(Instant::now() + silence) {
            attempts.record(clock, || Conversation::open(probe).and_then(|(open, _)| open.half_close(silence)));
            if !attempts.failed.is_empty() {
                thread::sleep(AGAIN);
            }
        }
        attempts
    };
    join_all((0..count).map(|_| one_after_the_other))
}

/// Runs each in a thread of its own.
fn join_all<T: Send>(all: impl Iterator<Item = impl FnOnce() -> T + Send>) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = all.map(|each| scope.spawn(each)).collect();
        threads.into_iter().filter_map(|each| each.join().ok()).collect()
    })
}

impl Attempts {
    fn record(&mut self, clock: Clock<'_>, attempt: impl FnOnce() -> Result<(), ProbeError>) {
        let started = Instant::now();
        match attempt() {
            Ok(()) => self.took.push(started.elapsed()),
            Err(error) => self.failed.push((started.saturating_duration_since(clock.begin), error.to_string())),
        }
        clock.control.count.fetch_add(1, Ordering::Relaxed);
    }
}

fn summary(attempts: Vec<Attempts>) -> Tally {
    let mut tally = Tally::default();
    let mut took = Vec::new();
    for each in attempts {
        tally.attempted += (each.took.len() + each.failed.len()) as u64;
        took.extend(each.took);
        for (when, reason) in each.failed {
            *tally.failed.entry(reason.clone()).or_insert(0) += 1;
            tally.first.push((when, reason));
        }
    }
    tally.first.sort();
    tally.first.truncate(FIRST);
    took.sort_unstable();
    let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
    (tally.p50, tally.p99) = (at(50), at(99));
    tally
}
