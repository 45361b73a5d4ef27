//! What a node's programs are told.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::addresses::{CLUSTER_DNS, zone};
use crate::service::Service;

/// Where a node finds the programs of the cluster, and its own directory of it.
pub(crate) const PROGRAMS: &str = "/run/cluster/bin";
pub(crate) const OWN: &str = "/run/cluster/node";

pub(crate) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// Where a node's programs look for others.
pub(crate) const PATH: &str = "/run/cluster/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a node's kubelet looks for static pods.
const STATIC_PODS: &str = "/etc/kubernetes/manifests";

/// The image of the container that holds a pod's namespaces.
pub(crate) const PAUSE_IMAGE: &str = "localhost/fairlead-cluster-pause:1";

/// containerd and kubelet of a node.
pub(crate) fn services(number: u8, name: &str, addresses: (Ipv4Addr, Ipv6Addr)) -> [Service; 2] {
    let mut containerd =
        Service::new("containerd", [format!("{PROGRAMS}/containerd"), format!("--config={OWN}/containerd.toml")]);
    let (v4, v6) = addresses;
    let mut kubelet = Service::new(
        "kubelet",
        [
            format!("{PROGRAMS}/kubelet"),
            format!("--config={OWN}/kubelet.yaml"),
            "--kubeconfig=/etc/kubernetes/kubelet.conf".to_owned(),
            format!("--hostname-override={name}"),
            format!("--node-ip={v4},{v6}"),
            format!("--node-labels=topology.kubernetes.io/zone={}", zone(number)),
        ],
    );
    for service in [&mut containerd, &mut kubelet] {
        service.env = environment();
    }
    // kubelet gives up without it.
    kubelet.after = Some(CONTAINERD_SOCKET.into());
    [containerd, kubelet]
}

/// containerd's file; `runc` is the machine's.
pub(crate) fn containerd(runc: &str) -> String {
    format!(
        "version = 3
root = '/var/lib/containerd'
state = '/run/containerd'

[grpc]
address = '{CONTAINERD_SOCKET}'

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE_IMAGE}'

[plugins.'io.containerd.cri.v1.runtime']
# Without CAP_SYS_RESOURCE, as in a container, no process may be protected from the out-of-memory killer.
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['/opt/cni/bin']
conf_dir = '/etc/cni/net.d'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '{runc}'
SystemdCgroup = false
"
    )
}

/// The machine's own settings (a proxy, say) are not the node's.
pub(crate) fn environment() -> BTreeMap<String, String> {
    let mut environment: BTreeMap<_, _> =
        ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"].map(|name| (name.to_owned(), String::new())).into();
    environment.insert("PATH".to_owned(), PATH.to_owned());
    environment
}

/// kubelet's file.
pub(crate) fn kubelet() -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: /etc/kubernetes/pki/ca.crt}}
authorization: {{mode: Webhook}}
clusterDNS: [{CLUSTER_DNS}]
clusterDomain: cluster.local
staticPodPath: {STATIC_PODS}
containerRuntimeEndpoint: unix://{CONTAINERD_SOCKET}
resolvConf: /etc/resolv.conf
volumePluginDir: /var/lib/kubelet/volume-plugins
# There is no systemd here, and machines with cgroups of version 1 will do.
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: [none]
oomScoreAdj: 0
# A node has a /24 for pods.
maxPods: 250
serializeImagePulls: false
# The disk is the machine's, however full that is.
evictionHard: {{memory.available: \"0%\", nodefs.available: \"0%\", nodefs.inodesFree: \"0%\", imagefs.available: \"0%\"}}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
imageMinimumGCAge: 24h
"
    )
}

/// The names that a node knows without asking.
pub(crate) fn hosts(name: &str, addresses: (Ipv4Addr, Ipv6Addr)) -> String {
    let (v4, v6) = addresses;
    format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{v4} {name}\n{v6} {name}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_both_families_with_ipv4_first_and_a_zone() {
        let [containerd, kubelet] = services(2, "node-2", (Ipv4Addr::new(172, 18, 0, 12), Ipv6Addr::LOCALHOST));
        assert!(kubelet.argv.contains(&"--node-ip=172.18.0.12,::1".to_owned()), "{:?}", kubelet.argv);
        assert!(kubelet.argv.iter().any(|word| word.ends_with("zone=zone-b")), "{:?}", kubelet.argv);
        assert_eq!(kubelet.after.as_deref().unwrap().to_str(), Some(CONTAINERD_SOCKET));
        assert_eq!(containerd.after, None);
    }
}
