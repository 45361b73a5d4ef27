//! What makes the eBPF object: the pinned compiler, its core library's source, its linker.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail};

use crate::{paths, pins, run};

/// The pinned compiler, wherever it is.
pub(crate) struct Toolchain {
    /// What RUSTUP_TOOLCHAIN must be for it, when it is not the compiler of this work tree.
    name: Option<String>,
    /// Its `--print sysroot`.
    pub(crate) sysroot: PathBuf,
}

impl Toolchain {
    /// The compiler of this work tree if it is the pinned one, else the pinned one as rustup has it.
    pub(crate) fn find() -> Result<Self> {
        let found = version(&mut Command::new("rustc"));
        if found.as_deref() == Some(pins::RUSTC) {
            return Self::with_name(None);
        }
        if version(Command::new("rustc").env("RUSTUP_TOOLCHAIN", pins::RUSTC)).as_deref() == Some(pins::RUSTC) {
            return Self::with_name(Some(pins::RUSTC.to_owned()));
        }
        bail!(
            "the eBPF object is built with rustc {pin}, and here is {found}. Install it with `rustup toolchain \
             install {pin} --profile minimal`, nothing else changes. Only `cargo xtask ebpf` needs it: `cargo build` \
             embeds the committed object",
            pin = pins::RUSTC,
            found = found.as_deref().unwrap_or("none"),
        )
    }

    fn with_name(name: Option<String>) -> Result<Self> {
        let mut toolchain = Self { name, sysroot: PathBuf::new() };
        toolchain.sysroot =
            run::output(toolchain.select(Command::new("rustc").args(["--print", "sysroot"])))?.trim_end().into();
        Ok(toolchain)
    }

    /// Makes a rustc, cargo or rustup command use this compiler.
    pub(crate) fn select<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if let Some(name) = &self.name {
            command.env("RUSTUP_TOOLCHAIN", name);
        }
        command
    }

    /// Where the standard library's source is expected.
    pub(crate) fn source(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust")
    }

    /// Whether the core library's source is there.
    pub(crate) fn has_source(&self) -> bool {
        self.source().join("library/core/src/lib.rs").is_file()
    }

    /// bpf-linker's place in the cache. It is tied to one compiler's LLVM, so its folder names both.
    pub(crate) fn linker_root() -> Result<PathBuf> {
        Ok(paths::cache()?.join(format!("bpf-linker-{}-rustc-{}", pins::BPF_LINKER, pins::RUSTC)))
    }

    /// bpf-linker, when there is one of the right version that starts.
    pub(crate) fn linker() -> Option<PathBuf> {
        let program = Self::linker_root().ok()?.join("bin/bpf-linker");
        (version(&mut Command::new(&program)).as_deref() == Some(pins::BPF_LINKER)).then_some(program)
    }

    /// The compiler's own objcopy. It needs the compiler's LLVM, which is not on its run path.
    pub(crate) fn objcopy(&self) -> Command {
        let mut command = Command::new(self.sysroot.join("lib/rustlib").join(host()).join("bin/rust-objcopy"));
        command.env("LD_LIBRARY_PATH", self.sysroot.join("lib"));
        command
    }
}

/// The target triple of this machine.
pub(crate) fn host() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// The number that `PROGRAM --version` prints as its second word.
fn version(program: &mut Command) -> Option<String> {
    second_word(&run::output(program.arg("--version")).ok()?)
}

fn second_word(text: &str) -> Option<String> {
    text.split_whitespace().nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_second_word() {
        assert_eq!(second_word("rustc 1.95.0 (59807616e 2026-04-14)\n").as_deref(), Some("1.95.0"));
        assert_eq!(second_word("bpf-linker 0.13.0\n").as_deref(), Some("0.13.0"));
        assert_eq!(second_word("bash:\n"), None);
    }

    #[test]
    fn a_program_that_is_not_there_has_no_version() {
        assert_eq!(version(&mut Command::new("/nonexistent/bpf-linker")), None);
    }
}
