//! The programs of the image: static, since its root has no C library.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::{paths, remap, run, toolchain};

/// A package and the program that it gives.
pub(super) type Program = (&'static str, &'static str);

/// Of the image that users get.
pub(super) const PROGRAMS: [Program; 3] =
    [("fairlead-agent", "fairlead"), ("fairlead-cni", "fairlead-cni"), ("fairlead-dns", "fairlead-dns")];

/// Of the image that pods of tests on a cluster run.
pub(super) const LAB: [Program; 1] = [("fairlead-tests", "fairlead-lab")];

/// Builds the programs and returns each with its name.
///
/// With glibc, not musl: rustup brings only the machine's own target everywhere, and a static glibc answers host names
/// from /etc/hosts and DNS by itself.
pub(super) fn programs(wanted: &[Program]) -> Result<Vec<(&'static str, Vec<u8>)>> {
    // A directory and, by `--target`, flags of their own: build scripts and the host's builds never see them.
    let target = paths::target().join("static");
    let triple = toolchain::host();
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(remap::flags(None)?);
    let mut command = run::cargo();
    command
        .args(["build", "--locked", "--release", "--target", &triple])
        .args(wanted.iter().flat_map(|(package, program)| ["--package", package, "--bin", program]))
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTFLAGS");
    run::run(&mut command)?;
    let built = target.join(triple).join("release");
    wanted.iter().map(|(_, program)| Ok((*program, read(&built.join(program))?))).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("can't read {}", path.display()))
}
