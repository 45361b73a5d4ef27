//! Being the first process of a machine that has nothing else.

use std::{fs, io::Write as _};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
    unistd::sync,
};

/// Where the initramfs has the object.
pub(crate) const OBJECT: &str = "/object";

/// Mounts what loading a program reads: the kernel's types below /sys, the CPU count below /proc.
pub(crate) fn prepare() -> Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("bpf", "/sys/fs/bpf")] {
        fs::create_dir_all(place)?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("can't mount {kind} on {place}"))?;
    }
    Ok(())
}

/// Turns the machine off. When even that fails, returning lets the kernel panic, which ends the emulator as well.
pub(crate) fn power_off() {
    std::io::stdout().flush().ok();
    sync();
    reboot(RebootMode::RB_POWER_OFF).ok();
}
