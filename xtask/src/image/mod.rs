//! `cargo xtask image`: the container image, made without a container engine.

mod archive;
mod build;
mod engine;
mod oci;
mod sbom;

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use fairlead_cluster::LAB_IMAGE;

use crate::{paths, run, test};

use archive::Tree;
use engine::Engine;
use oci::About;

/// The image's name. No registry has it: nodes get it by loading, and a tag other than `latest` keeps kubelet from
/// looking for a newer one.
pub(crate) const NAME: &str = concat!("localhost/fairlead:", env!("CARGO_PKG_VERSION"));

/// The most bytes that the archive may have. Nodes load it before they have a network.
const LIMIT: usize = 40_000_000;

/// Builds the container image, an archive that every engine loads
#[derive(Args)]
pub(crate) struct Image {
    /// Where to write the archive [default: image/fairlead.tar in cargo's target directory]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Then load it: `cluster` (of `cargo xtask cluster`) or `cluster=NAME`, `kind` or `kind=CLUSTER`, `minikube` or
    /// `minikube=PROFILE`, `docker`, `podman`, `containerd` or `containerd=SOCKET`; may be given again
    #[arg(long, value_name = "WHERE")]
    load_into: Vec<Engine>,
    /// Also write the list of what its programs are made of: CycloneDX, as JSON
    #[arg(long, value_name = "FILE")]
    sbom: Option<PathBuf>,
}

impl Image {
    pub(crate) fn run(&self) -> Result<()> {
        let path = self.output.clone().unwrap_or_else(default_path);
        write(NAME, "/usr/bin/fairlead", &build::PROGRAMS, &path)?;
        if let Some(list) = &self.sbom {
            sbom::write(&build::PROGRAMS.map(|(package, _)| package), list)?;
        }
        for engine in &self.load_into {
            run::say(format!("loading into {engine}"));
            run::run(&mut engine.load(&path)?)?;
        }
        Ok(())
    }
}

/// Builds an image of static programs into an archive.
fn write(name: &str, entrypoint: &str, programs: &[build::Program], path: &Path) -> Result<()> {
    run::say("building static programs");
    let mut root = Tree::default();
    for (name, data) in build::programs(programs)? {
        println!("{name}: {}", megabytes(data.len()));
        root.file(&format!("usr/bin/{name}"), 0o755, data);
    }
    let size = pack(&root, name, entrypoint, path)?;
    if size > LIMIT {
        bail!("the image has {}, and at most {} are allowed: what made it grow?", megabytes(size), megabytes(LIMIT));
    }
    Ok(())
}

/// Writes an image's archive, and says how many bytes it has.
fn pack(root: &Tree, name: &str, entrypoint: &str, path: &Path) -> Result<usize> {
    let archive = oci::image(root, &about(name, entrypoint)?)?;
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
    pack(&root, LAB_IMAGE, "/usr/bin/fairlead-lab", &path)?;
    Ok(path)
}

/// Builds the archive where it is looked for by default.
pub(crate) fn build_default() -> Result<PathBuf> {
    Image { output: None, load_into: Vec::new(), sbom: None }.run()?;
    Ok(default_path())
}

fn default_path() -> PathBuf {
    paths::target().join("image/fairlead.tar")
}

fn about<'a>(name: &'a str, entrypoint: &'a str) -> Result<About<'a>> {
    Ok(About {
        name,
        architecture: architecture(ARCH)?,
        entrypoint,
        labels: &[
            ("title", "Fairlead"),
            ("description", "The network of a Kubernetes node: agent, CNI plugin, DNS server"),
            ("version", env!("CARGO_PKG_VERSION")),
            ("licenses", env!("CARGO_PKG_LICENSE")),
            ("source", env!("CARGO_PKG_REPOSITORY")),
        ],
    })
}

/// What Go, and so the image format, calls a machine of Rust.
fn architecture(rust: &str) -> Result<&'static str> {
    match rust {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no image is made for {other}: only for x86_64 and aarch64"),
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
    fn machines_have_the_names_of_the_image_format() {
        assert_eq!(architecture("x86_64").unwrap(), "amd64");
        assert_eq!(architecture("aarch64").unwrap(), "arm64");
        assert!(architecture("riscv64").is_err());
    }

    #[test]
    fn the_name_has_the_version_of_the_workspace() {
        assert!(NAME.ends_with(concat!(":", env!("CARGO_PKG_VERSION"))));
    }
}
