//! `cargo xtask book`: the book as pages for a browser, and whether each of their links leads somewhere.
//!
//! Its sources read as they are, too, and link to files of the work tree. In the pages those are links to the repository, and
//! tables of other pages are taken in here and not by mdBook, so that their links are theirs.

mod check;
mod source;

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{paths, pins, run, setup::Part};

/// Builds the book in manifests/book and checks the links of its pages
#[derive(Args)]
pub(crate) struct Book {}

impl Book {
    #[expect(clippy::unused_self, reason = "every command runs in the same way")]
    pub(crate) fn run(&self) -> Result<()> {
        let broken = build()?;
        ensure!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
        Ok(())
    }
}

/// Builds it, and gives the links that lead nowhere.
pub(crate) fn build() -> Result<Vec<String>> {
    Part::Mdbook.require()?;
    let book = paths::workspace().join("manifests/book");
    let prepared = paths::target().join("book");
    if prepared.exists() {
        fs::remove_dir_all(&prepared)?;
    }
    fs::create_dir_all(&prepared)?;
    fs::copy(book.join("book.toml"), prepared.join("book.toml"))?;
    for page in files(&book.join("src"))? {
        let within = page.strip_prefix(&book)?;
        let target = prepared.join(within);
        fs::create_dir_all(target.parent().context("it is in a folder")?)?;
        fs::write(&target, source::page(paths::workspace(), page.strip_prefix(paths::workspace())?)?)?;
    }
    let pages = book.join("book");
    run::run(Command::new(program()?).arg("build").arg(&prepared).arg("--dest-dir").arg(&pages))?;
    let mut html = Vec::new();
    // One has every page once more, and one is served from anywhere.
    for file in files(&pages)?.into_iter().filter(|file| file.extension().is_some_and(|ext| ext == "html")) {
        let name = file.strip_prefix(&pages)?.to_owned();
        if !["print.html", "404.html", "toc.html"].iter().any(|other| name == Path::new(other)) {
            html.push((name, fs::read_to_string(&file)?));
        }
    }
    Ok(check::broken(&html, |name| pages.join(name).exists()))
}

/// Every file below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Where mdBook is in the cache. The folder names the version.
pub(crate) fn root() -> Result<PathBuf> {
    Ok(paths::cache()?.join(format!("mdbook-{}", pins::MDBOOK)))
}

/// The program.
pub(crate) fn program() -> Result<PathBuf> {
    Ok(root()?.join("bin/mdbook"))
}

/// A path beside a file, without `..`.
fn resolved(beside: &Path, path: &str) -> PathBuf {
    let mut found = beside.parent().unwrap_or(beside).to_owned();
    for component in Path::new(path).components() {
        match component {
            Component::ParentDir => drop(found.pop()),
            Component::Normal(name) => found.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    found
}
