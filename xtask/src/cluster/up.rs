//! `cargo xtask cluster up`.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use fairlead_cluster::{CLUSTER, Cluster, Host, KUBE_PROXY, KUBEADM, Spec};

use super::{builder, kind};
use crate::{image, paths, run, setup::Part};

/// Starts a cluster; it stays up until `down`
#[derive(Args)]
pub(crate) struct Up {
    /// How many nodes
    #[arg(long, default_value_t = 2)]
    nodes: u8,
    /// How many subnets the nodes are spread over
    #[arg(long, default_value_t = 1)]
    subnets: u8,
    /// The MTU between nodes
    #[arg(long, default_value_t = 1500)]
    mtu: u32,
    /// What connects pods and serves Services
    #[arg(long, value_enum, default_value = "none")]
    network: Network,
    /// An existing image of Fairlead, instead of building one
    #[arg(long, value_name = "ARCHIVE")]
    image: Option<PathBuf>,
    /// Another Kubernetes than the one that everything runs on, by its minor version: a folder of tests/cluster/versions
    #[arg(long, value_name = "MINOR", conflicts_with = "kind")]
    kubernetes: Option<String>,
    /// Have kubeadm make the control plane, in pods of node-1
    #[arg(long, conflicts_with_all = ["kind", "kubernetes"])]
    kubeadm: bool,
    /// Use docker and kind instead of namespaces
    #[arg(long)]
    kind: bool,
}

/// Who connects pods and serves services.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// Nobody: nodes are NotReady until something is installed
    None,
    /// Fairlead, from manifests/ and this work tree
    Fairlead,
    /// kube-proxy (nftables), the reference bridge plugin and CoreDNS
    KubeProxy,
}

impl Network {
    /// As it is written down with the cluster.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Fairlead => "fairlead",
            Self::KubeProxy => "kube-proxy",
        }
    }
}

impl Up {
    /// What can be done by anybody.
    pub(super) fn prepare(&self) -> Result<()> {
        if self.kind {
            return Ok(());
        }
        Part::Cluster.require()?;
        let builder = builder()?.of(self.kubernetes.as_deref());
        builder.build(CLUSTER)?;
        if self.kubeadm {
            builder.build(KUBEADM)?;
        }
        if self.network == Network::KubeProxy {
            builder.build(KUBE_PROXY)?;
        }
        Ok(())
    }

    pub(super) fn run(&self, host: &Host, name: &str) -> Result<()> {
        if self.kind {
            if self.network != Network::None {
                bail!(
                    "--kind creates a cluster without a network; manifests/README.md says how to install Fairlead on it"
                );
            }
            return kind::up(name);
        }
        let begin = Instant::now();
        let archive = archive(self.network, self.image.as_deref())?;
        let spec = Spec {
            nodes: self.nodes,
            subnets: self.subnets,
            mtu: self.mtu,
            kubernetes: self.kubernetes.clone(),
            kubeadm: self.kubeadm,
            ..Spec::new(name)
        };
        let cluster = host.up(&spec)?;
        install(host, &cluster, self.network, archive.as_deref())?;
        run::say(format!("cluster {name} is up after {:.1} s", begin.elapsed().as_secs_f64()));
        println!("{}", cluster.status().join("\n"));
        println!("inspect it with `cargo xtask cluster kubectl get nodes`, remove it with `cargo xtask cluster down`");
        Ok(())
    }
}

/// The image that a network needs: the one that is there, or one that is built now.
pub(crate) fn archive(network: Network, there: Option<&Path>) -> Result<Option<PathBuf>> {
    match (network, there) {
        (Network::Fairlead, None) => image::build_default().map(Some),
        (_, there) => Ok(there.map(Path::to_owned)),
    }
}

/// Gives a cluster its network, and waits until it is ready.
pub(crate) fn install(host: &Host, cluster: &Cluster, network: Network, archive: Option<&Path>) -> Result<()> {
    cluster.set_network(network.word())?;
    match (network, archive) {
        (Network::KubeProxy, _) => host.install_kube_proxy(cluster)?,
        (Network::Fairlead, Some(archive)) => {
            cluster.load(archive)?;
            // As a user would on a cluster that has no DNS yet.
            let overlay = paths::workspace().join("manifests/overlays/standalone");
            cluster.kubectl(&["apply", "--kustomize", &overlay.display().to_string()])?;
        }
        (Network::None | Network::Fairlead, _) => return Ok(()),
    }
    cluster.wait_until_ready()
}
