//! One boot of one kernel: what it printed until it turned itself off.

use std::{
    io::{self, BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{arch::Arch, setup::machine};

/// The guest's memory, where nothing else is asked for, in MiB.
const MEMORY: &str = "2048";

/// A boot and all loads take less than a minute under emulation on a machine that is idle, all frames some minutes; a guest that
/// takes this long hangs.
const PATIENCE: Duration = Duration::from_secs(1500);

/// A machine that QEMU makes.
pub(super) struct Machine<'a> {
    pub(super) arch: Arch,
    /// One of [`cpus`].
    pub(super) cpu: &'a str,
    /// `tcg` or `kvm`.
    pub(super) accel: &'a str,
}

/// The processors that guests of an architecture have, one after the other. Of arm64 the first has no atomic instructions (as those
/// of a Raspberry Pi 4), so the kernel's compiler makes loops of what programs do atomically; signatures of pointers, which are
/// slow to emulate, are made in a simpler way.
pub(super) fn cpus(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::Amd64 => &["max"],
        Arch::Arm64 => &["cortex-a53", "max,pauth-impdef=on"],
    }
}

/// Boots the kernel of a series with an initramfs and returns its console.
pub(super) fn boot(machine: &Machine<'_>, series: &str, initrd: &Path) -> Result<String> {
    let mut command = command(machine, series, initrd, "")?;
    console(command.args(["-m", MEMORY]), PATIENCE, |_| ())
}

/// A machine without memory that boots the kernel of a series, with these words in its command line.
pub(super) fn command(machine: &Machine<'_>, series: &str, initrd: &Path, words: &str) -> Result<Command> {
    let &Machine { arch, cpu, accel } = machine;
    let kernel =
        machine::kernel(arch, series).with_context(|| format!("there is no image of {series}: `cargo xtask setup`"))?;
    let (board, options) = match arch {
        Arch::Amd64 => ("q35", "console=ttyS0 panic=-1 quiet no_timer_check"),
        Arch::Arm64 => ("virt", "console=ttyAMA0 panic=-1 quiet"),
    };
    let accel = if accel == "tcg" { "tcg,thread=multi" } else { accel };
    let mut command = Command::new(machine::emulator(arch));
    command
        .args(["-machine", board, "-accel", accel, "-cpu", cpu, "-smp", "2"])
        .args(["-nographic", "-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", format!("{options} {words}").trim_end()]);
    Ok(command)
}

/// Runs a machine until it turns itself off, and returns its console, of which each line is shown as it comes.
pub(super) fn console(
    command: &mut Command,
    patience: Duration,
    mut show: impl FnMut(&str) + Send + 'static,
) -> Result<String> {
    let emulator = command.get_program().to_string_lossy().into_owned();
    let mut guest = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {emulator}: `cargo xtask setup` says which part has it"))?;
    let mut stdout = BufReader::new(guest.stdout.take().context("the guest has no console")?);
    let console = thread::spawn(move || -> io::Result<String> {
        let (mut text, mut line) = (String::new(), Vec::new());
        while stdout.read_until(b'\n', &mut line)? > 0 {
            let part = String::from_utf8_lossy(&line);
            show(part.trim_end());
            text.push_str(&part);
            line.clear();
        }
        Ok(text)
    });
    let start = Instant::now();
    while guest.try_wait()?.is_none() {
        if start.elapsed() > patience {
            guest.kill()?;
            guest.wait()?;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(console.join().unwrap_or_else(|_| Ok(String::new()))?)
}
