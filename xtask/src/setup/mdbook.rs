//! mdBook, from crates.io, in the cache.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::{book, pins, run};

/// Whether one of the right version is in the cache.
pub(super) fn present() -> bool {
    book::program().is_ok_and(|program| {
        run::output(Command::new(program).arg("--version"))
            .is_ok_and(|text| text.trim() == format!("mdbook v{}", pins::MDBOOK))
    })
}

/// Builds it, without optimization and without what serves pages.
pub(super) fn install() -> Result<()> {
    run::say(format!("building mdBook {} (two or three minutes)", pins::MDBOOK));
    let mut command = run::cargo();
    command
        .args(["install", "mdbook", "--locked", "--force", "--debug", "--no-default-features"])
        .args(["--version", pins::MDBOOK, "--root"])
        .arg(book::root()?)
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null());
    run::run(&mut command).context("crates.io must be within reach")
}
