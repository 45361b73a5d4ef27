//! How the agent is, and which.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// How the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// The node's name.
    pub node: String,
    /// The agent's version.
    pub version: String,
    /// `ready`, `starting` or `impaired`.
    pub health: String,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// Whether it adopted maps of an agent before it.
    pub adopted: bool,
    /// Tables of another version that it took over when it started.
    #[serde(default)]
    pub migrated: Vec<MigrationView>,
    /// Which parts run here: `all`, `proxy` or `policy`.
    pub parts: String,
    /// The node among the others.
    pub network: NetworkView,
    /// Objects known, by kind.
    pub objects: Vec<ObjectCount>,
    /// Watches of the API server. None with a directory.
    pub watches: Vec<WatchView>,
    /// What was brought into force.
    pub plans: PlansView,
    /// The pods of this node.
    pub pods: Vec<PodView>,
    /// The maps and their fill.
    pub maps: Vec<MapView>,
    /// The programs.
    pub programs: Vec<ProgramView>,
    /// What is wrong at present beside single objects.
    pub warnings: Vec<WarningView>,
    /// What others undid and the agent put right, the latest first.
    pub repairs: Vec<RepairView>,
    /// Services that do not fit into the tables, and why.
    pub refused: Vec<ObjectTrouble>,
    /// What objects claim in vain: which, why and what to do.
    pub claims: Vec<ObjectTrouble>,
    /// Prefixes of which pods' addresses count whatever their node's ranges.
    pub pod_ranges: Vec<String>,
    /// Whose address has what pods send out of the cluster, and from which ports.
    pub masquerade: String,
    /// Addresses of node-local DNS that are served.
    pub node_local_dns: Vec<IpAddr>,
    /// DNS queries of pods that the kernel answers.
    #[serde(default)]
    pub dns: DnsView,
    /// Objects that can't be read: where, and what to do.
    pub mistakes: Vec<ObjectTrouble>,
    /// Packets dropped since the node's start.
    pub drops: u64,
}

/// Which agent it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionView {
    /// Its version.
    pub version: String,
    /// The version of what it says on the socket, [`super::API`].
    pub api: u32,
}

/// The node among the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkView {
    /// The API server in use; nothing with a directory, and before the first answer.
    pub api_server: Option<String>,
    /// The interfaces by which nodes are reached; nothing before the agent has looked at them.
    pub uplinks: Option<Vec<String>>,
    /// Each uplink with Ethernet headers, and why XDP is not there.
    #[serde(default)]
    pub xdp: Vec<XdpView>,
    /// Packets that XDP has sent on.
    #[serde(default)]
    pub xdp_packets: u64,
    /// The node's own addresses, one of a family at most.
    pub addresses: Vec<IpAddr>,
    /// MTU of the uplinks by which nodes are reached, the smallest, in bytes.
    pub mtu: u32,
    /// MTU that new pods get, in bytes.
    pub pod_mtu: u32,
    /// The node's ranges for pods.
    pub ranges: Vec<RangeView>,
    /// How the other nodes are reached.
    pub nodes: Vec<WayView>,
}

/// DNS queries of pods that the kernel answers in place of the node's DNS server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DnsView {
    /// Whether it does.
    pub in_kernel: bool,
    /// Why it does not, or not all that it could.
    pub obstacle: Option<String>,
    /// Names that it knows.
    pub names: u64,
    /// Queries that it answered.
    pub answers: u64,
}

/// XDP at an uplink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdpView {
    /// The name of the uplink.
    pub uplink: String,
    /// Why it is not there; nothing if it is.
    pub obstacle: Option<String>,
}

/// A range of addresses for the pods of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeView {
    /// In CIDR notation.
    pub range: String,
    /// Addresses of it that pods have.
    pub used: u64,
    /// Addresses that are left, with those that rest for some seconds.
    pub free: u64,
}

/// How another node is reached: `direct`, `tunnel` or `routed`; nothing for a family of which it has no range for pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayView {
    /// The node's name.
    pub node: String,
    /// Packets of IPv4.
    pub ipv4: Option<String>,
    /// Packets of IPv6.
    pub ipv6: Option<String>,
}

/// How many objects of a kind are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectCount {
    /// The kind, in the plural.
    pub kind: String,
    /// How many.
    pub count: usize,
}

/// A watch of the API server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchView {
    /// The kind that is watched.
    pub kind: String,
    /// Whether it is alive.
    pub alive: bool,
    /// Seconds since it was heard.
    pub silent_seconds: u64,
}

/// What was brought into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlansView {
    /// Plans.
    pub applied: u64,
    /// Operations in them.
    pub operations: u64,
    /// Microseconds that the last took.
    pub last_micros: u64,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramView {
    /// Its name.
    pub name: String,
    /// Instructions that the verifier walked through, where the kernel tells.
    pub verified_instructions: Option<u32>,
}

/// Something that is wrong at present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarningView {
    /// What it is about.
    pub topic: String,
    /// What is wrong, and what to do.
    pub text: String,
}

/// A table of another version that was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationView {
    /// Its name.
    pub table: String,
    /// The version of the layout that it had.
    pub from: u32,
    /// The version that it has now.
    pub to: u32,
    /// Entries that were taken over.
    pub entries: u64,
    /// What was not, and why.
    pub lost: Option<String>,
}

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectTrouble {
    /// The object: kind, namespace and name; or the file and the place in it.
    pub object: String,
    /// What is wrong with it, and what to do.
    pub reason: String,
}

/// Something that was put right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairView {
    /// When, as in RFC 3339.
    pub time: String,
    /// What it was about, as in the metric.
    pub kind: String,
    /// What was put right.
    pub what: String,
}

/// A pod of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodView {
    /// Its slot.
    pub slot: u16,
    /// `namespace/name`.
    pub pod: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Whether its Pod object is known: without, nothing may pass.
    pub known: bool,
    /// What of it is cut off, and why.
    pub cut_off: Vec<String>,
    /// What it may send and receive, and how that is kept.
    pub bandwidth: Vec<String>,
    /// Packets of it and for it that were dropped since it came.
    pub drops: u64,
}

/// A map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapView {
    /// Its name.
    pub name: String,
    /// Elements in use; nothing for arrays, which are always full.
    pub used: Option<u32>,
    /// Elements that it can hold.
    pub size: u32,
}
