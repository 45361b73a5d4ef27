//! Debian's archive, without touching the machine's own package lists: packages of a suite that the machine does not
//! use are downloaded and unpacked, not installed.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{arch::Arch, paths, run};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Package lists of one suite, for one architecture, kept in the cache.
pub(crate) struct Archive {
    dir: PathBuf,
    arch: Arch,
}

impl Archive {
    /// Fetches the lists of a suite from the mirror that this machine uses for its own.
    pub(crate) fn open(suite: &str, arch: Arch) -> Result<Self> {
        if paths::which("apt-get").is_none() || paths::which("dpkg-deb").is_none() {
            bail!("this machine has no apt: on Debian it would come from the suite {suite}");
        }
        let targets = targets()?;
        let place = if arch.is_host() { suite.to_owned() } else { format!("{suite}-{}", arch.name()) };
        let archive = Self { dir: paths::cache()?.join("apt").join(place), arch };
        for dir in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(archive.dir.join(dir))?;
        }
        fs::write(archive.dir.join("sources.list"), sources(&targets, suite)?)?;
        run::say(format!("fetching the package lists of Debian {suite} for {}", arch.name()));
        run::run(archive.command("apt-get").args(["-qq", "update"]))?;
        Ok(archive)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let (dir, arch) = (self.dir.display(), self.arch.name());
        for option in [
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={dir}/lists"),
            format!("Dir::Cache={dir}/cache"),
            format!("APT::Architecture={arch}"),
            format!("APT::Architectures={arch}"),
            "Acquire::Languages=none".to_owned(),
            "APT::Sandbox::User=".to_owned(),
            "APT::Update::Error-Mode=any".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }

    /// The newest package whose name begins and ends like this, with a version between.
    pub(crate) fn newest(&self, begin: &str, end: &str) -> Result<String> {
        let names = run::output(self.command("apt-cache").args(["pkgnames", begin]))?;
        newest(&names, end).with_context(|| format!("the archive has no package {begin}…{end}"))
    }

    /// Downloads a package (a name, or `name=version`) and unpacks it into a folder.
    pub(crate) fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        let packages = self.dir.join("packages");
        if packages.exists() {
            fs::remove_dir_all(&packages)?;
        }
        fs::create_dir_all(&packages)?;
        run::say(format!("downloading {package}"));
        run::run(self.command("apt-get").args(["-qq", "download", package]).current_dir(&packages))?;
        for entry in fs::read_dir(&packages)? {
            run::run(Command::new("dpkg-deb").arg("-x").arg(entry?.path()).arg(into))?;
        }
        fs::remove_dir_all(&packages)?;
        Ok(())
    }
}

/// What the machine's own sources name, as lines of `URI RELEASE`.
fn targets() -> Result<String> {
    run::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE)",
        "Created-By: Packages",
    ]))
}

/// The mirror of Debian that this machine uses.
pub(super) fn mirror() -> Result<String> {
    main_mirror(&targets()?)
}

fn main_mirror(targets: &str) -> Result<String> {
    let mut own = targets.lines().filter_map(|line| line.split_once(' '));
    let main = own.find(|(uri, release)| uri.contains("/debian/") && !release.contains('-'));
    Ok(main.context("this machine's apt sources name no mirror of Debian")?.0.to_owned())
}

/// A sources.list for a suite and its security updates, from the machine's own sources (lines of `URI RELEASE`).
fn sources(targets: &str, suite: &str) -> Result<String> {
    let own: Vec<(&str, &str)> = targets.lines().filter_map(|line| line.split_once(' ')).collect();
    let main = main_mirror(targets)?;
    let mut text = format!("deb [target=Packages signed-by={KEYRING}] {main} {suite} main\n");
    let security = own.iter().find(|(_, release)| release.ends_with("-security"));
    if let (Some((uri, _)), false) = (security, suite.contains('-')) {
        text.push_str(&format!("deb [target=Packages signed-by={KEYRING}] {uri} {suite}-security main\n"));
    }
    Ok(text)
}

fn newest(names: &str, end: &str) -> Option<String> {
    names.lines().filter(|name| name.ends_with(end)).max_by(|a, b| natural(a, b)).map(str::to_owned)
}

/// Compares names by their numbers: 6.1.0-9 is before 6.1.0-50.
fn natural(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "http://mirror.example/debian/ bookworm\nhttp://mirror.example/debian/ bookworm-updates\n\
                           http://mirror.example/debian-security/ bookworm-security\nhttps://vendor.example/apt/ stable\n";

    #[test]
    fn the_mirror_is_the_machines_own() {
        let text = sources(TARGETS, "trixie-backports").unwrap();
        assert_eq!(
            text,
            format!("deb [target=Packages signed-by={KEYRING}] http://mirror.example/debian/ trixie-backports main\n")
        );
    }

    #[test]
    fn a_release_comes_with_its_security_updates() {
        let text = sources(TARGETS, "bookworm").unwrap();
        assert!(text.contains("http://mirror.example/debian-security/ bookworm-security main"), "{text}");
    }

    #[test]
    fn a_machine_without_debian_sources_is_an_error() {
        assert!(sources("https://vendor.example/apt/ stable\n", "bookworm").is_err());
    }

    #[test]
    fn the_newest_is_by_number() {
        let names = "linux-image-6.1.0-9-cloud\nlinux-image-6.1.0-50-cloud\nlinux-image-6.1.0-60-rt\n";
        assert_eq!(newest(names, "-cloud").as_deref(), Some("linux-image-6.1.0-50-cloud"));
        assert_eq!(newest(names, "-none"), None);
    }
}
