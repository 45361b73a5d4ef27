//! Compiling for the BPF target, on a stable compiler.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{paths, remap, run, setup::Part, toolchain::Toolchain};

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

/// Documentation of the programs; warnings are errors.
pub(crate) fn doc() -> Result<()> {
    run::run(run::documented(&mut cargo(&tools()?, "doc")?))
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
        .env("CARGO_INCREMENTAL", "0") // it makes other bytes
        .env("CARGO_TARGET_DIR", target_dir())
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain)?.join("\x1f"))
        .env_remove("RUSTFLAGS");
    toolchain.select(&mut command);
    Ok(command)
}

fn flags(toolchain: &Toolchain) -> Result<Vec<String>> {
    let remaps = remap::flags(Some((toolchain.source(), "/rust")))?;
    Ok(FLAGS.into_iter().map(str::to_owned).chain(remaps).collect())
}
