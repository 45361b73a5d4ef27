//! bpf-linker, built against the LLVM that the pinned compiler already has. A released binary brings an LLVM of its own,
//! which need not make the same bytes.

use std::{fs, os::unix, process::Stdio};

use anyhow::{Context, Result};

use crate::{paths, pins, run, toolchain::Toolchain};

/// Whether one of the right version is in the cache.
pub(super) fn present() -> bool {
    Toolchain::linker().is_some()
}

/// Builds it (a minute and a half on two cores).
pub(super) fn install() -> Result<()> {
    let toolchain = Toolchain::find()?;
    let root = Toolchain::linker_root()?;
    let libraries = toolchain.sysroot.join("lib");
    let llvm = fs::read_dir(&libraries)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libLLVM.so.")))
        .with_context(|| {
            format!("rustc {} has no libLLVM.so in {}: it must come from rustup", pins::RUSTC, libraries.display())
        })?;

    // What llvm-sys expects of an installed LLVM is a `lib` folder with this name in it.
    let prefix = paths::cache()?.join(format!("llvm-of-rustc-{}", pins::RUSTC));
    let link = prefix.join("lib/libLLVM.so");
    fs::create_dir_all(prefix.join("lib"))?;
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link)?;
    }
    unix::fs::symlink(llvm, &link)?;

    run::say(format!("building bpf-linker {} (a minute or two)", pins::BPF_LINKER));
    let mut command = run::cargo();
    command
        .args(["install", "bpf-linker", "--locked", "--force", "--version", pins::BPF_LINKER])
        .args(["--no-default-features", "--features", pins::BPF_LINKER_LLVM, "--root"])
        .arg(&root)
        .env("LLVM_PREFIX", &prefix)
        .env("RUSTFLAGS", format!("-Clink-arg=-Wl,-rpath,{}", libraries.display()))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null());
    run::run(toolchain.select(&mut command))?;
    Toolchain::linker()
        .with_context(|| format!("{} was built but does not start", root.join("bin/bpf-linker").display()))?;
    Ok(())
}
