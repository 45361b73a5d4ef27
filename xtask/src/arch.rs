//! The architectures that Fairlead is made for, and what compiles for another than this machine's.

use std::{env::consts, process::Command};

use anyhow::{Result, bail};
use clap::ValueEnum;

/// An architecture, by the name that Debian, Go and so the image format give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Arch {
    /// x86-64
    Amd64,
    /// 64-bit Arm, version 8.0 and later
    Arm64,
}

impl Arch {
    /// This machine's.
    pub(crate) fn host() -> Result<Self> {
        Self::of(consts::ARCH)
    }

    /// What Rust calls so.
    fn of(rust: &str) -> Result<Self> {
        match rust {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            other => bail!("nothing is made for {other}: only for x86_64 and aarch64"),
        }
    }

    /// Whether it is this machine's.
    pub(crate) fn is_host(self) -> bool {
        Self::host().is_ok_and(|host| host == self)
    }

    /// As in `linux/arm64`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The compiler's target.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// A setting of cargo for this target alone, as a variable of its environment.
    pub(crate) fn variable(self, setting: &str) -> String {
        format!("CARGO_TARGET_{}_{setting}", self.triple().to_uppercase().replace('-', "_"))
    }

    /// Has a cargo command build for this architecture. The C compiler for one that is not the machine's also links; what compiles
    /// C in build scripts finds it by itself.
    pub(crate) fn select(self, command: &mut Command) -> &mut Command {
        command.args(["--target", self.triple()]);
        if !self.is_host() {
            command.env(self.variable("LINKER"), self.compiler());
        }
        command
    }

    /// The C compiler, as Debian calls it.
    pub(crate) fn compiler(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu-gcc",
            Self::Arm64 => "aarch64-linux-gnu-gcc",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_have_the_names_of_the_image_format() {
        assert_eq!(Arch::of("x86_64").unwrap().name(), "amd64");
        assert_eq!(Arch::of("aarch64").unwrap().name(), "arm64");
        assert!(Arch::of("riscv64").is_err());
    }

    #[test]
    fn another_architecture_is_linked_by_its_own_compiler() {
        for arch in [Arch::Amd64, Arch::Arm64] {
            let mut command = Command::new("cargo");
            arch.select(&mut command);
            assert_eq!(command.get_args().nth(1).unwrap(), arch.triple());
            assert_eq!(command.get_envs().count(), usize::from(!arch.is_host()));
        }
        assert_eq!(Arch::Arm64.variable("LINKER"), "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER");
    }
}
