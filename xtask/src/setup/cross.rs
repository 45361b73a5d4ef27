//! What compiles for arm64 on a machine that is none: a C compiler from Debian, the standard library from rustup.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::packages;
use crate::{arch::Arch, paths, run};

/// The compiler, and the C library's files that it links with.
const PACKAGES: [&str; 2] = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];

/// Whether both are there. A machine that is one of arm64 has them anyway.
pub(super) fn present() -> bool {
    Arch::Arm64.is_host() || paths::which(Arch::Arm64.compiler()).is_some() && has_library().unwrap_or(false)
}

/// Whether the compiler of this work tree has its library for arm64.
fn has_library() -> Result<bool> {
    let mut command = Command::new("rustc");
    command.args(["--print", "target-libdir", "--target", Arch::Arm64.triple()]).current_dir(paths::workspace());
    Ok(std::path::Path::new(run::output(&mut command)?.trim_end()).is_dir())
}

/// Installs what is missing of them.
pub(super) fn install() -> Result<()> {
    if paths::which(Arch::Arm64.compiler()).is_none() {
        packages::install(&PACKAGES)?;
    }
    if has_library()? {
        return Ok(());
    }
    let by_hand = format!("rustup target add {}", Arch::Arm64.triple());
    if paths::which("rustup").is_none() {
        bail!("this machine has no rustup: have the compiler's library for {} installed", Arch::Arm64.triple());
    }
    run::say(&by_hand);
    let mut command = Command::new("rustup");
    command.args(["target", "add", Arch::Arm64.triple()]).current_dir(paths::workspace());
    run::run(&mut command).with_context(|| format!("`{by_hand}` needs network access"))
}
