//! One boot of one kernel: what it printed until it turned itself off.

use std::{
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::setup::machine;

/// A boot and all loads take less than a minute under emulation on a machine that is idle, all frames some minutes; a guest that
/// takes this long hangs.
const PATIENCE: Duration = Duration::from_secs(1500);

/// Boots the kernel of a series with an initramfs and returns its console.
pub(super) fn boot(series: &str, initrd: &Path, accel: &str) -> Result<String> {
    let kernel =
        machine::kernel(series).with_context(|| format!("there is no image of {series}: `cargo xtask setup`"))?;
    let accel = if accel == "tcg" { "tcg,thread=multi" } else { accel };
    let mut guest = Command::new(machine::QEMU)
        .args(["-machine", "q35", "-accel", accel, "-cpu", "max", "-m", "2048", "-smp", "2"])
        .args(["-nographic", "-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 panic=-1 quiet no_timer_check"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {}: `cargo xtask setup --only emulator`", machine::QEMU))?;
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
