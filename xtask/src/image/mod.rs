//! `cargo xtask image`: the container image, made without a container engine.

mod archive;
mod build;
mod engine;
mod oci;
mod sbom;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use fairlead_cluster::LAB_IMAGE;

use crate::{arch::Arch, paths, run, test};

use archive::Tree;
use build::Profile;
use engine::Engine;
use oci::About;

/// The image's name. No registry has it: nodes get it by loading, and a tag other than `latest` keeps kubelet from
/// looking for a newer one.
pub(crate) const NAME: &str = concat!("localhost/fairlead:", env!("CARGO_PKG_VERSION"));

/// The most bytes that the archive may have. Nodes load it before they have a network.
const LIMIT: usize = 40_000_000;

/// The same of the small one.
const SMALL_LIMIT: usize = 18_000_000;

/// Builds the container image, an archive that every engine loads
#[derive(Args, Default)]
pub(crate) struct Image {
    /// Where to write the archive [default: image/fairlead.tar in cargo's target directory]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// For which architecture [default: this machine's]. With several (`--arch amd64,arm64`) the archive has an index of an image of
    /// each, of which engines take their own
    #[arg(long, value_enum, value_delimiter = ',')]
    arch: Vec<Arch>,
    /// Then load it: `cluster` (of `cargo xtask cluster`) or `cluster=NAME`, `kind` or `kind=CLUSTER`, `minikube` or
    /// `minikube=PROFILE`, `docker`, `podman`, `containerd` or `containerd=SOCKET`; may be given again
    #[arg(long, value_name = "WHERE")]
    load_into: Vec<Engine>,
    /// Also write the list of what its programs are made of: CycloneDX, as JSON
    #[arg(long, value_name = "FILE")]
    sbom: Option<PathBuf>,
    /// Build what is released: less than half as large, and slow to build (link-time optimisation of everything)
    #[arg(long)]
    small: bool,
}

impl Image {
    pub(crate) fn run(&self) -> Result<()> {
        let path = self.output.clone().unwrap_or_else(default_path);
        let archs = self.archs()?;
        write(&archs, self.profile(), &path)?;
        if let Some(list) = &self.sbom {
            sbom::write(&build::PROGRAMS.map(|(package, _)| package), &archs, list)?;
        }
        for engine in &self.load_into {
            run::say(format!("loading into {engine}"));
            run::run(&mut engine.load(&path)?)?;
        }
        Ok(())
    }

    const fn profile(&self) -> Profile {
        if self.small { Profile::Small } else { Profile::Release }
    }

    /// Each that is wanted once, in an order that is always the same.
    fn archs(&self) -> Result<Vec<Arch>> {
        let mut archs = if self.arch.is_empty() { vec![Arch::host()?] } else { self.arch.clone() };
        archs.sort_unstable();
        archs.dedup();
        Ok(archs)
    }
}

/// Builds the image of static programs into an archive, for each architecture.
fn write(archs: &[Arch], profile: Profile, path: &Path) -> Result<()> {
    let mut images = Vec::new();
    for arch in archs {
        run::say(format!("building static programs for {}", arch.name()));
        let mut root = Tree::default();
        for (name, data) in build::programs(*arch, profile, &build::PROGRAMS)? {
            println!("{name}: {}", megabytes(data.len()));
            root.file(&format!("usr/bin/{name}"), 0o755, data);
        }
        images.push((*arch, root));
    }
    let size = pack(&images, NAME, "/usr/bin/fairlead", path)?;
    let limit = archs.len() * if profile == Profile::Small { SMALL_LIMIT } else { LIMIT };
    if size > limit {
        bail!("the image has {}, and at most {} are allowed: what made it grow?", megabytes(size), megabytes(limit));
    }
    Ok(())
}

/// Writes an image's archive, and says how many bytes it has.
fn pack(roots: &[(Arch, Tree)], name: &str, entrypoint: &str, path: &Path) -> Result<usize> {
    let archive = oci::archive(roots, &about(name, entrypoint))?;
    let shown = path.display();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    }
    fs::write(path, &archive).with_context(|| format!("can't write {shown}"))?;
    println!("{name}: {}, in {shown}", megabytes(archive.len()));
    Ok(archive.len())
}

/// Makes the image that pods of tests on a cluster run, and says where its archive is. Of the program that tests run on this
/// machine, with the libraries that it takes from there: a static one would be a second build of everything it is made of.
pub(crate) fn build_lab() -> Result<PathBuf> {
    const PROGRAM: &str = "fairlead-lab";
    test::build_binaries()?;
    let program = test::binaries().join(PROGRAM);
    let path = paths::target().join("image/fairlead-lab.tar");
    let mut root = Tree::default();
    root.file(&format!("usr/bin/{PROGRAM}"), 0o755, build::read(&program)?);
    for library in build::libraries(&program)? {
        let data = fs::read(&library).with_context(|| format!("can't read {library}"))?;
        root.file(library.trim_start_matches('/'), 0o755, data);
    }
    pack(&[(Arch::host()?, root)], LAB_IMAGE, "/usr/bin/fairlead-lab", &path)?;
    Ok(path)
}

/// Builds a program of a package that has its name, for this machine's architecture, static.
pub(crate) fn build_static(name: &'static str) -> Result<Vec<u8>> {
    let programs = build::programs(Arch::host()?, Profile::default(), &[(name, name)])?;
    programs.into_iter().next().map(|(_, data)| data).context("a program was asked for")
}

/// Builds the archive where it is looked for by default.
pub(crate) fn build_default() -> Result<PathBuf> {
    Image::default().run()?;
    Ok(default_path())
}

/// Builds the image of several architectures, in an archive beside the default one, and says where the programs of one of them are.
pub(crate) fn build_index(archs: &[Arch], of: Arch) -> Result<Vec<PathBuf>> {
    write(archs, Profile::default(), &paths::target().join("image/fairlead-index.tar"))?;
    Ok(build::PROGRAMS.map(|(_, program)| build::place(of, Profile::default()).join(program)).into())
}

fn default_path() -> PathBuf {
    paths::target().join("image/fairlead.tar")
}

fn about<'a>(name: &'a str, entrypoint: &'a str) -> About<'a> {
    About {
        name,
        entrypoint,
        labels: &[
            ("title", "Fairlead"),
            ("description", "The network of a Kubernetes node: agent, CNI plugin, DNS server"),
            ("version", env!("CARGO_PKG_VERSION")),
            ("licenses", env!("CARGO_PKG_LICENSE")),
            ("source", env!("CARGO_PKG_REPOSITORY")),
        ],
    }
}

fn megabytes(bytes: usize) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        assert_eq!(megabytes(LIMIT), "40.0 MB");
        assert_eq!(megabytes(1_990_000), "1.9 MB");
    }

    #[test]
    fn an_architecture_is_there_once_and_in_order() {
        let image = |arch: &[Arch]| Image { arch: arch.to_vec(), ..Image::default() };
        assert_eq!(image(&[Arch::Arm64, Arch::Amd64, Arch::Arm64]).archs().unwrap(), [Arch::Amd64, Arch::Arm64]);
        assert_eq!(image(&[]).archs().unwrap(), [Arch::host().unwrap()]);
    }

    #[test]
    fn the_name_has_the_version_of_the_workspace() {
        assert!(NAME.ends_with(concat!(":", env!("CARGO_PKG_VERSION"))));
    }
}
