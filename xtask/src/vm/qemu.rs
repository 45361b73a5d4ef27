//! One boot of one kernel: what it printed until it turned itself off.

use std::{
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{arch::Arch, setup::machine};

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
    let &Machine { arch, cpu, accel } = machine;
    let kernel =
        machine::kernel(arch, series).with_context(|| format!("there is no image of {series}: `cargo xtask setup`"))?;
    let (board, options) = match arch {
        Arch::Amd64 => ("q35", "console=ttyS0 panic=-1 quiet no_timer_check"),
        Arch::Arm64 => ("virt", "console=ttyAMA0 panic=-1 quiet"),
    };
    let emulator = machine::emulator(arch);
    let accel = if accel == "tcg" { "tcg,thread=multi" } else { accel };
    let mut guest = Command::new(emulator)
        .args(["-machine", board, "-accel", accel, "-cpu", cpu, "-m", "2048", "-smp", "2"])
        .args(["-nographic", "-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", options])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {emulator}: `cargo xtask setup` says which part has it"))?;
    let mut stdout = guest.stdout.take().context("the guest has no console")?;
    let console = thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned())
    });
    let start = Instant::now();
    while guest.try_wait()?.is_none() {
        if start.elapsed() > PATIENCE {
            guest.kill()?;
            guest.wait()?;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(console.join().unwrap_or_else(|_| Ok(String::new()))?)
}
