//! A cluster that kubeadm makes: its control plane is in pods of the first node, whose images are made of our own programs, and
//! kubelets get their identities and their configuration from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::addresses::{self, NODE_MASKS, POD_CIDRS, SERVICE_CIDRS, zone};
use crate::archive::{self, Image};
use crate::cluster::Cluster;
use crate::node_config::{self, CONTAINERD_SOCKET, OWN, PROGRAMS};
use crate::parts::KUBEADM;
use crate::place::FABRIC;
use crate::say::Watch;
use crate::service::Service;
use crate::start::{Host, begin_nodes};

/// The node with the control plane.
const FIRST: &str = "node-1";
/// With what nodes join.
const TOKEN: &str = "fairle.0123456789abcdef";
const FORWARDING: [&str; 2] = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];
/// In a node's own directory.
const FILE: &str = "kubeadm.yaml";
/// What a node of this cluster may not have: cgroups of version 2, and a machine without swap.
const NOT_HERE: &str = "SystemVerification,Swap";

impl Host {
    /// `kubeadm init` on the first node, `kubeadm join` on all others.
    pub(crate) fn begin_kubeadm(&self, cluster: &Cluster, pause: &Path, watch: &Watch) -> Result<()> {
        self.builder_of(cluster).build(KUBEADM)?;
        self.provide(cluster, KUBEADM)?;
        cluster.launch(FABRIC)?;
        begin_nodes(cluster, pause)?;
        watch.say("nodes with containerd");
        for (number, node) in cluster.spec().node_names() {
            fs::write(cluster.place(&node).path.join(FILE), configuration(cluster, number, &node)?)?;
            // kubeadm wants to find them so, as every network for pods will set them.
            let status =
                cluster.in_node(&node)?.args(["sysctl", "-qw"]).args(FORWARDING).stdin(Stdio::null()).status()?;
            ensure!(status.success(), "{node} can't be made to forward");
            cluster.run_service(&node, &kubelet())?;
        }
        cluster.load_into(FIRST, &self.control_plane_images(cluster)?)?;
        watch.say("images of the control plane");
        kubeadm(cluster, FIRST, "init")?;
        fs::copy(cluster.place(FIRST).path.join("etc/kubernetes/admin.conf"), cluster.kubeconfig())?;
        watch.say("kubeadm init");
        for (_, node) in cluster.spec().node_names().filter(|(_, node)| node != FIRST) {
            kubeadm(cluster, &node, "join")?;
        }
        watch.say("kubeadm join");
        Ok(())
    }

    /// The images that kubeadm asks for, with our programs in them.
    fn control_plane_images(&self, cluster: &Cluster) -> Result<PathBuf> {
        let builder = self.builder_of(cluster);
        let target = builder.path(KUBEADM.first().context("kubeadm is a part")?)?.with_file_name("control-plane.tar");
        if target.is_file() {
            return Ok(target);
        }
        let list = cluster.in_node(FIRST)?.args(words(&["config", "images", "list"])).stdin(Stdio::null()).output()?;
        ensure!(list.status.success(), "kubeadm lists no images: {}", String::from_utf8_lossy(&list.stderr).trim_end());
        let images = programs(&String::from_utf8_lossy(&list.stdout))
            .into_iter()
            .map(|(tag, name)| {
                let layer = target.with_file_name(format!("{name}.layer.tar"));
                archive::layer(&layer, &[(&format!("/usr/local/bin/{name}"), &cluster.program(&name))])?;
                let entrypoint = vec![format!("/usr/local/bin/{name}")];
                Ok(Image { tags: vec![tag], layers: vec![layer], entrypoint, command: Vec::new() })
            })
            .collect::<Result<Vec<_>>>()?;
        archive::write(&target, &images)?;
        images.iter().flat_map(|image| &image.layers).try_for_each(fs::remove_file)?;
        Ok(target)
    }
}

/// The images of a list that are of the control plane, each with the name of its program.
fn programs(list: &str) -> Vec<(String, String)> {
    let wanted = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"];
    let named = list.lines().map(str::trim).filter_map(|tag| {
        let name = tag.rsplit_once('/')?.1.split_once(':')?.0;
        wanted.contains(&name).then(|| (tag.to_owned(), name.to_owned()))
    });
    named.collect()
}

fn words(words: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = vec!["env".to_owned()];
    all.extend(node_config::environment().iter().map(|(name, value)| format!("{name}={value}")));
    all.push(format!("{PROGRAMS}/kubeadm"));
    all.extend(words.iter().map(|word| (*word).to_owned()));
    all.push(format!("--config={OWN}/{FILE}"));
    all
}

/// Runs kubeadm in a node. What it says is in the node's logs.
fn kubeadm(cluster: &Cluster, node: &str, verb: &str) -> Result<()> {
    let log = cluster.logs(node).join("kubeadm.log");
    let mut command = cluster.in_node(node)?;
    command.args(words(&[verb])).arg(format!("--ignore-preflight-errors={NOT_HERE}"));
    let output = command.stdin(Stdio::null()).output()?;
    fs::write(&log, [&output.stdout[..], &output.stderr].concat())?;
    ensure!(output.status.success(), "`kubeadm {verb}` failed on {node}: see {}", log.display());
    Ok(())
}

/// As kubeadm's packages have systemd run it.
fn kubelet() -> Service {
    let files = "/var/lib/kubelet/config.yaml -a -e /var/lib/kubelet/kubeadm-flags.env";
    let script = format!(
        "until [ -e {files} ]; do sleep 0.1; done; . /var/lib/kubelet/kubeadm-flags.env; \
         exec {PROGRAMS}/kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
         --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS"
    );
    let mut service = Service::new("kubelet", ["/bin/sh", "-c", &script]);
    service.env = node_config::environment();
    service.after = Some(CONTAINERD_SOCKET.into());
    service
}

/// kubeadm's file of a node.
fn configuration(cluster: &Cluster, number: u8, node: &str) -> Result<String> {
    let subnets = cluster.spec().subnets;
    let (v4, v6) = addresses::node(number, subnets);
    let first = addresses::node(1, subnets).0;
    let port = addresses::API_PORT;
    let registration = format!(
        "nodeRegistration:
  name: {node}
  criSocket: unix://{CONTAINERD_SOCKET}
  imagePullPolicy: Never
  kubeletExtraArgs:
  - {{name: node-ip, value: \"{v4},{v6}\"}}
  - {{name: node-labels, value: topology.kubernetes.io/zone={}}}
",
        zone(number)
    );
    if node != FIRST {
        return Ok(format!(
            "apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery:
  bootstrapToken:
    apiServerEndpoint: {first}:{port}
    token: {TOKEN}
    # The fabric is nobody else's.
    unsafeSkipCAVerification: true
{registration}"
        ));
    }
    let [mask4, mask6] = NODE_MASKS;
    Ok(format!(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens: [{{token: {TOKEN}}}]
localAPIEndpoint: {{advertiseAddress: {first}, bindPort: {port}}}
{registration}---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: {version}
networking: {{podSubnet: \"{pods}\", serviceSubnet: \"{services}\"}}
controllerManager:
  extraArgs:
  - {{name: node-cidr-mask-size-ipv4, value: \"{mask4}\"}}
  - {{name: node-cidr-mask-size-ipv6, value: \"{mask6}\"}}
etcd: {{local: {{extraArgs: [{{name: unsafe-no-fsync, value: \"true\"}}]}}}}
# Fairlead is both.
proxy: {{disabled: true}}
dns: {{disabled: true}}
---
{kubelet}",
        version = version(cluster)?,
        pods = POD_CIDRS.join(","),
        services = SERVICE_CIDRS.join(","),
        kubelet = node_config::kubelet(),
    ))
}

/// What kubeadm calls itself, since it would ask the Internet for the newest version.
fn version(cluster: &Cluster) -> Result<String> {
    let output = std::process::Command::new(cluster.program("kubeadm")).args(["version", "--output=short"]).output()?;
    ensure!(output.status.success(), "kubeadm says no version");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_plane_is_found_among_the_images() {
        let list = "r.example/kube-apiserver:v1.37.2\nr.example/kube-proxy:v1.37.2\nr.example/pause:3.10.2\n\
                    r.example/etcd:3.7.0-0\n";
        let found = programs(list);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[1], ("r.example/etcd:3.7.0-0".to_owned(), "etcd".to_owned()));
    }

    #[test]
    fn kubelet_waits_for_both_files_of_kubeadm() {
        let script = kubelet().argv.pop().unwrap();
        assert!(script.contains("config.yaml -a -e /var/lib/kubelet/kubeadm-flags.env ]"), "{script}");
    }
}
