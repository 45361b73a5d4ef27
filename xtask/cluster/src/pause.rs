//! The image of the container that holds a pod's namespaces: a program that waits. In C, since the signals that it answers
//! take unsafe code or a dependency in Rust; whoever links Rust has a C compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::archive::{self, Image};
use crate::node_config::PAUSE_IMAGE;
use crate::say::say;

const SOURCE: &str = include_str!("pause.c");

/// The program, made when it is missing.
pub(crate) fn program(cache: &Path) -> Result<PathBuf> {
    let program = cache.join("pause");
    if program.is_file() {
        return Ok(program);
    }
    say("building the image that holds pods' namespaces");
    fs::create_dir_all(cache)?;
    let (source, partial) = (cache.join("pause.c"), cache.join("pause.partial"));
    fs::write(&source, SOURCE)?;
    let status = Command::new("cc")
        .args(["-Os", "-static", "-s", "-o"])
        .arg(&partial)
        .arg(&source)
        .status()
        .context("can't start `cc`, with which Rust links too: install a C compiler")?;
    ensure!(status.success(), "`cc` could not build {}: is the static C library installed?", source.display());
    fs::rename(&partial, &program)?;
    Ok(program)
}

/// The archive, made when it is missing.
pub(crate) fn image(cache: &Path) -> Result<PathBuf> {
    let target = cache.join("pause.tar");
    if !target.is_file() {
        let layer = cache.join("pause-layer.tar");
        archive::layer(&layer, &[("/pause", &program(cache)?)])?;
        archive::write(
            &target,
            &[Image {
                tags: vec![PAUSE_IMAGE.to_owned()],
                layers: vec![layer],
                entrypoint: vec!["/pause".to_owned()],
                command: Vec::new(),
            }],
        )?;
    }
    Ok(target)
}
