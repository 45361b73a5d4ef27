//! The root file system of test images: a small Debian, since tests in pods call a shell, curl, dig and nc.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use fairlead_cluster::TEST_ROOT;

use super::{apt, packages};
use crate::{paths, pins, run};

/// What tests call besides what every Debian has.
const PACKAGES: &str = "bind9-dnsutils,ca-certificates,curl,iperf,iproute2,iputils-ping,netcat-openbsd,tcpdump,wget";
/// What of it no test reads.
const WITHOUT: [&str; 8] = [
    "./usr/share/doc",
    "./usr/share/man",
    "./usr/share/locale",
    "./usr/share/info",
    "./usr/share/zoneinfo",
    "./var/cache/apt",
    "./var/lib/apt",
    "./dev/*",
];

fn target() -> Result<PathBuf> {
    Ok(paths::cache()?.join("cluster").join(TEST_ROOT))
}

/// Whether it was made.
pub(super) fn present() -> bool {
    target().is_ok_and(|file| file.is_file())
}

/// Makes it (half a minute).
pub(super) fn install() -> Result<()> {
    if paths::which("debootstrap").is_none() {
        packages::install(&["debootstrap"])?;
    }
    let target = target()?;
    let (root, partial) = (target.with_extension("root"), target.with_extension("partial"));
    let remove = || run::run(run::as_root("rm")?.arg("-rf").arg(&root));
    fs::create_dir_all(target.parent().context("the cache is a folder")?)?;
    remove()?;
    run::say(format!("installing a small Debian {} for test images", pins::TEST_ROOT_SUITE));
    run::output(
        run::as_root("debootstrap")?
            .args(["--variant=minbase", &format!("--include={PACKAGES}"), pins::TEST_ROOT_SUITE])
            .arg(&root)
            .arg(apt::mirror()?),
    )?;
    // The same bytes each time: an image's layer is known by their hash.
    let mut tar = run::as_root("tar")?;
    tar.args(["--create", "--numeric-owner", "--sort=name", "--mtime=@0"]).arg("--file").arg(&partial);
    tar.args(WITHOUT.map(|path| format!("--exclude={path}"))).arg("--directory").arg(&root).arg(".");
    run::run(&mut tar)?;
    if !run::is_root() {
        let user = run::output(Command::new("id").arg("--user"))?;
        run::run(run::as_root("chown")?.arg(user.trim()).arg(&partial))?;
    }
    fs::rename(&partial, &target)?;
    remove()
}
