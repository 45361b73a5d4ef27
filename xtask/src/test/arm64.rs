//! What is made for arm64, on a machine that need not be one: tests under QEMU's emulation of programs, and the image.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{Outcome, host};
use crate::{
    arch::Arch,
    image, paths, run,
    setup::{Part, machine::QEMU_USER},
    tally::Tally,
};

/// Whose tests are run.
const PACKAGES: [&str; 4] = ["fairlead-datapath", "fairlead-agent", "fairlead-cni", "fairlead-dns"];

/// The programs that those start.
const PROGRAMS: [&str; 2] = ["fairlead-cni", "fairlead-dns"];

/// What is run of them: units, walks of the datapath among them, and the behaviour of the DNS server. One starts itself anew, and the
/// kernel knows no emulator; it measures memory, which would be the emulator's.
const UNITS: [&[&str]; 2] = [
    &["--lib", "--bins", "--test", "behaviour"],
    &[
        "--skip",
        "d26_half_messages_on_2500_connections_take_little_memory",
        // bpf(2), ethtool's ioctl and links, which it hands on to no kernel.
        "--skip",
        "bpf::memory::tests::it_is_what_the_kernel_counts",
        "--skip",
        "doctor::collect::kernel::tests::this_kernel_has_everything",
        "--skip",
        "bpf::ethtool::tests::the_loopback_device_is_plugged_in_nowhere",
        "--skip",
        "wiring::tests::",
    ],
];

/// And what the plugin's verbs do without a link: the emulator hands no message to the kernel that makes or removes one
/// (`target_to_host_data_route` in QEMU's linux-user/fd-trans.c).
const VERBS: [&[&str]; 2] = [
    &["--test", "verbs"],
    &["others::", "--skip", "::c10_", "--skip", "::c7_", "--skip", "::c9_status_stays_good_over_a_restart"],
];

/// A directory of its own: other flags than the machine's own tests'.
fn target() -> PathBuf {
    paths::target().join("arm64")
}

/// Runs tests that were built for arm64.
pub(super) fn tests() -> Result<Outcome> {
    [Part::Arm64Compiler, Part::Arm64Emulators].into_iter().try_for_each(Part::require)?;
    let mut outcome = Outcome::default();
    for [targets, harness] in [UNITS, VERBS] {
        let of_these = test(targets, harness)?;
        outcome.tally += of_these.tally;
        outcome.failures.extend(of_these.failures);
    }
    Ok(outcome)
}

/// Always of the same packages, so that nothing is built twice.
fn test(targets: &[&str], harness: &[&str]) -> Result<Outcome> {
    let arch = Arch::Arm64;
    let mut command = run::cargo();
    command.args(["test", "--locked", "--no-fail-fast"]).args(targets);
    command.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    // Static programs need no library of arm64 on this machine. What is emulated is worth some optimization.
    arch.select(&mut command)
        .env("CARGO_TARGET_DIR", target())
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env_remove("RUSTFLAGS");
    if !arch.is_host() {
        command.env(arch.variable("RUNNER"), runner(arch)?);
    }
    command.arg("--").args(harness);
    host::cargo_test(&mut command)
}

/// The emulator, which tells tests that the programs they start are what starts those under it: this machine's kernel can't by itself.
fn runner(arch: Arch) -> Result<String> {
    let folder = target().join("emulated");
    fs::create_dir_all(&folder)?;
    let mut words = run::root_prefix()?;
    words.push(QEMU_USER.to_owned());
    for name in PROGRAMS {
        let program = target().join(arch.triple()).join("debug").join(name);
        let starter = folder.join(name);
        write_starter(&starter, &program).with_context(|| format!("can't write {}", starter.display()))?;
        words.extend(["-E".to_owned(), format!("CARGO_BIN_EXE_{name}={}", starter.display())]);
    }
    Ok(words.join(" "))
}

/// A script that runs a program under the emulator.
fn write_starter(starter: &Path, program: &Path) -> Result<()> {
    let emulator = paths::which(QEMU_USER).with_context(|| format!("{QEMU_USER} is missing"))?;
    fs::write(starter, format!("#!/bin/sh\nexec '{}' '{}' \"$@\"\n", emulator.display(), program.display()))?;
    Ok(fs::set_permissions(starter, fs::Permissions::from_mode(0o755))?)
}

/// Builds the image for both architectures, and starts each program for arm64.
pub(super) fn image() -> Result<Outcome> {
    [Part::Arm64Compiler, Part::Arm64Emulators].into_iter().try_for_each(Part::require)?;
    let mut outcome = Outcome { tally: Tally::one(true), failures: Vec::new() };
    for program in image::build_index(&[Arch::Amd64, Arch::Arm64], Arch::Arm64)? {
        let result = says_its_version(&program);
        outcome.tally += Tally::one(result.is_ok());
        outcome.failures.extend(result.err().map(|error| format!("{}: {error:#}", program.display())));
    }
    Ok(outcome)
}

/// A program of the image that starts under the emulator knows which version it is; the plugin, which has no arguments, says those of CNI.
fn says_its_version(program: &Path) -> Result<()> {
    let mut command = Command::new(QEMU_USER);
    command.arg(program).arg("--version").env("CNI_COMMAND", "VERSION");
    let said = run::output(&mut command)?;
    ensure!(
        said.contains(env!("CARGO_PKG_VERSION")) || said.contains("supportedVersions"),
        "it says {:?}",
        said.trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starter_hands_on_what_it_is_given() {
        let folder = std::env::temp_dir().join(format!("fairlead-starter-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let starter = folder.join("starter");
        let written = write_starter(&starter, Path::new("/there/a program"));
        if paths::which(QEMU_USER).is_some() {
            written.unwrap();
            let text = fs::read_to_string(&starter).unwrap();
            assert!(
                text.starts_with("#!/bin/sh\nexec '/") && text.ends_with("' '/there/a program' \"$@\"\n"),
                "{text}"
            );
            assert_eq!(fs::metadata(&starter).unwrap().permissions().mode() & 0o777, 0o755);
        } else {
            assert!(written.unwrap_err().to_string().contains(QEMU_USER));
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
