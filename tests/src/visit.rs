//! Labs that were kept: which there are, a way into them, and their end.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Pid;

use crate::system::{self, PREFIX};

/// The labs on this machine.
pub fn list() -> Result<Vec<String>> {
    let mut labs = Vec::new();
    for entry in fs::read_dir(std::env::temp_dir())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(id) = name.strip_prefix(PREFIX) {
            labs.push(id.to_owned());
        }
    }
    labs.sort();
    Ok(labs)
}

/// Ends a lab and waits until nothing of it is left.
pub fn stop(id: &str) -> Result<()> {
    let directory = system::directory(id);
    let pid = fs::read_to_string(directory.join("init.pid"))
        .with_context(|| format!("there is no lab {id}: `fairlead-lab list` shows all"))?;
    let lock = File::open(directory.join("lock"))?;
    // Whose guardian is gone is gone itself, and its process id may be somebody else's.
    ensure!(lock.try_lock().is_err(), "lab {id} has ended; the next lab removes what is left of it");
    kill(Pid::from_raw(pid.parse()?), Signal::SIGKILL)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while directory.exists() {
        ensure!(Instant::now() < deadline, "lab {id} does not end: see {}", directory.join("lab.log").display());
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Runs a command in a place of a lab, or in a pod there, and gives its exit code.
pub fn enter(id: &str, place: &str, pod: Option<&str>, command: &[String]) -> Result<i32> {
    let socket = system::directory(id).join(format!("{place}.sock"));
    let worker = UnixStream::connect(&socket)
        .with_context(|| format!("lab {id} has no {place}: `fairlead-lab list` shows all labs"))?;
    let pid = getsockopt(&worker, sockopt::PeerCredentials)?.pid();
    system::mount_cgroups()?;
    let cgroup = system::cgroup(id).join(place);
    if cgroup.exists() {
        fs::write(cgroup.join("cgroup.procs"), "0").context("can't enter the node's cgroup")?;
    }
    let namespaces = [
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("net", CloneFlags::CLONE_NEWNET),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    // All are opened first: the last one changes what `/proc` shows.
    let mut files = Vec::new();
    for (name, kind) in namespaces {
        files.push((File::open(format!("/proc/{pid}/ns/{name}"))?, kind));
    }
    for (file, kind) in files {
        setns(file, kind).context("can't enter: this needs root")?;
    }
    if let Some(pod) = pod {
        let path = format!("/run/netns/{}", pod.replace('/', "_"));
        let netns = File::open(&path).with_context(|| format!("{place} has no pod {pod}"))?;
        setns(netns, CloneFlags::CLONE_NEWNET)?;
    }
    let shell = [std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned())];
    let command = if command.is_empty() { &shell[..] } else { command };
    let status = Command::new(&command[0]).args(&command[1..]).status().with_context(|| format!("{command:?}"))?;
    Ok(status.code().unwrap_or(1))
}
