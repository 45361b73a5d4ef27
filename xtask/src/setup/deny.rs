//! cargo-deny, from crates.io, in the cache.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::{deny, pins, run};

/// Whether one of the right version is in the cache.
pub(super) fn present() -> bool {
    deny::program().is_ok_and(|program| {
        run::output(Command::new(program).arg("--version"))
            .is_ok_and(|text| text.split_whitespace().nth(1) == Some(pins::CARGO_DENY))
    })
}

/// Builds it. It works for seconds and is compiled for minutes, so it is compiled without optimization.
pub(super) fn install() -> Result<()> {
    run::say(format!("building cargo-deny {} (two or three minutes)", pins::CARGO_DENY));
    let mut command = run::cargo();
    command
        .args(["install", "cargo-deny", "--locked", "--force", "--debug", "--no-default-features"])
        .args(["--version", pins::CARGO_DENY, "--root"])
        .arg(deny::root()?)
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null());
    run::run(&mut command).context("crates.io must be within reach")
}
