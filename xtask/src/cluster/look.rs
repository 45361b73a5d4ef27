//! Looking into a cluster: a shell in a place, and what its programs say.

use std::{ffi::OsString, fs, os::unix::process::CommandExt as _, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use clap::Args;
use fairlead_cluster::{Cluster, FABRIC};

use crate::run;

/// A shell, or a command, in a place of the cluster.
pub(super) fn enter(cluster: &Cluster, place: &str, command: &[OsString]) -> Result<()> {
    if place != FABRIC {
        return Err(cluster.in_node(place)?.args(command).exec()).context("can't enter the node");
    }
    let shell = [OsString::from("/bin/sh")];
    let words = if command.is_empty() { &shell } else { command };
    let (program, arguments) = words.split_first().context("a command is a program")?;
    Err(cluster.in_fabric(program)?.args(arguments).exec()).context("can't enter the fabric")
}

/// Shows the end of what the cluster's programs say
#[derive(Args)]
pub(crate) struct Logs {
    /// The place: fabric, node-1, … [default: all]
    place: Option<String>,
    /// The program: kubelet, containerd, kube-apiserver, … [default: all]
    program: Option<String>,
    /// How many lines
    #[arg(long, default_value_t = 20)]
    lines: usize,
    /// Go on with what is said from now on
    #[arg(long, short)]
    follow: bool,
}

impl Logs {
    pub(super) fn run(&self, cluster: &Cluster) -> Result<()> {
        let places = match &self.place {
            Some(place) => vec![place.clone()],
            None => {
                let nodes = cluster.spec().node_names().map(|(_, name)| name);
                [FABRIC.to_owned()].into_iter().chain(nodes).collect()
            }
        };
        let mut files: Vec<PathBuf> = Vec::new();
        for place in places {
            let directory = cluster.logs(&place);
            let entries = fs::read_dir(&directory).with_context(|| format!("{place} has no logs"))?;
            files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        }
        if let Some(program) = &self.program {
            files.retain(|file| file.file_stem().is_some_and(|stem| stem.to_string_lossy() == *program));
        }
        if files.is_empty() {
            bail!("no program of this name has logged anything; `cargo xtask cluster status` shows where the logs are");
        }
        files.sort();
        let mut tail = Command::new("tail");
        tail.arg(format!("--lines={}", self.lines)).args(self.follow.then_some("--follow")).args(files);
        run::run(&mut tail)
    }
}
