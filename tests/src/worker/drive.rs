//! The exact load generator: [`crate::drive`] says what for.

mod attempt;
mod engine;
mod pace;
mod sink;

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::Socket;

use crate::drive::{Drive, Driven, Ending, Hold};
use engine::{Engine, Task};
use pace::Pace;

pub(super) use sink::Sink;

/// Attempts that are under way at a time where nothing paces them: enough to keep two CPUs busy, too few for any queue to
/// overflow.
const WINDOW: usize = 128;

/// Attempts that are under way at a time in any case.
const MOST: usize = 8_192;

/// Exchanges that begin at a pace.
pub(super) fn drive(wanted: &Drive) -> Result<Driven> {
    raise_limit()?;
    let sent_again = retransmitted()?;
    let mut engine = Engine::new(wanted.to, Task::Exchange(wanted.ending))?;
    let begin = Instant::now();
    let mut pace = Pace::new(begin, wanted.rate, wanted.during);
    loop {
        let now = Instant::now();
        let room = if wanted.rate == 0 { WINDOW } else { MOST }.saturating_sub(engine.under_way());
        let due = pace.due(now, room);
        for _ in 0..due {
            engine.start();
            engine.poll(0)?;
        }
        if due == 0 && pace.is_over(now) {
            break;
        }
        engine.poll(if pace.waits(now) || room == 0 { 1 } else { 0 })?;
    }
    let elapsed = begin.elapsed();
    engine.finish()?;
    let mut driven = engine.into_driven();
    (driven.elapsed, driven.behind) = (elapsed, pace.behind());
    driven.retransmitted = retransmitted()?.saturating_sub(sent_again);
    Ok(driven)
}

/// Connections that were opened to stay.
pub(super) struct Holding {
    hold: Hold,
    sockets: Vec<Socket>,
}

impl Holding {
    /// Opens them, and says what became of that.
    pub(super) fn open(hold: &Hold) -> Result<(Self, Driven)> {
        own_files()?;
        let (sent_again, begin) = (retransmitted()?, Instant::now());
        let mut engine = Engine::new(hold.to, Task::Keep)?;
        for _ in 0..hold.count {
            while engine.under_way() >= WINDOW {
                engine.poll(1)?;
            }
            engine.start();
            engine.poll(0)?;
        }
        engine.finish()?;
        let sockets = engine.take_kept();
        let mut driven = engine.into_driven();
        driven.elapsed = begin.elapsed();
        driven.retransmitted = retransmitted()?.saturating_sub(sent_again);
        Ok((Self { hold: *hold, sockets }, driven))
    }

    /// Exchanges a byte on each and closes it.
    pub(super) fn finish(self) -> Result<Driven> {
        let begin = Instant::now();
        let mut engine = Engine::new(self.hold.to, Task::Exchange(Ending::ClientCloses))?;
        for socket in self.sockets {
            while engine.under_way() >= WINDOW {
                engine.poll(1)?;
            }
            engine.adopt(socket);
            engine.poll(0)?;
        }
        engine.finish()?;
        let mut driven = engine.into_driven();
        driven.elapsed = begin.elapsed();
        Ok(driven)
    }
}

/// Gives this thread a table of open files of its own, as large as the process may have one: a process that may not raise its
/// limit can still have as many sockets for each of its threads. The new table begins as a copy, which keeps open what other
/// threads close: for threads that end with what they are for.
fn own_files() -> Result<()> {
    unshare(CloneFlags::CLONE_FILES).context("can't have a table of files for a thread")?;
    raise_limit()
}

/// Lets this process have as many open files as it may.
fn raise_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("can't use the limit of open files")
}

/// Segments that this thread's network namespace has sent again.
fn retransmitted() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
    named(&text, "Tcp:", "RetransSegs").context("the kernel does not count what it sends again")
}

/// A counter of a text that has a line of names and a line of numbers for each protocol.
fn named(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(protocol)).map(str::split_whitespace);
    let (mut names, mut numbers) = (lines.next()?, lines.next()?);
    numbers.nth(names.position(|each| each == name)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn a_counter_is_found_by_its_name() {
        let text = "Ip: A B\nIp: 1 2\nTcp: X RetransSegs Y\nTcp: -1 42 7\n";
        assert_eq!(named(text, "Tcp:", "RetransSegs"), Some(42));
        assert_eq!(named(text, "Tcp:", "Z"), None);
        assert_eq!(named(text, "Udp:", "A"), None);
    }
}
