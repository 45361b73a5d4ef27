//! `cargo xtask cluster`: a real Kubernetes cluster on this machine, for people. The package fairlead-cluster makes it.

mod kind;
mod look;
mod up;

use std::{env, ffi::OsString, os::unix::process::CommandExt as _, path::PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use fairlead_cluster::{Builder, Helper, Host, inner};

pub(crate) use self::up::{Network, archive, install};
use crate::{paths, run};

/// A real Kubernetes cluster on this machine: etcd, API server, and nodes with kubelet and containerd as namespaces
#[derive(Args)]
pub(crate) struct Cluster {
    /// Which cluster: several may be up at once
    #[arg(long, global = true, default_value = "dev")]
    name: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Up(up::Up),
    /// Stops the cluster and removes everything of it; no cluster is no error
    Down,
    /// Runs kubectl as the cluster's administrator
    Kubectl {
        /// The arguments of kubectl
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Loads the images of an archive into every node
    Load {
        /// An OCI or docker archive
        #[arg(required_unless_present = "agnhost")]
        archive: Option<PathBuf>,
        /// Upstream's test program with shell, curl, dig, nc and tcpdump, as localhost/fairlead-cluster-agnhost:1
        #[arg(long)]
        agnhost: bool,
    },
    /// Runs a command, or a shell, as a process of a node (or in the fabric's network: `fabric`)
    Enter {
        /// The node: node-1, …
        place: String,
        /// The command and its arguments
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Shows what runs and where the logs are
    Status,
    /// Reboots a node: /etc and /var stay, /run and what is in the kernel do not
    RestartNode {
        /// The node: node-1, …
        node: String,
    },
    Logs(look::Logs),
    /// What the cluster's own processes call
    #[command(hide = true)]
    Inner {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

impl Cluster {
    pub(crate) fn run(&self) -> Result<()> {
        if let Verb::Inner { words } = &self.verb {
            return inner(&helper(), words);
        }
        if let Verb::Up(up) = &self.verb {
            // Before this becomes root, so that what Go keeps belongs to whoever builds next.
            up.prepare()?;
        }
        become_root()?;
        let host = host()?;
        match &self.verb {
            Verb::Up(up) => up.run(&host, &self.name),
            Verb::Down => {
                host.down(&self.name)?;
                run::say(format!("cluster {} is down", self.name));
                Ok(())
            }
            Verb::Kubectl { arguments } => {
                let mut command = host.open(&self.name)?.kubectl_command()?;
                Err(command.args(arguments).exec()).context("can't start kubectl")
            }
            Verb::Load { archive, agnhost } => {
                let cluster = host.open(&self.name)?;
                if *agnhost {
                    host.load_agnhost(&cluster)?;
                }
                archive.as_ref().map_or(Ok(()), |archive| cluster.load(archive))
            }
            Verb::Enter { place, command } => look::enter(&host.open(&self.name)?, place, command),
            Verb::Status => {
                println!("{}", host.open(&self.name)?.status().join("\n"));
                Ok(())
            }
            Verb::RestartNode { node } => host.open(&self.name)?.restart_node(node),
            Verb::Logs(logs) => logs.run(&host.open(&self.name)?),
            Verb::Inner { .. } => Ok(()),
        }
    }
}

/// What this machine has for clusters.
pub(crate) fn host() -> Result<Host> {
    Ok(Host { builder: builder()?, clusters: paths::cache()?.join("clusters"), helper: helper() })
}

/// The Go programs, pinned in the work tree and kept outside of it.
pub(crate) fn builder() -> Result<Builder> {
    Builder::new(paths::workspace().join("tests/cluster"))
}

/// This program, as every process of it may start it again. Its file may be another one by now, or gone: a build of the
/// whole workspace makes it anew.
const OWN_PROGRAM: &str = "/proc/self/exe";

fn helper() -> Helper {
    Helper(vec![OWN_PROGRAM.into(), "cluster".into(), "inner".into()])
}

/// Starts again as root when this is somebody else: namespaces, mounts and cgroups are root's.
pub(crate) fn become_root() -> Result<()> {
    if run::is_root() {
        return Ok(());
    }
    let program = env::current_exe()?;
    let mut command = run::as_root(&program.display().to_string())?;
    Err(command.args(env::args_os().skip(1)).exec()).context("can't become root")
}
