//! What the kernel matrix needs: the emulator from the machine's own packages, kernels that are only unpacked.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{apt::Archive, packages};
use crate::{arch::Arch, paths, pins};

/// What emulates programs of arm64, and the package that has it.
pub(crate) const QEMU_USER: &str = "qemu-aarch64";
const QEMU_USER_PACKAGE: &str = "qemu-user";

/// The program that emulates a machine.
pub(crate) fn emulator(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "qemu-system-x86_64",
        Arch::Arm64 => "qemu-system-aarch64",
    }
}

/// The package that has it.
fn emulator_package(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "qemu-system-x86",
        Arch::Arm64 => "qemu-system-arm",
    }
}

/// Where packages have the program that shares files with guests: its own, and QEMU's before that.
const VIRTIOFSD: [&str; 2] = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];

/// The program that shares files with guests.
pub(crate) fn virtiofsd() -> Result<PathBuf> {
    paths::which("virtiofsd").or_else(|| VIRTIOFSD.map(PathBuf::from).into_iter().find(|file| file.is_file())).context(
        "virtiofsd is missing: Debian 12 has it in the package qemu-system-common, later ones in the package virtiofsd",
    )
}

/// Whether a machine's emulator is installed.
pub(super) fn emulator_present(arch: Arch) -> bool {
    paths::which(emulator(arch)).is_some()
}

/// Installs it.
pub(super) fn install_emulator(arch: Arch) -> Result<()> {
    packages::install(&[emulator_package(arch)]).with_context(|| format!("{} is missing", emulator(arch)))
}

/// Whether programs of arm64 can be run, and machines.
pub(super) fn arm64_emulators_present() -> bool {
    paths::which(QEMU_USER).is_some() && emulator_present(Arch::Arm64)
}

/// Installs what runs them.
pub(super) fn install_arm64_emulators() -> Result<()> {
    packages::install(&[QEMU_USER_PACKAGE, emulator_package(Arch::Arm64)])
        .with_context(|| format!("{QEMU_USER} or {} is missing", emulator(Arch::Arm64)))
}

/// The folder of one series in the cache.
fn folder(arch: Arch, series: &str) -> Result<PathBuf> {
    let name = match arch {
        Arch::Amd64 => series.to_owned(),
        Arch::Arm64 => format!("{series}-arm64"),
    };
    Ok(paths::cache()?.join("kernels").join(name))
}

/// The image of a series, when it is there.
pub(crate) fn kernel(arch: Arch, series: &str) -> Option<PathBuf> {
    find_image(&folder(arch, series).ok()?)
}

/// The modules of a series that guests need, in the order of [`MODULES`], when all are there.
pub(crate) fn modules(arch: Arch, series: &str) -> Option<Vec<PathBuf>> {
    let folder = folder(arch, series).ok()?;
    MODULES.iter().map(|(name, _)| find(&folder, &module(name))).collect()
}

/// What of the network Debian's kernels have as modules, what one needs before it: its name, and where it is below the kernel's
/// modules.
pub(crate) const MODULES: [(&str, &str); 17] = [
    ("dummy", "kernel/drivers/net"),
    ("veth", "kernel/drivers/net"),
    ("sch_ingress", "kernel/net/sched"),
    ("cls_bpf", "kernel/net/sched"),
    ("sch_fq", "kernel/net/sched"),
    ("llc", "kernel/net/llc"),
    ("stp", "kernel/net/802"),
    ("garp", "kernel/net/802"),
    ("mrp", "kernel/net/802"),
    ("8021q", "kernel/net/8021q"),
    ("bridge", "kernel/net/bridge"),
    ("udp_tunnel", "kernel/net/ipv4"),
    ("ip6_udp_tunnel", "kernel/net/ipv6"),
    ("vxlan", "kernel/drivers/net/vxlan"),
    ("libcrc32c", "kernel/lib"),
    ("sctp", "kernel/net/sctp"),
    ("overlay", "kernel/fs/overlayfs"),
];

/// How a module's file begins; it may be packed.
fn module(name: &str) -> String {
    format!("{name}.ko")
}

fn find_image(dir: &Path) -> Option<PathBuf> {
    find(dir, "vmlinuz")
}

/// The last file of a folder that begins so.
fn find(dir: &Path, begin: &str) -> Option<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begin)));
    files.into_iter().max()
}

/// Whether there is an image of each series.
pub(super) fn kernels_present(arch: Arch) -> bool {
    pins::KERNELS.iter().all(|series| kernel(arch, series).is_some())
}

/// Whether the modules are there that go with each image.
pub(super) fn modules_present(arch: Arch) -> bool {
    pins::KERNELS.iter().all(|series| is_present(arch, series))
}

fn is_present(arch: Arch, series: &str) -> bool {
    kernel(arch, series).is_some() && modules(arch, series).is_some()
}

/// Downloads the newest build of each series that is missing, or whose modules are.
pub(super) fn install_kernels(arch: Arch) -> Result<()> {
    let names = MODULES.map(|(name, _)| module(name)).join(", ");
    let remedy =
        format!("put any kernel image of the series with BTF (CONFIG_DEBUG_INFO_BTF) and its {names} there by hand");
    let missing: Vec<&str> = pins::KERNELS.into_iter().filter(|series| !is_present(arch, series)).collect();
    let folders =
        missing.iter().map(|series| Ok(folder(arch, series)?.display().to_string())).collect::<Result<Vec<_>>>()?;
    let fetch = || -> Result<()> {
        let archive = Archive::open(pins::KERNEL_SUITE, arch)?;
        for series in &missing {
            let end = format!("-cloud-{}-unsigned", arch.name());
            let package = archive.newest(&format!("linux-image-{series}."), &end)?;
            let unpacked = paths::cache()?.join("kernel-package");
            archive.unpack(&package, &unpacked)?;
            let image = find_image(&unpacked.join("boot")).with_context(|| format!("{package} has no boot/vmlinuz"))?;
            let modules =
                fs::read_dir(unpacked.join("lib/modules"))?.next().context("the package has no modules")??.path();
            let found = MODULES.iter().map(|(name, place)| {
                find(&modules.join(place), &module(name)).with_context(|| format!("{package} has no module {name}"))
            });
            let files = found.chain([Ok(image)]).collect::<Result<Vec<_>>>()?;
            // An image and modules of another build do not go together.
            let place = folder(arch, series)?;
            if place.exists() {
                fs::remove_dir_all(&place)?;
            }
            fs::create_dir_all(&place)?;
            for file in files {
                fs::rename(&file, place.join(file.file_name().unwrap_or_default()))?;
            }
            fs::remove_dir_all(&unpacked)?;
        }
        Ok(())
    };
    fetch().with_context(|| format!("no kernel image vmlinuz* with its modules in {}: {remedy}", folders.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_its_name() {
        let dir = std::env::temp_dir().join(format!("fairlead-image-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("System.map-6.1"), "").unwrap();
        assert_eq!(find_image(&dir), None);
        fs::write(dir.join("vmlinuz-6.1"), "").unwrap();
        assert_eq!(find_image(&dir), Some(dir.join("vmlinuz-6.1")));
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(find_image(&dir), None);
    }
}
