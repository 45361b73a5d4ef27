//! Processes that outlive the one which started them: a number alone may have been given to another since.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its number, as the machine counts.
    pub pid: i32,
    /// When it started, in ticks since the machine did: with the number it is unique.
    started: u64,
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let pid = i32::try_from(pid)?;
        match stat(pid) {
            Some((_, started)) => Ok(Self { pid, started }),
            None => bail!("process {pid} has ended already"),
        }
    }

    /// Whether it still runs. One that has ended and waits for its parent does not.
    pub(crate) fn alive(self) -> bool {
        stat(self.pid).is_some_and(|(state, started)| state != 'Z' && started == self.started)
    }

    /// Ends it at once and waits until it is gone, with every process of its namespace if it is the first there.
    pub(crate) fn kill(self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.alive() {
            match kill(Pid::from_raw(self.pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => bail!("process {} can't be ended: {error}", self.pid),
            }
            ensure!(Instant::now() < deadline, "process {} does not end", self.pid);
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

/// State and start of a process, from /proc.
fn stat(pid: i32) -> Option<(char, u64)> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 3 and 22; the name before them may contain anything.
fn parse(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_confuse() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 0 0";
        assert_eq!(parse(stat), Some(('S', 4242)));
    }

    #[test]
    fn this_process_is_alive_and_its_number_with_another_start_is_not() {
        let me = Process::of(std::process::id()).unwrap();
        assert!(me.alive());
        assert!(!Process { started: me.started + 1, ..me }.alive());
    }
}
