//! `cargo xtask cluster up`.

use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use fairlead_cluster::{CLUSTER, Host, KUBE_PROXY, Spec};

use super::{builder, kind};
use crate::{run, setup::Part};

/// Starts a cluster; it stays up until `down`
#[derive(Args)]
pub(crate) struct Up {
    /// How many nodes
    #[arg(long, default_value_t = 2)]
    nodes: u8,
    /// How many subnets the nodes are in, in turns
    #[arg(long, default_value_t = 1)]
    subnets: u8,
    /// The MTU between nodes
    #[arg(long, default_value_t = 1500)]
    mtu: u32,
    /// Who connects pods and serves services
    #[arg(long, value_enum, default_value = "none")]
    network: Network,
    /// Use docker and kind in place of namespaces
    #[arg(long)]
    kind: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Network {
    /// Nobody: nodes are NotReady until something is installed
    None,
    /// kube-proxy (nftables), the reference bridge plugin and CoreDNS
    KubeProxy,
}

impl Up {
    /// What can be done by anybody.
    pub(super) fn prepare(&self) -> Result<()> {
        if self.kind {
            return Ok(());
        }
        Part::Cluster.require()?;
        builder()?.build(CLUSTER)?;
        if self.network == Network::KubeProxy {
            builder()?.build(KUBE_PROXY)?;
        }
        Ok(())
    }

    pub(super) fn run(&self, host: &Host, name: &str) -> Result<()> {
        if self.kind {
            if self.network == Network::KubeProxy {
                bail!("--kind makes a cluster for Fairlead: without kube-proxy");
            }
            return kind::up(name);
        }
        let begin = Instant::now();
        let spec = Spec { nodes: self.nodes, subnets: self.subnets, mtu: self.mtu, ..Spec::new(name) };
        let cluster = host.up(&spec)?;
        if self.network == Network::KubeProxy {
            host.install_kube_proxy(&cluster)?;
            cluster.wait_until_ready()?;
        }
        run::say(format!("cluster {name} is up after {:.1} s", begin.elapsed().as_secs_f64()));
        println!("{}", cluster.status().join("\n"));
        println!("`cargo xtask cluster kubectl get nodes` looks at it, `cargo xtask cluster down` ends it");
        Ok(())
    }
}
