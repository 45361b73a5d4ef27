//! The first process of a place (the fabric, a node): it runs what the board says, starts again what ends, and reaps whatever
//! has lost its parent.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::service::{Board, Service};

/// How often the board and the children are looked at.
const ROUND: Duration = Duration::from_millis(50);
/// How long a program that has ended stays so: as long as an init system would wait before it tries again, but shorter.
const PAUSE: Duration = Duration::from_millis(500);

struct Running {
    service: Service,
    pid: Option<Pid>,
    /// Not before this.
    next: Instant,
}

/// Runs for ever.
pub(crate) fn supervise(directory: &Path) -> Result<()> {
    let board = Board::new(directory);
    let logs = directory.join("log");
    fs::create_dir_all(&logs)?;
    let mut running: BTreeMap<String, Running> = BTreeMap::new();
    loop {
        reap(&mut running, &logs);
        // A board that can't be read now is read in the next round.
        let Ok(wanted) = board.wanted() else {
            thread::sleep(ROUND);
            continue;
        };
        stop_unwanted(&mut running, &wanted);
        for service in wanted {
            let entry = running.entry(service.name.clone()).or_insert_with(|| Running {
                service: service.clone(),
                pid: None,
                next: Instant::now(),
            });
            entry.service = service;
            if entry.pid.is_none()
                && entry.next <= Instant::now()
                && entry.service.after.as_ref().is_none_or(|file| file.exists())
            {
                match start(&entry.service, &logs) {
                    Ok(pid) => entry.pid = Some(pid),
                    Err(error) => {
                        note(&logs, &format!("{error:#}"));
                        entry.next = Instant::now() + Duration::from_secs(5);
                    }
                }
            }
        }
        thread::sleep(ROUND);
    }
}

/// Ends what is no longer on the board; it is forgotten once it is gone.
fn stop_unwanted(running: &mut BTreeMap<String, Running>, wanted: &[Service]) {
    running.retain(|name, entry| {
        if wanted.iter().any(|service| service.name == *name) {
            return true;
        }
        let Some(pid) = entry.pid else { return false };
        // It can only have ended already.
        let _ = kill(pid, Signal::SIGKILL);
        true
    });
}

fn start(service: &Service, logs: &Path) -> Result<Pid> {
    let (program, arguments) = service.argv.split_first().context("a service without a program")?;
    let log = log_file(logs, &service.name)?;
    let child = Command::new(program)
        .args(arguments)
        .envs(&service.env)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("can't start {program} for {}", service.name))?;
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

/// Every child that has ended, ours and those that were left to us.
fn reap(running: &mut BTreeMap<String, Running>, logs: &Path) {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(status) => {
                let Some(pid) = status.pid() else { return };
                if let Some(entry) = running.values_mut().find(|entry| entry.pid == Some(pid)) {
                    note(logs, &format!("{} has ended: {status:?}", entry.service.name));
                    entry.pid = None;
                    entry.next = Instant::now() + PAUSE;
                }
            }
            Err(Errno::EINTR) => {}
            // No children.
            Err(_) => return,
        }
    }
}

fn log_file(logs: &Path, name: &str) -> Result<File> {
    let path: PathBuf = logs.join(format!("{name}.log"));
    OpenOptions::new().create(true).append(true).open(&path).with_context(|| format!("can't open {}", path.display()))
}

/// A line in the place's own log, which is this process's standard error.
fn note(_logs: &Path, text: &str) {
    eprintln!("{text}");
}
