//! `cargo xtask setup`: what the eBPF object, lint, the kernel matrix and clusters need and this machine
//! lacks. `cargo build` needs none of it.

mod apt;
mod cross;
mod deny;
mod linker;
pub(crate) mod machine;
mod mdbook;
mod packages;
mod rust_src;
mod test_root;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::{arch::Arch, run};

/// Installs what is missing, without what is for arm64; run it as often as you like
#[derive(Args)]
pub(crate) struct Setup {
    /// Only this part
    #[arg(long, value_enum)]
    only: Option<Part>,
}

/// One thing to install. The order is the order of installation: the linker needs the compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The pinned compiler's core library in source, for `cargo xtask ebpf`
    RustSrc,
    /// The eBPF linker, for `cargo xtask ebpf`
    BpfLinker,
    /// The check of dependencies, for `cargo xtask lint`
    CargoDeny,
    /// What makes pages of the book, for `cargo xtask book`
    Mdbook,
    /// QEMU, for `cargo xtask vm`
    Emulator,
    /// Kernel images, for `cargo xtask vm`
    Kernels,
    /// Modules of each of these kernels: interfaces, hooks and qdiscs of guests
    Modules,
    /// runc and network tools, for `cargo xtask cluster`
    Cluster,
    /// A generator of DNS queries, for `cargo xtask bench dns`
    Dnsperf,
    /// The root file system of test images, for `cargo xtask e2e`
    TestRoot,
    /// What compiles for arm64, for `cargo xtask image --arch arm64`
    Arm64Compiler,
    /// QEMU for programs and machines of arm64, for `cargo xtask vm --arch arm64` and `cargo xtask test --full`
    Arm64Emulators,
    /// Kernel images of arm64 with their modules, for the same
    Arm64Kernels,
}

impl Part {
    pub(crate) fn present(self) -> bool {
        match self {
            Self::RustSrc => rust_src::present(),
            Self::BpfLinker => linker::present(),
            Self::CargoDeny => deny::present(),
            Self::Mdbook => mdbook::present(),
            Self::Emulator => machine::emulator_present(Arch::Amd64),
            Self::Kernels => machine::kernels_present(Arch::Amd64),
            Self::Modules => machine::modules_present(Arch::Amd64),
            Self::Cluster => packages::cluster_present(),
            Self::Dnsperf => packages::dnsperf_present(),
            Self::TestRoot => test_root::present(),
            Self::Arm64Compiler => cross::present(),
            Self::Arm64Emulators => machine::arm64_emulators_present(),
            Self::Arm64Kernels => machine::modules_present(Arch::Arm64),
        }
    }

    fn install(self) -> Result<()> {
        match self {
            Self::RustSrc => rust_src::install(),
            Self::BpfLinker => linker::install(),
            Self::CargoDeny => deny::install(),
            Self::Mdbook => mdbook::install(),
            Self::Emulator => machine::install_emulator(Arch::Amd64),
            Self::Kernels | Self::Modules => machine::install_kernels(Arch::Amd64),
            Self::Cluster => packages::install_cluster(),
            Self::Dnsperf => packages::install_dnsperf(),
            Self::TestRoot => test_root::install(),
            Self::Arm64Compiler => cross::install(),
            Self::Arm64Emulators => machine::install_arm64_emulators(),
            Self::Arm64Kernels => machine::install_kernels(Arch::Arm64),
        }
    }

    /// Whether it is installed where nobody says which parts: not what releases alone need.
    fn is_usual(self) -> bool {
        !matches!(self, Self::Arm64Compiler | Self::Arm64Emulators | Self::Arm64Kernels)
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Installs this part if it is not there.
    pub(crate) fn bring(self) -> Result<()> {
        if !self.present() {
            run::say(format!("{}: missing, installing it", self.name()));
            self.install().with_context(|| format!("can't install {}", self.name()))?;
        }
        Ok(())
    }

    /// An error with the remedy when this part is not there.
    pub(crate) fn require(self) -> Result<()> {
        if !self.present() {
            bail!("missing: {name}. Install it with `cargo xtask setup --only {name}`", name = self.name());
        }
        Ok(())
    }
}

impl Setup {
    pub(crate) fn run(&self) -> Result<()> {
        let usual = || Part::value_variants().iter().copied().filter(|part| part.is_usual()).collect();
        let parts = self.only.map_or_else(usual, |part| vec![part]);
        let mut failed = Vec::new();
        for part in parts {
            if part.present() {
                println!("{:<15} there", part.name());
                continue;
            }
            run::say(format!("{}: missing, installing it", part.name()));
            match part.install() {
                Ok(()) => println!("{:<15} installed", part.name()),
                Err(error) => {
                    println!("{:<15} still missing: {error:#}", part.name());
                    failed.push(part.name());
                }
            }
        }
        if !failed.is_empty() {
            bail!("missing: {}. See above for what each needs; `cargo build` works without them", failed.join(", "));
        }
        Ok(())
    }
}
