//! The agent's settings: each is a flag of `fairlead agent` and a key of the file that `--config` names, which the
//! ConfigMap `fairlead` brings to every node. The comments here are the help of the flags, and those of the ConfigMap
//! in `manifests/` say the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fairlead_datapath::config::Config;
use fairlead_objects::ObjectKey;
use fairlead_objects::kubernetes::ServerUrl;
use ipnetwork::IpNetwork;

use crate::conntrack;
use crate::install::chain::ChainedPlugin;
use crate::install::conflist::{CONF_DIR, CONF_NAME};
use crate::log;
use crate::masquerade::{self, Mode, PortRange};
use crate::model::NodeLocalDns;
use crate::network::{Tunnel, TunnelFrom, VXLAN_PORT};
use crate::parts::Parts;
use crate::wiring::{NamePattern, PROC_SYS};
use crate::xdp::Xdp;
use crate::zone::InKernel;

/// How long the API server may be silent: longer than a control plane takes to restart or to be upgraded, so that not all
/// agents turn unready for that, and twice what DNS servers wait.
const API_SERVER_PATIENCE: u64 = 600;

/// Keys of the file that have keys below them: `--healthz-bind` is `bind` below `healthz`.
pub const GROUPS: [&str; 7] = ["cni", "conntrack", "dns", "healthz", "masquerade", "metadata", "metrics"];

/// Where clouds have their metadata services: the first is nearly everybody's, the second Amazon's for IPv6. Others' are in a
/// table in `manifests/README.md`.
const METADATA: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254))];

/// Whether pods may reach metadata services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum MetadataAccess {
    /// Yes, if their policies allow it
    #[default]
    Open,
    /// No: refused at once
    Closed,
}

fn metadata_address(text: &str) -> Result<IpAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err(format!("{text} is not the address of a server")),
        Ok(ip) => Ok(ip.to_canonical()),
        Err(_) => Err(format!("{text:?} is not an IP address such as 169.254.169.254")),
    }
}

/// What is larger than any cluster's range (of IPv6 an API server takes none larger, KEP-1880) would take the addresses of others.
fn service_range(text: &str) -> Result<IpNetwork, String> {
    let range: IpNetwork = text.parse().map_err(|_| format!("{text:?} is not a prefix such as 10.96.0.0/12"))?;
    let shortest = if range.is_ipv4() { 8 } else { 64 };
    match range.prefix() >= shortest {
        true => Ok(range),
        false => Err(format!("{text} is larger than a range of Services can be, /{shortest}")),
    }
}

/// What can be set. A new setting is a new field, and nothing else.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = fairlead_settings::HEADING)]
pub struct Settings {
    /// Log level: error, warn, info, debug or trace, optionally with levels of modules after commas, as in
    /// info,fairlead_agent::cni=debug. Change it at run time with fairlead log-level
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = log::DEFAULT, value_parser = log::filter)]
    pub log_level: String,
    /// What runs on this node: everything, or one part beside the network of another plugin. Before this is changed on a node, run
    /// `fairlead uninstall` there
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    pub parts: Parts,
    /// URL of the API server, as in https://192.0.2.1:6443. A real address, not that of the service `kubernetes`, which
    /// works only once this agent does [default: the one in kubelet's kubeconfig, found by fairlead install]
    #[arg(long, value_name = "URL")]
    pub api_server: Option<ServerUrl>,
    /// Seconds without contact to the API server after which this agent's pod is not ready (/readyz); 0 for never. What is
    /// in force stays in force, and the node stays Ready
    #[arg(long, value_name = "SECONDS", default_value_t = API_SERVER_PATIENCE)]
    pub api_server_patience: u64,
    /// Uplinks: interfaces that lead out of the node, as names in which * stands for anything and ? for one character. Those
    /// alone are served, and nodes are reached by them [default: all that have an address or a route]
    #[arg(long = "uplinks", visible_alias = "uplink", value_name = "IF", value_delimiter = ',')]
    pub uplinks: Vec<NamePattern>,
    /// Interfaces that do not, as docker*: what comes in there meets no Service, and what goes to pods is judged at the pod
    #[arg(long, value_name = "IF", value_delimiter = ',')]
    pub exclude_uplinks: Vec<NamePattern>,
    /// Where packets of known connections between clients outside and backends on other nodes are sent on by the driver (XDP),
    /// before the kernel sees them: at network cards, at virtual devices too, or nowhere. fairlead status says where it is
    #[arg(long, value_enum, default_value_t, value_name = "WHERE")]
    pub xdp: Xdp,
    /// Serve NodePorts at the node's addresses in these prefixes [default: the node's primary addresses]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub node_port_addresses: Vec<IpNetwork>,
    /// Prefixes of Services' cluster addresses (kube-apiserver's --service-cluster-ip-range), to be routed as a whole for
    /// kernel sockets and processes that no socket hook sees [default: the address of each Service by itself, 512 at most]
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = service_range)]
    pub service_ranges: Vec<IpNetwork>,
    /// Prefixes in which externalIPs of Services are permitted; an empty list permits none. If unset, any that do not
    /// belong to the cluster
    #[arg(long, value_name = "CIDR", value_delimiter = ',', num_args = 0..=1, require_equals = true)]
    pub external_ips: Option<Vec<IpNetwork>>,
    /// Prefixes in which pod addresses count on every node, besides the podCIDRs of their Node: for pools of other network
    /// plugins. 0.0.0.0/0 and ::/0 switch the check off. Must be the same on every node
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub pod_ranges: Vec<IpNetwork>,
    /// Prefixes in which a Node without spec.podCIDRs has its ranges from its annotation fairlead.io/pod-cidrs, where the
    /// control plane gives out none. Kubelets may write annotations of their Node unless admission forbids it. Must be the
    /// same on every node [default: none, the annotation does not count]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub annotated_ranges: Vec<IpNetwork>,
    /// Whether pods, except those in the node's network, may reach metadata services, as far as their policies let them
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub metadata_access: MetadataAccess,
    /// Addresses of metadata services, 8 at most: those of your cloud. The default is Amazon's. They are never endpoints of a
    /// Service, open or closed
    #[arg(long, value_name = "IP", value_delimiter = ',', default_values_t = METADATA, value_parser = metadata_address)]
    pub metadata_addresses: Vec<IpAddr>,
    /// Answer DNS at these addresses too, by the endpoint on the same node: for clusters whose kubelets name the address of
    /// NodeLocal DNSCache as clusterDNS, 169.254.20.10. Remove that DaemonSet afterwards
    #[arg(long, value_name = "IP", value_delimiter = ',', value_parser = NodeLocalDns::address)]
    pub node_local_dns: Vec<IpAddr>,
    /// The Service whose port 53 answers there
    #[arg(long, value_name = "NAMESPACE/NAME", default_value = "kube-system/kube-dns", value_parser = service_key)]
    pub node_local_dns_service: ObjectKey,
    /// Which DNS queries of pods the kernel answers, at the pod's interface: those for addresses in the cluster's zone that the
    /// node's fairlead-dns would answer the same, or none. fairlead status says whether it does
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    pub dns_in_kernel: InKernel,
    /// When to send packets to other nodes through VXLAN. Must be the same on every node
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub tunnel: Tunnel,
    /// From which nodes packets through VXLAN are accepted. `nodes` while `tunnel` is being changed, or where nodes of one
    /// network do not agree on how large it is
    #[arg(long, value_enum, default_value_t, value_name = "WHOM")]
    pub tunnel_from: TunnelFrom,
    /// UDP port of VXLAN. Must be the same on every node. Pods can send to this port of other pods only
    #[arg(long, default_value_t = VXLAN_PORT, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub vxlan_port: u16,
    /// Whether traffic of pods that leaves the cluster gets the node's address
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    pub masquerade_mode: Mode,
    /// Destinations outside the cluster that see pods' own addresses: the network must route those back to their nodes
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = masquerade::destination)]
    pub masquerade_except_cidrs: Vec<IpNetwork>,
    /// Source ports that translated flows may have, at least 1024 and none below 1024. NodePorts and ports of the node's
    /// own sockets are excluded automatically
    #[arg(long, value_name = "FIRST-LAST", default_value_t)]
    pub masquerade_port_range: PortRange,
    /// Clear the condition NetworkUnavailable of this Node once the agent is ready, where a cloud has set it. This needs
    /// permission to patch nodes/status, which manifests/overlays/cloud grants
    #[arg(long)]
    pub clear_network_unavailable: bool,
    /// Established TCP connections that a pod may have opened, and as many to it
    #[arg(long, default_value_t = Config::MAX_FLOWS, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_flows: u32,
    /// Other flows that a pod may have opened, and as many to it: UDP, ICMP, and connections that are not
    /// established yet
    #[arg(long, default_value_t = Config::MAX_OPEN, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_open_flows: u32,
    /// New flows that a pod may open per second, even all at once
    #[arg(long, default_value_t = Config::MAX_RATE, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_new_flows: u32,
    /// How long a connection is remembered that says nothing, as 24h or 90s. What one says after that is of no known
    /// connection
    #[arg(long, visible_alias = "conntrack-tcp-timeout-established", default_value = "24h", value_name = "TIME", value_parser = conntrack::seconds)]
    pub conntrack_tcp_established_timeout: u32,
    /// The same, of one that one side has closed
    #[arg(long, visible_alias = "conntrack-tcp-timeout-close-wait", default_value = "1h", value_name = "TIME", value_parser = conntrack::seconds)]
    pub conntrack_tcp_close_wait_timeout: u32,
    /// The same, of UDP
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = conntrack::seconds)]
    pub conntrack_udp_timeout: u32,
    /// The same, of UDP that is answered and in use for longer than a question and its answer take
    #[arg(long, visible_alias = "conntrack-udp-timeout-stream", default_value = "120s", value_name = "TIME", value_parser = conntrack::seconds)]
    pub conntrack_udp_stream_timeout: u32,
    /// cgroup v2 whose processes get socket hooks, or a directory with its mount below [default: the root of cgroup v2]
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
    /// Directory of the kernel's settings (sysctls)
    #[arg(long, default_value = PROC_SYS, value_name = "DIR")]
    pub proc_sys: PathBuf,
    /// Directory in which the container runtime looks for CNI configurations
    #[arg(long, default_value = CONF_DIR, value_name = "DIR")]
    pub cni_conf_dir: PathBuf,
    /// File name of Fairlead's CNI configuration. The runtime uses the first by name
    #[arg(long, default_value = CONF_NAME, value_name = "NAME")]
    pub cni_conf_name: String,
    /// Plugins to put behind ours in the configuration, each a JSON object such as {"type":"tuning","mtu":1400}.
    /// Entries that others add, such as a mesh, are kept without it
    #[arg(long, value_name = "JSON")]
    pub cni_chain: Vec<ChainedPlugin>,
    /// Serve health for probes and load balancers here: /healthz, /livez, /readyz [default: port 10256 of every address, 10246 with
    /// --parts policy]
    #[arg(long, value_name = "ADDR:PORT")]
    pub healthz_bind: Option<SocketAddr>,
    /// Serve Prometheus metrics here: /metrics
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:10249")]
    pub metrics_bind: SocketAddr,
    /// Directory for pinned maps and programs. Its parent must be a bpf file system
    #[arg(long, default_value = "/sys/fs/bpf/fairlead", value_name = "DIR")]
    pub bpffs: PathBuf,
    /// Directory for sockets, the CNI journal and the addresses of API servers
    #[arg(long, default_value = "/run/fairlead", value_name = "DIR")]
    pub run_dir: PathBuf,
}

fn service_key(text: &str) -> Result<ObjectKey, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(ObjectKey::new(namespace, name))
        }
        _ => Err(format!("{text:?} is not a Service; write NAMESPACE/NAME, such as kube-system/kube-dns")),
    }
}
