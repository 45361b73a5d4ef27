//! What was seen on the node.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use fairlead_cni::Version;
use ipnetwork::IpNetwork;

use crate::parts::Parts;

/// Everything that findings are made of. `None` and absence mean that it could not be looked at.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The kernel.
    pub kernel: Kernel,
    /// Where a bpf file system should be, and whether one is.
    pub bpffs: Option<(PathBuf, bool)>,
    /// `fairlead install --keep`.
    pub keeper: Keeper,
    /// Why there is no cgroup for the socket hooks.
    pub cgroup: Option<String>,
    /// kube-proxy and what it left.
    pub proxy: Proxy,
    /// Chains of the node's firewall that drop or reject forwarded packets unless a rule says otherwise, where none is about
    /// pods, as `ip filter FORWARD`; and firewalld.
    pub forward_drop: Vec<String>,
    /// CNI configurations.
    pub cni: Cni,
    /// Interfaces by which other nodes are reached.
    pub uplinks: Option<Vec<UplinkFacts>>,
    /// Host sides of pods, with their MTUs.
    pub pods: Vec<(String, u32)>,
    /// Settings of the kernel that are not as a forwarding node needs them, as in sysctl.
    pub settings: Vec<String>,
    /// Whether IPv6 is switched off.
    pub no_ipv6: bool,
    /// NetworkManager, where it runs.
    pub network_manager: Option<NetworkManager>,
    /// systemd-networkd, where it runs.
    pub networkd: Option<Networkd>,
    /// The API server.
    pub api_server: Option<ApiServer>,
    /// Link-local addresses that kubelet gives to pods for DNS: the node itself has to serve them.
    pub node_local_dns: Vec<NodeLocalDns>,
    /// Disks with what is free on them, in bytes and files.
    pub disks: Vec<Disk>,
    /// The agent, where it answers.
    pub agent: Option<Agent>,
    /// What could not be looked at, and why.
    pub unseen: Vec<(String, String)>,
}

/// Who puts back what somebody unmounts or removes on the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Keeper {
    /// It was not looked for.
    #[default]
    Unknown,
    /// Nobody does.
    Absent,
    /// One runs: a line for each thing that it can't put right.
    Runs(String),
    /// One runs, and has not looked for so long.
    Silent(Duration),
}

/// The kernel.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    /// As `uname -r` has it.
    pub release: String,
    /// Major and minor version.
    pub version: Option<(u32, u32)>,
    /// Whether it describes its own types.
    pub btf: Option<bool>,
    /// `net.core.bpf_jit_enable`.
    pub jit: Option<bool>,
    /// Whether it can end sockets of processes.
    pub ends_sockets: Option<bool>,
    /// What it lacks of programs, maps and helpers.
    pub lacks: Vec<String>,
    /// Why that could not be asked.
    pub refuses: Option<String>,
}

/// kube-proxy and what it left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxy {
    /// Processes of that name.
    pub processes: Vec<u32>,
    /// What answers at its port as it does: its mode.
    pub mode: Option<String>,
    /// Tables and chains of it in the node's firewall, as `ip nat KUBE-SERVICES`.
    pub rules: Vec<String>,
    /// Whether its IPVS device exists.
    pub ipvs: bool,
}

/// CNI configurations.
#[derive(Debug, Clone, Default)]
pub struct Cni {
    /// Where they are.
    pub directory: PathBuf,
    /// The name of ours.
    pub own: String,
    /// All, in the order of a runtime.
    pub files: Vec<String>,
    /// Those of them that give pods to Fairlead, ours or one in front of it, as Multus has.
    pub lead_here: Vec<String>,
    /// Plugins that ours names beside our own, and that are not there.
    pub missing: Vec<String>,
    /// Plugins that it names and that can't be behind our own.
    pub refused: Vec<String>,
    /// Plugins beside our own that do not serve its version.
    pub older: Vec<OlderPlugin>,
    /// Where the plugin belongs.
    pub plugin: PathBuf,
    /// Whether it is there and can be executed.
    pub plugin_ok: bool,
}

/// A plugin that does not serve the version with which a runtime calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OlderPlugin {
    /// Its type, the name of its executable.
    pub kind: String,
    /// The version that it does not serve.
    pub wanted: Version,
    /// The highest version that it and our plugin serve.
    pub serves: Option<Version>,
}

/// An interface by which other nodes are reached.
#[derive(Debug, Clone, Default)]
pub struct UplinkFacts {
    /// Name.
    pub name: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether reverse path filtering is strict.
    pub strict: bool,
    /// Whether its queue spaces packets.
    pub paces: bool,
    /// Names of programs of others that see its packets before ours do.
    pub before: Vec<String>,
}

/// NetworkManager.
#[derive(Debug, Clone, Copy, Default)]
pub struct NetworkManager {
    /// Whether it was told to leave links of pods and of the tunnel alone.
    pub keeps_off: bool,
}

/// systemd-networkd.
#[derive(Debug, Clone, Default)]
pub struct Networkd {
    /// Whether it was told to leave routes of others alone.
    pub keeps_routes: bool,
    /// Its files that are for links of pods or of the tunnel too.
    pub claims: Vec<String>,
}

/// The API server.
#[derive(Debug, Clone, Default)]
pub struct ApiServer {
    /// Its URL.
    pub url: String,
    /// Where the URL is from.
    pub origin: String,
    /// Why it can't be reached.
    pub trouble: Option<String>,
}

/// A directory that is written to.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// The directory.
    pub path: PathBuf,
    /// Bytes that are free.
    pub bytes: u64,
    /// Files that are free; nothing where the file system does not count them.
    pub files: Option<u64>,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}

/// What the agent says of itself.
#[derive(Debug, Clone, Default)]
pub struct Agent {
    /// Which parts run here.
    pub parts: Parts,
    /// `ready`, `starting` or `impaired`.
    pub health: String,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// What it warns of: topic and text.
    pub warnings: Vec<(String, String)>,
    /// What objects claim in vain: which, and why.
    pub claims: Vec<(String, String)>,
    /// Prefixes of which pods' addresses count whatever their node's ranges.
    pub pod_ranges: Vec<String>,
    /// Addresses of node-local DNS that it serves.
    pub node_local_dns: Vec<IpAddr>,
    /// The interfaces by which it reaches other nodes, once it has looked at them.
    pub uplinks: Option<Vec<String>>,
    /// The addresses of the node.
    pub addresses: Vec<IpAddr>,
    /// The node's ranges for pods.
    pub ranges: Vec<IpNetwork>,
}

/// A link-local address that kubelet gives to pods for DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLocalDns {
    /// The address.
    pub address: IpAddr,
    /// Where kubelet has it from.
    pub origin: String,
    /// Whether the kernel has it, as with NodeLocal DNSCache.
    pub here: bool,
}

#[cfg(test)]
impl Facts {
    /// Of a node on which Fairlead can run, and nothing of it is there.
    pub(super) fn capable() -> Self {
        Self {
            kernel: Kernel {
                release: "6.12.0".into(),
                version: Some((6, 12)),
                btf: Some(true),
                jit: Some(true),
                ends_sockets: Some(true),
                ..Kernel::default()
            },
            uplinks: Some(vec![UplinkFacts { name: "eth0".into(), mtu: 1500, ..UplinkFacts::default() }]),
            ..Self::default()
        }
    }
}
