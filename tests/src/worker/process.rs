//! Commands and processes that a worker starts.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::proto::{Command, Ended};

/// Processes that stay until they end or somebody ends them.
#[derive(Default)]
pub(super) struct Processes {
    running: Mutex<HashMap<u32, Child>>,
}

impl Processes {
    /// Starts one, its output appended to a log.
    pub(super) fn spawn(&self, command: &Command, log: &Path) -> Result<u32> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let child = std_command(command)?
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Of its own process group: a signal to it reaches its children too.
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't start {:?}", command.argv))?;
        let pid = child.id();
        self.running.lock().expect("no holder panics").insert(pid, child);
        Ok(pid)
    }

    /// Sends a signal to its process group. A process that has ended is fine.
    pub(super) fn signal(&self, pid: u32, signal: i32) -> Result<()> {
        if self.running.lock().expect("no holder panics").contains_key(&pid) {
            let group = Pid::from_raw(-i32::try_from(pid)?);
            match kill(group, Signal::try_from(signal)?) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(error) => return Err(error).context("can't send the signal"),
            }
        }
        Ok(())
    }

    /// How it ended, once it has.
    pub(super) fn wait(&self, pid: u32, millis: u64) -> Result<Option<String>> {
        let deadline = Instant::now() + Duration::from_millis(millis);
        loop {
            {
                let mut running = self.running.lock().expect("no holder panics");
                let Some(child) = running.get_mut(&pid) else { return Ok(Some("ended before".into())) };
                if let Some(status) = child.try_wait()? {
                    running.remove(&pid);
                    return Ok(Some(status.to_string()));
                }
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Runs a command to its end.
pub(super) fn run(command: &Command) -> Result<Ended> {
    let mut child = std_command(command)?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {:?}", command.argv))?;
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = command.stdin.clone();
    // Beside the reading of its output, or both could wait for each other. A command need not read its input.
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    Ok(Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn std_command(command: &Command) -> Result<std::process::Command> {
    let (program, arguments) = command.argv.split_first().context("an empty command can't be run")?;
    let mut ready = std::process::Command::new(program);
    ready.args(arguments).envs(&command.env);
    Ok(ready)
}
