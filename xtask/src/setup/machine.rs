//! What the kernel matrix needs: the emulator from the machine's own packages, kernels that are only unpacked.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{apt::Archive, packages};
use crate::{paths, pins};

/// The emulator's program and the package that has it.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
const QEMU_PACKAGE: &str = "qemu-system-x86";

/// Whether the emulator is installed.
pub(super) fn emulator_present() -> bool {
    paths::which(QEMU).is_some()
}

/// Installs the emulator.
pub(super) fn install_emulator() -> Result<()> {
    packages::install(&[QEMU_PACKAGE]).with_context(|| format!("{QEMU} is missing"))
}

/// The folder of one series in the cache.
fn folder(series: &str) -> Result<PathBuf> {
    Ok(paths::cache()?.join("kernels").join(series))
}

/// The image of a series, when it is there.
pub(crate) fn kernel(series: &str) -> Option<PathBuf> {
    find_image(&folder(series).ok()?)
}

/// The modules of a series that guests need, in the order of [`MODULES`], when all are there.
pub(crate) fn modules(series: &str) -> Option<Vec<PathBuf>> {
    let folder = folder(series).ok()?;
    MODULES.iter().map(|(name, _)| find(&folder, &module(name))).collect()
}

/// What of the network Debian's kernels have as modules, what one needs before it: its name, and where it is below the kernel's
/// modules.
pub(crate) const MODULES: [(&str, &str); 16] = [
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
pub(super) fn kernels_present() -> bool {
    pins::KERNELS.iter().all(|series| kernel(series).is_some())
}

/// Whether the modules are there that go with each image.
pub(super) fn modules_present() -> bool {
    pins::KERNELS.iter().all(is_present)
}

fn is_present(series: &&str) -> bool {
    kernel(series).is_some() && modules(series).is_some()
}

/// Downloads the newest build of each series that is missing, or whose modules are.
pub(super) fn install_kernels() -> Result<()> {
    let names = MODULES.map(|(name, _)| module(name)).join(", ");
    let remedy =
        format!("put any kernel image of the series with BTF (CONFIG_DEBUG_INFO_BTF) and its {names} there by hand");
    let missing: Vec<&str> = pins::KERNELS.into_iter().filter(|series| !is_present(series)).collect();
    let folders = missing.iter().map(|series| Ok(folder(series)?.display().to_string())).collect::<Result<Vec<_>>>()?;
    let fetch = || -> Result<()> {
        let archive = Archive::open(pins::KERNEL_SUITE)?;
        for series in &missing {
            let package = archive.newest(&format!("linux-image-{series}."), "-cloud-amd64-unsigned")?;
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
            let place = folder(series)?;
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
