//! Compiling for the BPF target, on a stable compiler.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{paths, run, setup::Part, toolchain::Toolchain};

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "fairlead-programs";
const PROFILE: &str = "ebpf";

/// `v3` has 32-bit arithmetic and atomics. Debug information is what .BTF is made from, and maps need .BTF. The last
/// flag turns off calls to byte-by-byte copies, which cost hundreds of verified instructions each and which 6.1 refuses.
const FLAGS: [&str; 4] =
    ["-Ctarget-cpu=v3", "-Cdebuginfo=2", "-Clink-arg=--btf", "-Clink-arg=--disable-expand-memcpy-in-order"];

/// Builds the object and strips what the kernel does not read.
pub(super) fn object() -> Result<Vec<u8>> {
    let toolchain = tools()?;
    let target = target_dir();
    run::run(cargo(&toolchain, "build")?.args(["--profile", PROFILE]))?;
    let stripped = target.join("fairlead.bpf.o");
    run::run(
        toolchain.objcopy().arg("--strip-debug").arg(target.join(TARGET).join(PROFILE).join(PACKAGE)).arg(&stripped),
    )
    .context("rust-objcopy comes with the compiler when rustup installed it")?;
    fs::read(&stripped).with_context(|| format!("can't read {}", stripped.display()))
}

/// Clippy on the programs, and on the datapath as they use it; warnings are errors.
pub(crate) fn clippy() -> Result<()> {
    run::run(cargo(&tools()?, "clippy")?.args(["--profile", PROFILE, "--", "-D", "warnings"]))
}

fn tools() -> Result<Toolchain> {
    let toolchain = Toolchain::find()?;
    Part::RustSrc.require()?;
    Part::BpfLinker.require()?;
    Ok(toolchain)
}

/// A directory of its own: other flags than the host's, and no waiting for the host's builds.
fn target_dir() -> PathBuf {
    paths::target().join("ebpf")
}

fn cargo(toolchain: &Toolchain, what: &str) -> Result<Command> {
    let linker = Toolchain::linker().context("bpf-linker is missing")?;
    let mut command = run::cargo();
    command
        .args([what, "--locked", "--package", PACKAGE, "--target", TARGET, "-Zbuild-std=core"])
        .env("RUSTC_BOOTSTRAP", "1") // build-std is unstable; the compiler and the source it compiles are pinned
        .env("CARGO_TARGET_DIR", target_dir())
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&remaps(toolchain)?).join("\x1f"))
        .env_remove("RUSTFLAGS");
    toolchain.select(&mut command);
    Ok(command)
}

/// The directories that differ from machine to machine and get into debug information, and what they are called there.
fn remaps(toolchain: &Toolchain) -> Result<Vec<(PathBuf, String)>> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let registries = home.context("neither CARGO_HOME nor HOME is set: set one")?.join("registry/src");
    let mut remaps =
        vec![(paths::workspace().to_owned(), "/fairlead".to_owned()), (toolchain.source(), "/rust".to_owned())];
    for entry in fs::read_dir(&registries).into_iter().flatten() {
        remaps.push((entry?.path(), "/registry".to_owned()));
    }
    remaps.sort();
    Ok(remaps)
}

fn flags(remaps: &[(PathBuf, String)]) -> Vec<String> {
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let remaps = remaps.iter().map(|(from, to)| remap(from, to));
    FLAGS.into_iter().map(str::to_owned).chain(remaps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_hide_where_the_checkout_is() {
        let flags = flags(&[("/home/a/fairlead".into(), "/fairlead".to_owned())]);
        assert_eq!(flags[0], "-Ctarget-cpu=v3");
        assert_eq!(flags.last().unwrap(), "--remap-path-prefix=/home/a/fairlead=/fairlead");
    }
}
