//! The source of the core library, which the BPF target has to compile for itself.

use std::{fs, process::Command};

use anyhow::{Context, Result, bail};

use super::apt::Archive;
use crate::{arch::Arch, paths, pins, run, toolchain::Toolchain};

/// Whether the pinned compiler and its source are there.
pub(super) fn present() -> bool {
    Toolchain::find().is_ok_and(|toolchain| toolchain.has_source())
}

/// Asks rustup for the compiler and the source, and Debian for the source when rustup can't.
pub(super) fn install() -> Result<()> {
    let rustup = paths::which("rustup").is_some();
    if rustup && Toolchain::find().is_err() {
        run::say(format!("rustup installs rustc {}, next to the current compiler", pins::RUSTC));
        run::run(Command::new("rustup").args(["toolchain", "install", pins::RUSTC, "--profile", "minimal"]))?;
    }
    let toolchain = Toolchain::find()?;
    if rustup {
        run::say("rustup component add rust-src");
        let added = run::output(toolchain.select(Command::new("rustup").args(["component", "add", "rust-src"])));
        if toolchain.has_source() {
            return Ok(());
        }
        if let Err(error) = added {
            let text = error.to_string();
            println!("   rustup could not: {}", text.lines().find(|line| line.starts_with("error:")).unwrap_or(&text));
        }
    }
    from_debian(&toolchain).with_context(|| {
        format!(
            "rust-src of rustc {} is missing: `rustup component add rust-src` installs it if rustup has network access",
            pins::RUSTC
        )
    })
}

/// The package unpacks to the folder that rustup would have made. It appears whole or not at all.
fn from_debian(toolchain: &Toolchain) -> Result<()> {
    let archive = Archive::open(pins::RUST_SRC_SUITE, Arch::host()?)?;
    let unpacked = paths::cache()?.join("rust-src");
    archive.unpack(&format!("rust-src={}*", pins::RUSTC), &unpacked)?;
    let library = unpacked.join(format!("usr/src/rustc-{}/library", pins::RUSTC));
    if !library.is_dir() {
        bail!("the package has no {}", library.display());
    }
    let partial = toolchain.source().join("library.partial");
    run::say(format!("copying it to {}", toolchain.source().display()));
    fs::create_dir_all(toolchain.source())?;
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    run::run(Command::new("cp").arg("-r").arg(&library).arg(&partial))?;
    fs::rename(&partial, toolchain.source().join("library"))?;
    fs::remove_dir_all(&unpacked)?;
    Ok(())
}
