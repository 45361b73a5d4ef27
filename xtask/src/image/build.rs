//! The programs of the image: static, since its root has no C library.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{arch::Arch, paths, remap, run, setup::Part};

/// A package and the program that it gives.
pub(super) type Program = (&'static str, &'static str);

/// Of the image that users get.
pub(super) const PROGRAMS: [Program; 3] =
    [("fairlead-agent", "fairlead"), ("fairlead-cni", "fairlead-cni"), ("fairlead-dns", "fairlead-dns")];

/// How they are built: a profile of the workspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Profile {
    #[default]
    Release,
    /// As what is released: smaller, and slow to build.
    Small,
}

impl Profile {
    /// Its name, which is that of cargo's folder too.
    const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Small => "small",
        }
    }
}

/// Builds the programs for an architecture and returns each with its name.
///
/// With glibc, not musl: rustup brings only the machine's own target everywhere, and a static glibc answers host names
/// from /etc/hosts and DNS by itself.
pub(super) fn programs(arch: Arch, profile: Profile, wanted: &[Program]) -> Result<Vec<(&'static str, Vec<u8>)>> {
    if !arch.is_host() {
        Part::Arm64Compiler.require()?;
    }
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(remap::flags(None)?);
    let mut command = run::cargo();
    command
        .args(["build", "--locked", "--profile", profile.name()])
        .args(wanted.iter().flat_map(|(package, program)| ["--package", package, "--bin", program]));
    arch.select(&mut command)
        .env("CARGO_TARGET_DIR", target())
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTFLAGS");
    run::run(&mut command)?;
    wanted.iter().map(|(_, program)| Ok((*program, read(&place(arch, profile).join(program))?))).collect()
}

/// A directory and, by `--target`, flags of their own: build scripts and the host's builds never see them.
fn target() -> PathBuf {
    paths::target().join("static")
}

/// Where the programs of an architecture are, once they are built.
pub(super) fn place(arch: Arch, profile: Profile) -> PathBuf {
    target().join(arch.triple()).join(profile.name())
}

/// The content of a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("can't read {}", path.display()))
}

/// The files that a program is loaded with, its loader among them, by the machine's own `ldd`.
pub(super) fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output().context("can't run ldd, which glibc brings")?;
    if !output.status.success() {
        bail!("ldd does not know {}: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(loaded(&String::from_utf8_lossy(&output.stdout)))
}

/// The paths in what `ldd` prints: `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)` of the loader.
fn loaded(output: &str) -> Vec<String> {
    output.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_has_a_path() {
        let output = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t\
                      /lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(loaded(output), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(loaded("\tstatically linked\n").is_empty());
    }
}
