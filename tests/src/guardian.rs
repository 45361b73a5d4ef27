//! The guardian: a process that outlives the lab's owner just long enough to clean up after it.
//!
//! It holds the end of a pipe from the owner. When that closes, for whatever reason, it kills the lab's first process, with
//! which the kernel ends all others (`pid_namespaces(7)`) and with them namespaces and mounts; then it removes what has
//! no process to die with: cgroups and files. Should the guardian itself be killed, the lab dies with it, and the next
//! lab's guardian removes what is left.

use std::fs::{self, File};
use std::io::{self, BufRead};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;

use crate::plan::Plan;
use crate::system::{self, PREFIX};

/// What the owner says to keep the lab when it goes.
pub(crate) const KEEP: &str = "keep";

/// Makes a lab and cleans up after it. The plan comes as the first line of standard input; each part of the lab says
/// on standard output when it is ready or why it can't be.
pub fn guard() -> Result<()> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let plan: Plan = serde_json::from_str(&line).context("the guardian is started by the lab, not by hand")?;
    // What follows holds for all processes of the lab.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    system::mount_cgroups()?;
    let directory = system::directory(&plan.id);
    // It gets its name when it is locked: an open lock means that the guardian is gone.
    let lock = File::create(directory.join("lock.new"))?;
    lock.lock()?;
    fs::rename(directory.join("lock.new"), directory.join("lock"))?;
    sweep()?;
    let cgroup = system::cgroup(&plan.id);
    let ended = run(&plan, &directory, &cgroup);
    clean_up(&directory, &cgroup);
    ended
}

fn run(plan: &Plan, directory: &Path, cgroup: &Path) -> Result<()> {
    fs::create_dir_all(cgroup.join("outside"))
        .with_context(|| format!("can't make the cgroup {}", cgroup.display()))?;
    for node in &plan.nodes {
        fs::create_dir(cgroup.join(node.name()))?;
    }
    fs::write(directory.join("plan.json"), serde_json::to_vec(plan)?)?;
    // A process that has a new process namespace for its children can't have new threads, so this one comes first.
    let (started, init_started) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            match line {
                Ok(line) if line == KEEP => return,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        if let Ok(pid) = init_started.recv() {
            // It can only have ended already.
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    unshare(CloneFlags::CLONE_NEWPID).context("can't make a process namespace")?;
    let mut init = Command::new(std::env::current_exe()?).arg("init").arg(&plan.id).stdin(Stdio::null()).spawn()?;
    fs::write(directory.join("init.pid"), init.id().to_string())?;
    started.send(Pid::from_raw(i32::try_from(init.id())?))?;
    init.wait().map(|_| ()).context("the lab's first process is lost")
}

/// Removes cgroups and files. A cgroup stays busy for a moment after its last process.
fn clean_up(directory: &Path, cgroup: &Path) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while cgroup.exists() && Instant::now() < deadline {
        if remove_cgroup(cgroup).is_err() {
            thread::sleep(Duration::from_millis(2));
        }
    }
    if let Err(error) = fs::remove_dir_all(directory) {
        eprintln!("{} stays behind: {error}", directory.display());
    }
}

fn remove_cgroup(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

/// Removes what labs have left whose guardians were killed: nobody holds their locks.
fn sweep() -> Result<()> {
    for entry in fs::read_dir(std::env::temp_dir())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(id) = name.strip_prefix(PREFIX) else { continue };
        // A lab that is just beginning has no lock yet, one that is just ending has none any more.
        let Ok(lock) = File::open(path.join("lock")) else { continue };
        if lock.try_lock().is_ok() {
            clean_up(&path, &system::cgroup(id));
        }
    }
    Ok(())
}
