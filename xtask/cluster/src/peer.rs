//! The network that Fairlead is compared with: kube-proxy (nftables), the reference bridge plugin and CoreDNS. kube-proxy runs
//! as a service of the node, the way packages of distributions have it; CoreDNS in pods.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::addresses::{CLUSTER_DNS, POD_CIDRS};
use crate::archive::{self, Image};
use crate::cluster::{Cluster, wait};
use crate::node_config::OWN;
use crate::parts::KUBE_PROXY;
use crate::service::Service;
use crate::start::Host;
use crate::system::{ip, which};

const CONFLIST: &str = "10-bridge.conflist";
const PLUGINS: [&str; 2] = ["bridge", "host-local"];
/// As it is written down with a cluster.
pub(crate) const NETWORK: &str = "kube-proxy";
const SERVICE: &str = "kube-proxy";
const BRIDGE: &str = "cni0";
const COREDNS: &str = include_str!("coredns.yaml");
const COREDNS_IMAGE: &str = "localhost/fairlead-cluster-coredns:1";

impl Host {
    /// Brings kube-proxy and a network for pods to every node, and CoreDNS to the cluster.
    pub fn install_kube_proxy(&self, cluster: &Cluster) -> Result<()> {
        which("nft")?;
        self.builder_of(cluster).build(KUBE_PROXY)?;
        self.provide(cluster, KUBE_PROXY)?;
        let nodes: Vec<(u8, String)> = cluster.spec().node_names().collect();
        for (_, node) in &nodes {
            cluster.connect_pods(node)?;
            cluster.run_kube_proxy(node)?;
        }
        cluster.set_network(NETWORK)?;
        self.install_coredns(cluster)
    }

    /// Brings CoreDNS to the cluster, as kubeadm, kind and minikube do.
    pub fn install_coredns(&self, cluster: &Cluster) -> Result<()> {
        let coredns: Vec<_> = KUBE_PROXY.iter().copied().filter(|part| part.name == "coredns").collect();
        self.builder.build(&coredns)?;
        let program = self.builder.path(coredns.first().context("CoreDNS is a part")?)?;
        let target = program.with_extension("tar");
        if !target.is_file() {
            let layer = program.with_extension("layer.tar");
            archive::layer(&layer, &[("/coredns", &program)])?;
            let image = Image {
                tags: vec![COREDNS_IMAGE.to_owned()],
                layers: vec![layer],
                entrypoint: vec!["/coredns".to_owned()],
                command: Vec::new(),
            };
            archive::write(&target, &[image])?;
        }
        cluster.load(&target)?;
        cluster.apply(&COREDNS.replace("CLUSTER_DNS", CLUSTER_DNS).replace("IMAGE", COREDNS_IMAGE))
    }
}

impl Cluster {
    /// Takes kube-proxy, its rules and the bridge away from every node. CoreDNS stays.
    pub fn remove_kube_proxy(&self) -> Result<()> {
        self.set_network("none")?;
        for (_, node) in self.spec().node_names() {
            self.stop_kube_proxy(&node)?;
            let conflist = self.place(&node).path.join("etc/cni/net.d").join(CONFLIST);
            if conflist.exists() {
                fs::remove_file(conflist)?;
            }
            self.nft(&node, "table inet cluster-pods\ndelete table inet cluster-pods\n")?;
            self.disconnect_pods(&node)?;
        }
        Ok(())
    }

    /// Takes kube-proxy and its rules away from a node. The bridge stays.
    pub fn stop_kube_proxy(&self, node: &str) -> Result<()> {
        self.remove_service(node, SERVICE)?;
        wait(
            Duration::from_secs(10),
            || format!("kube-proxy of {node} does not end"),
            || Ok((!self.in_node(node)?.args(["pgrep", "-x", SERVICE]).output()?.status.success()).then_some(())),
        )?;
        let cleanup = format!("{}/kube-proxy", crate::node_config::PROGRAMS);
        self.in_node(node)?.args([&cleanup, "--cleanup"]).stderr(Stdio::null()).status()?;
        Ok(())
    }

    /// The bridge goes with the addresses that it had, and so do the routes to the pods of other nodes.
    fn disconnect_pods(&self, node: &str) -> Result<()> {
        let pid = self.place(node).alive()?.pid;
        // There is one once a pod has been there.
        let _ = ip(Some(pid), &format!("link del {BRIDGE}"));
        let mut routes = String::new();
        for (_, other) in self.spec().node_names().filter(|(_, other)| other != node) {
            for cidr in self.pod_cidrs(&other)? {
                writeln!(routes, "route del {cidr}")?;
            }
        }
        ip(Some(pid), &routes)
    }

    /// The bridge plugin, routes to the pods of other nodes, and a node's address for what leaves the cluster.
    pub(crate) fn connect_pods(&self, node: &str) -> Result<()> {
        let place = self.place(node);
        let pid = place.alive()?.pid;
        for plugin in PLUGINS {
            fs::copy(self.program(plugin), place.path.join("opt/cni/bin").join(plugin))?;
        }
        let mut routes = String::new();
        for (_, other) in self.spec().node_names().filter(|(_, other)| other != node) {
            let (v4, v6) = self.node_addresses(&other)?;
            for cidr in self.pod_cidrs(&other)? {
                let via = if cidr.contains(':') { v6.to_string() } else { v4.to_string() };
                writeln!(routes, "route replace {cidr} via {via}")?;
            }
        }
        ip(Some(pid), &routes)?;
        let status = Command::new("nsenter")
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .args(["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding"])
            .status()?;
        ensure!(status.success(), "{node} can't be made to forward");
        self.nft(node, &masquerade())?;
        let directory = place.path.join("etc/cni/net.d");
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(CONFLIST), conflist(&self.pod_cidrs(node)?))?;
        Ok(())
    }

    fn nft(&self, node: &str, rules: &str) -> Result<()> {
        let pid = self.place(node).alive()?.pid;
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .args(["nft", "-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("it is piped")?.write_all(rules.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "nft on {node}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn run_kube_proxy(&self, node: &str) -> Result<()> {
        let directory = &self.place(node).path;
        fs::copy(self.home.path.join("kube-proxy.conf"), directory.join("kube-proxy.conf"))?;
        fs::write(directory.join("kube-proxy.yaml"), kube_proxy())?;
        let program = format!("{}/kube-proxy", crate::node_config::PROGRAMS);
        let mut service = Service::new(
            SERVICE,
            [program, format!("--config={OWN}/kube-proxy.yaml"), format!("--hostname-override={node}")],
        );
        service.env.insert("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
        self.run_service(node, &service)
    }
}

fn kube_proxy() -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: {}
clientConnection: {{kubeconfig: {OWN}/kube-proxy.conf}}
# The size of the table is the machine's.
conntrack: {{maxPerCore: 0}}
",
        POD_CIDRS.join(",")
    )
}

fn masquerade() -> String {
    let [v4, v6] = POD_CIDRS;
    format!(
        "table inet cluster-pods
delete table inet cluster-pods
table inet cluster-pods {{
    chain postrouting {{
        type nat hook postrouting priority srcnat
        ip saddr {v4} ip daddr != {v4} oifname eth0 masquerade
        ip6 saddr {v6} ip6 daddr != {v6} oifname eth0 masquerade
    }}
}}
"
    )
}

fn conflist(pod_cidrs: &[String]) -> String {
    let ranges: Vec<_> = pod_cidrs.iter().map(|cidr| json!([{"subnet": cidr}])).collect();
    json!({
        "cniVersion": "1.0.0",
        "name": "bridge",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-ipam",
                    "ranges": ranges,
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}, "backend": "nftables"},
        ],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_plugin_has_a_range_for_each_family() {
        let text = conflist(&["10.244.0.0/24".to_owned(), "fd00:10:244::/64".to_owned()]);
        assert!(text.contains(r#""ranges":[[{"subnet":"10.244.0.0/24"}],[{"subnet":"fd00:10:244::/64"}]]"#), "{text}");
    }
}
