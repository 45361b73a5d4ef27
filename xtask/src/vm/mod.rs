//! `cargo xtask vm`: every program of the eBPF object through the verifiers of several kernels, packets with a limit of
//! bandwidth by way of `fq` and packets of VLANs, and with `--frames` the frames of the datapath's tests through the programs instead.

mod frames;
mod initramfs;
mod labs;
mod qemu;
mod report;
mod whole;

pub(crate) use self::whole::{Whole, quoted};

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    arch::Arch,
    paths, pins, run,
    setup::{Part, machine},
    tally::Tally,
};
use qemu::Machine;
use report::Report;

const VERIFIER: &str = "fairlead-verifier";

/// Loads the eBPF object on the running kernel and on others, under QEMU, and shows what the verifiers counted
#[derive(Args)]
pub(crate) struct Vm {
    /// Only this kernel: `running`, or a series such as `6.1`
    #[arg(long, default_value = "all", value_parser = ["all", "running", pins::KERNELS[0], pins::KERNELS[1]])]
    kernel: String,
    /// The architecture of the kernels under QEMU [default: amd64]. Those of arm64 run on two processors each: with and without
    /// atomic instructions
    #[arg(long, value_enum, default_value_t = Arch::Amd64, hide_default_value = true)]
    arch: Arch,
    /// QEMU's accelerator. KVM is faster where it works; emulation works everywhere
    #[arg(long, default_value = "tcg", value_parser = ["tcg", "kvm"])]
    accel: String,
    /// Also run the frames of the datapath's tests through the programs, and compare the results
    #[arg(long)]
    frames: bool,
    /// Run the tests in labs that need SCTP or VLAN devices instead: Debian's kernels have them
    #[arg(long, conflicts_with_all = ["frames", "arch"])]
    labs: bool,
}

impl Default for Vm {
    fn default() -> Self {
        Self { kernel: "all".to_owned(), arch: Arch::Amd64, accel: "tcg".to_owned(), frames: false, labs: false }
    }
}

impl Vm {
    /// The matrix with the frames of the datapath's tests.
    pub(crate) fn with_frames() -> Self {
        Self { frames: true, ..Self::default() }
    }

    /// The same on kernels of arm64.
    pub(crate) fn of_arm64() -> Self {
        Self { arch: Arch::Arm64, ..Self::with_frames() }
    }

    /// Tests in labs, on the newest kernel.
    pub(crate) fn with_labs() -> Self {
        let [.., newest] = pins::KERNELS;
        Self { labs: true, kernel: newest.to_owned(), ..Self::default() }
    }

    pub(crate) fn run(&self) -> Result<()> {
        self.tally()?.conclude()
    }

    /// Runs the matrix and prints its table; a program, or a test's frames, on one kernel counts as one test.
    pub(crate) fn tally(&self) -> Result<Tally> {
        if self.labs {
            return self.labs();
        }
        ensure!(
            self.kernel != "running" || self.wants("running"),
            "the running kernel is not of {}: give another --kernel",
            self.arch.name()
        );
        let series: Vec<&str> = pins::KERNELS.into_iter().filter(|series| self.wants(series)).collect();
        if !series.is_empty() {
            let parts: &[Part] = match self.arch {
                Arch::Amd64 => &[Part::Emulator, Part::Kernels, Part::Modules],
                Arch::Arm64 => &[Part::Arm64Compiler, Part::Arm64Emulators, Part::Arm64Kernels],
            };
            parts.iter().copied().try_for_each(Part::require)?;
        }
        let object = paths::object();
        let bytes = fs::read(&object)
            .with_context(|| format!("can't read {}: build it with `cargo xtask ebpf`", object.display()))?;
        let verifier = build_verifier(self.arch)?;
        let frames = self.frames.then(|| frames::record("walk::tests")).transpose()?;

        let mut reports = Vec::new();
        if self.wants("running") {
            run::say("loading on the running kernel");
            let output = run::as_root(&verifier.display().to_string())?.arg(&object).args(&frames).output()?;
            let text =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            reports.push(Report::parse("running", &text));
        }
        let initrd = paths::target().join("initramfs.cpio");
        let (program, recording) = (fs::read(&verifier)?, frames.map(fs::read).transpose()?);
        for series in series {
            let mut files: Vec<(&str, &[u8])> = vec![("object", &bytes)];
            files.extend(recording.as_deref().map(|recording| ("frames", recording)));
            let modules = modules(self.arch, series)?;
            files.extend(modules.iter().map(|(name, module)| (*name, module.as_slice())));
            fs::write(&initrd, initramfs::archive(&program, &files, &BTreeMap::new()))?;
            for cpu in qemu::cpus(self.arch) {
                let kernel = match self.arch {
                    Arch::Amd64 => series.to_owned(),
                    Arch::Arm64 => format!("{series}, {cpu}"),
                };
                run::say(format!("loading on {kernel} under QEMU ({})", self.accel));
                let console = qemu::boot(&self.machine(cpu), series, &initrd)?;
                reports.push(Report::parse(&kernel, &console));
            }
        }
        if self.frames {
            println!("{}", report::left_out(&reports));
        }
        print!("{}", report::table(&reports));
        if self.frames {
            print!("{}", report::frames(&reports));
        }
        let mut problems: Vec<String> = reports.iter().flat_map(Report::problems).collect();
        // Where nothing ran, that is what is wrong.
        if self.frames && problems.is_empty() {
            problems.extend(reports.first().map(Report::unlisted).unwrap_or_default());
        }
        for problem in &problems {
            println!("FAILED {problem}");
        }
        let all: usize = reports.iter().map(Report::tests).sum();
        Ok(Tally { passed: all.saturating_sub(problems.len()), failed: problems.len() })
    }

    /// Runs the tests in labs that need what the kernels of guests have.
    fn labs(&self) -> Result<Tally> {
        for part in [Part::Emulator, Part::Kernels, Part::Modules] {
            part.require()?;
        }
        let program = fs::read(build_verifier(self.arch)?)?;
        let initrd = paths::target().join("initramfs-labs.cpio");
        let mut tally = Tally::default();
        for target in labs::TARGETS {
            let lab = labs::Lab::of(target)?;
            for series in pins::KERNELS.into_iter().rev().filter(|series| self.wants(series)) {
                let modules = modules(self.arch, series)?;
                let mut files: Vec<(&str, &[u8])> =
                    modules.iter().map(|(name, module)| (*name, module.as_slice())).collect();
                files.push(("labs", lab.command.as_bytes()));
                fs::write(&initrd, initramfs::archive(&program, &files, &lab.programs))?;
                run::say(format!("running the tests {target} on {series} under QEMU ({})", self.accel));
                let [cpu, ..] = qemu::cpus(self.arch) else { continue };
                let console = qemu::boot(&self.machine(cpu), series, &initrd)?;
                let (ran, text) = labs::read(&console);
                println!("{text}");
                tally += ran;
            }
        }
        Ok(tally)
    }

    /// Whether a kernel is asked for. The running one is of this machine's architecture alone.
    fn wants(&self, kernel: &str) -> bool {
        let is_there = kernel != "running" || self.arch.is_host();
        is_there && (self.kernel == "all" || self.kernel == kernel)
    }

    fn machine<'a>(&'a self, cpu: &'a str) -> Machine<'a> {
        Machine { arch: self.arch, cpu, accel: &self.accel }
    }
}

/// Prints what the walks that most packets take cost on the running kernel, of so many runs each.
pub(crate) fn measure(runs: u32) -> Result<()> {
    let (verifier, frames) = (build_verifier(Arch::host()?)?, frames::record(frames::COST)?);
    run::say("running each walk's last packet again and again");
    let output = run::as_root(&verifier.display().to_string())?
        .args([paths::object(), frames])
        .arg(runs.to_string())
        .output()
        .context("can't run the verifier")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "a frame did not do what was recorded; `cargo xtask vm --frames` says which");
    let mut rows: Vec<[&str; 3]> = text
        .lines()
        .filter_map(|line| match line.split('\t').collect::<Vec<_>>()[..] {
            [VERIFIER, "cost", test, median, fewest] => Some([test.rsplit("::").next()?, median, fewest]),
            _ => None,
        })
        .collect();
    ensure!(!rows.is_empty(), "nothing was measured");
    rows.sort_unstable();
    println!("| walk | ns, median of {runs} | ns, fewest |\n|---|---|---|");
    for [walk, median, fewest] in rows {
        println!("| {} | {median} | {fewest} |", walk.replace('_', " "));
    }
    Ok(())
}

/// The modules that guests of a series load, each with its name.
fn modules(arch: Arch, series: &str) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let files = machine::modules(arch, series).context("the modules are there, or nothing would be run")?;
    let names = machine::MODULES.map(|(name, _)| name);
    names.into_iter().zip(files).map(|(name, file)| Ok((name, fs::read(file)?))).collect()
}

/// A static program runs in a guest that has no libraries.
fn build_verifier(arch: Arch) -> Result<PathBuf> {
    run::say(format!("building {VERIFIER} for {}", arch.name()));
    let mut command: Command = run::cargo();
    command.args(["build", "--locked", "--package", VERIFIER]);
    arch.select(&mut command)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static\x1f-Cstrip=symbols")
        .env_remove("RUSTFLAGS");
    run::run(&mut command)?;
    Ok(paths::target().join(arch.triple()).join("debug").join(VERIFIER))
}
