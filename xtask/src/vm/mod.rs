//! `cargo xtask vm`: every program of the eBPF object through the verifiers of several kernels.

mod initramfs;
mod qemu;
mod report;

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use clap::Args;

use crate::{paths, pins, run, setup::Part, tally::Tally, toolchain};
use report::Report;

const VERIFIER: &str = "fairlead-verifier";

/// Loads the eBPF object on the running kernel and on others, under QEMU, and shows what the verifiers counted
#[derive(Args)]
pub(crate) struct Vm {
    /// Only this kernel: `running`, or a series as `6.1`
    #[arg(long, default_value = "all", value_parser = ["all", "running", pins::KERNELS[0], pins::KERNELS[1]])]
    kernel: String,
    /// What QEMU runs guests with. KVM is faster where it works; emulation works everywhere
    #[arg(long, default_value = "tcg", value_parser = ["tcg", "kvm"])]
    accel: String,
}

impl Default for Vm {
    fn default() -> Self {
        Self { kernel: "all".to_owned(), accel: "tcg".to_owned() }
    }
}

impl Vm {
    pub(crate) fn run(&self) -> Result<()> {
        self.tally()?.conclude()
    }

    /// Runs the matrix and prints its table; one program on one kernel counts as one test.
    pub(crate) fn tally(&self) -> Result<Tally> {
        let series: Vec<&str> = pins::KERNELS.into_iter().filter(|series| self.wants(series)).collect();
        if !series.is_empty() {
            Part::Emulator.require()?;
            Part::Kernels.require()?;
        }
        let object = paths::object();
        let bytes = fs::read(&object)
            .with_context(|| format!("can't read {}: `cargo xtask ebpf` makes it", object.display()))?;
        let verifier = build_verifier()?;

        let mut reports = Vec::new();
        if self.wants("running") {
            run::say("loading on the running kernel");
            let output = run::as_root(&verifier.display().to_string())?.arg(&object).output()?;
            let text =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            reports.push(Report::parse("running", &text));
        }
        let initrd = paths::target().join("initramfs.cpio");
        if !series.is_empty() {
            fs::write(&initrd, initramfs::archive(&fs::read(&verifier)?, &bytes))?;
        }
        for series in series {
            run::say(format!("loading on {series} under QEMU ({})", self.accel));
            let console = qemu::boot(series, &initrd, &self.accel)?;
            reports.push(Report::parse(series, &console));
        }
        print!("{}", report::table(&reports));
        let problems: Vec<String> = reports.iter().flat_map(Report::problems).collect();
        for problem in &problems {
            println!("FAILED {problem}");
        }
        let all: usize = reports.iter().map(Report::tests).sum();
        Ok(Tally { passed: all.saturating_sub(problems.len()), failed: problems.len() })
    }

    fn wants(&self, kernel: &str) -> bool {
        self.kernel == "all" || self.kernel == kernel
    }
}

/// A static program runs in a guest that has no libraries.
fn build_verifier() -> Result<PathBuf> {
    run::say(format!("building {VERIFIER}"));
    let host = toolchain::host();
    let mut command: Command = run::cargo();
    command
        .args(["build", "--locked", "--package", VERIFIER, "--target", &host])
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static\x1f-Cstrip=symbols")
        .env_remove("RUSTFLAGS");
    run::run(&mut command)?;
    Ok(paths::target().join(host).join("debug").join(VERIFIER))
}
