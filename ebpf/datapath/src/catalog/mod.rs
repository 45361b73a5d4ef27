//! Every table that the programs have, once: name, kind, key, value, size and version of its layout.
//!
//! The programs take the types and sizes of their maps from here, the agent everything else: what it opens, writes, counts
//! and shows. No other place names a table in a string.
//!
//! A table that outlives the programs is pinned, and its layout has a version, which is part of the pin's name
//! ([`TableInfo::pin`]). So the version is stored with the table, table by table, comes to be in the same instant, and two
//! versions of a table can stand side by side. `layouts.txt` has every layout that ever was; a test holds the types
//! against it, so that none changes without a new version. By that text an agent reads tables of another version: a field, or
//! a bit, keeps its meaning as long as it keeps its name, and zero in a new one means what was so before.

mod kind;
#[cfg(test)]
mod layout;
#[cfg(test)]
mod tests;

use crate::drop::{DropEvent, EventBudget, MAX_DROP_REASONS, PodDrops};
use crate::scratch::Walk;
use crate::tables::bandwidth::{Bandwidth, Pace};
use crate::tables::config::{Config, MAX_UPLINKS, Uplink};
use crate::tables::dns::{DnsAnswer, DnsFacts, DnsName, DnsZone, MAX_DNS_NAMES};
use crate::tables::errors::{RECEIVERS, TURNS};
use crate::tables::flow::{Flow, FlowKey, FragmentKey, FragmentPorts, MAX_FLOW_ENTRIES, MAX_FRAGMENTS, PodFlows};
use crate::tables::peer::{CidrKey, HostSide, MAX_CIDRS, MAX_NODES, MAX_PEERS, NodeHop, Peer, Pod};
use crate::tables::policy::{
    HitKey, Hits, MAX_HITS, MAX_PEER_ROWS, MAX_PORT_ROWS, MAX_RANGE_ROWS, MAX_SETS, PeerKey, PolicySet, PortKey,
    RangeKey, Row,
};
use crate::tables::port::{Destination, MAX_PORT_SETS, MAX_SHARES, PortSet};
use crate::tables::service::{
    Affinity, AffinityKey, Backend, Frontend, FrontendKey, MAX_AFFINITIES, MAX_BACKENDS, MAX_FRONTENDS,
    MAX_NODE_ADDRESSES, MAX_SLOTS, MAX_SOURCE_RANGES, NodeAddress, SERVICE_PORT_WORDS, ServiceState, SourceRangeKey,
};
use crate::tables::sock::{Senders, SocketMemory};
use crate::{Addr, Long, MAX_PODS};

pub use kind::Kind;

/// `BPF_F_NO_PREALLOC` (include/uapi/linux/bpf.h): elements are allocated when they are written.
const NO_PREALLOC: u32 = 1;

/// A table as a type: what the programs define their maps by, and the agent reads them by.
pub trait Table {
    /// Its key. Of an LPM trie, `struct bpf_lpm_trie_key` and what belongs to it.
    type Key;
    /// Its value.
    type Value;
    /// Which one it is.
    const ID: TableId;
    /// What is known of it.
    const INFO: TableInfo;
    /// Elements. Of a ring buffer, bytes.
    const ELEMENTS: usize = Self::INFO.elements as usize;
    /// `BPF_F_*`.
    const FLAGS: usize = Self::INFO.flags as usize;
}

/// What is known of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableInfo {
    /// The map's name in the object, the word in documentation and the label of metrics.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value (of one CPU, in per-CPU tables).
    pub value_size: u32,
    /// Elements. Of a ring buffer, bytes.
    pub elements: u32,
    /// `BPF_F_*`.
    pub flags: u32,
    /// The version of its layout. `None`: the table is no state but memory of the programs; it is pinned nowhere, and each
    /// load of the programs makes its own.
    pub version: Option<u32>,
}

impl TableInfo {
    /// The name of its pin, if it has one: `NAME@VERSION`. (The bpf file system takes no dots.)
    #[cfg(any(test, feature = "host"))]
    #[must_use]
    pub fn pin(&self) -> Option<std::string::String> {
        self.version.map(|version| std::format!("{}@{version}", self.name))
    }
}

#[cfg(any(test, feature = "host"))]
impl std::fmt::Display for TableId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.info().name)
    }
}

/// The name and the version that a pin has. One without a version is older than versions.
#[cfg(any(test, feature = "host"))]
#[must_use]
pub fn parse_pin(pin: &str) -> (&str, Option<u32>) {
    match pin.split_once('@') {
        Some((name, version)) => (name, version.parse().ok()),
        None => (pin, Some(1)),
    }
}

/// Every layout that ever was, a paragraph each: `NAME vVERSION: KIND, N elements, flags F`, and a line for each field and for
/// each set of bits.
#[cfg(any(test, feature = "host"))]
const LAYOUTS: &str = include_str!("layouts.txt");

/// The layout that a version of a table has, as text. `None`: there was none by that number.
#[cfg(any(test, feature = "host"))]
#[must_use]
pub fn recorded(name: &str, version: u32) -> Option<&'static str> {
    let head = std::format!("{name} v{version}:");
    LAYOUTS.split("\n\n").map(str::trim).find(|paragraph| paragraph.starts_with(&head))
}

macro_rules! tables {
    ($($(#[doc = $doc:literal])+ $id:ident: $name:literal, $kind:ident<$key:ty, $value:ty>,
       elements $elements:expr, flags $flags:expr, version $version:expr;)+) => {
        /// The name of a table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum TableId {
            $($(#[doc = $doc])+ $id,)+
        }

        impl TableId {
            /// Every table.
            pub const ALL: &[Self] = &[$(Self::$id,)+];

            /// What is known of it.
            #[must_use]
            pub const fn info(self) -> TableInfo {
                match self {
                    $(Self::$id => <$id as Table>::INFO,)+
                }
            }

            /// The table with this name.
            #[cfg(any(test, feature = "host"))]
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|id| id.info().name == name)
            }

            /// What it holds, in a few words.
            #[cfg(any(test, feature = "host"))]
            #[must_use]
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$id => concat!($($doc,)+).trim(),)+
                }
            }

            /// Its layout as `layouts.txt` has it. `None` of one that is memory of the programs.
            #[cfg(test)]
            fn layout(self) -> Option<std::string::String> {
                let info = self.info();
                let version = info.version?;
                Some(match self {
                    $(Self::$id => layout::record::<$key, $value>(&info, version),)+
                })
            }
        }

        $($(#[doc = $doc])+
        #[derive(Debug, Clone, Copy)]
        pub struct $id;

        impl Table for $id {
            type Key = $key;
            type Value = $value;
            const ID: TableId = TableId::$id;
            const INFO: TableInfo = TableInfo {
                name: $name,
                kind: Kind::$kind,
                key_size: Kind::$kind.size(size_of::<$key>()),
                value_size: Kind::$kind.size(size_of::<$value>()),
                elements: $elements as u32,
                flags: $flags,
                version: $version,
            };
        })+
    };
}

tables! {
    /// (address, port, protocol) → verdict and block
    Frontends: "FRONTENDS", Hash<FrontendKey, Frontend>, elements MAX_FRONTENDS, flags NO_PREALLOC, version Some(3);
    /// backend ids, in blocks of powers of two
    Slots: "SLOTS", Array<u32, u32>, elements MAX_SLOTS, flags 0, version Some(2);
    /// an endpoint of one service port, its generation
    Backends: "BACKENDS", Array<u32, Backend>, elements MAX_BACKENDS, flags 0, version Some(3);
    /// generation of the UDP frontends
    ServiceGeneration: "SERVICE_STATE", Array<u32, ServiceState>, elements 1, flags 0, version Some(1);
    /// address of the node → NodePorts, hostPorts or both are at it
    NodeAddresses: "NODE_ADDRESSES", Hash<Addr, NodeAddress>, elements MAX_NODE_ADDRESSES, flags 0, version Some(3);
    /// the backend that a client had last by a service port
    Affinities: "AFFINITY", LruHash<AffinityKey, Affinity>, elements MAX_AFFINITIES, flags 0, version Some(3);
    /// a bit for each port and protocol that a frontend ever had
    ServicePorts: "SERVICE_PORTS", Array<u32, u64>, elements SERVICE_PORT_WORDS, flags 0, version Some(1);
    /// (set, prefix): a set is the source ranges of a service port
    SourceRanges: "SOURCE_RANGES", LpmTrie<SourceRangeKey, u32>, elements MAX_SOURCE_RANGES, flags NO_PREALLOC,
        version Some(1);
    /// address → class, slot or node
    Peers: "PEERS", Hash<Addr, Peer>, elements MAX_PEERS, flags NO_PREALLOC, version Some(4);
    /// prefixes of policies and nodes, and those that are not masqueraded
    Cidrs: "CIDRS", LpmTrie<CidrKey, Peer>, elements MAX_CIDRS, flags NO_PREALLOC, version Some(4);
    /// the way to another node
    Nodes: "NODES", Array<u32, NodeHop>, elements MAX_NODES, flags 0, version Some(3);
    /// a pod of this node: its word, addresses, MACs
    Pods: "PODS", Array<u32, Pod>, elements MAX_PODS, flags 0, version Some(1);
    /// interface → pod of this node that another plugin has wired
    Foreign: "FOREIGN", Hash<u32, HostSide>, elements MAX_PODS, flags NO_PREALLOC, version Some(1);
    /// the interface of such a pod, by slot
    HostSides: "HOST_SIDES", Array<u32, u32>, elements MAX_PODS, flags 0, version Some(1);
    /// what a pod may send and receive
    Limits: "BANDWIDTH", Array<u32, Bandwidth>, elements MAX_PODS, flags 0, version Some(1);
    /// when the next packet's turn is, of a pod with a limit
    Paces: "PACE", Array<u32, Pace>, elements MAX_PODS, flags 0, version Some(1);
    /// what a set is besides its rows
    PolicySets: "POLICY_SETS", Array<u32, PolicySet>, elements MAX_SETS, flags 0, version Some(2);
    /// (set, class) → 256 rule bits
    PolicyPeers: "POLICY_PEERS", Hash<PeerKey, Row>, elements MAX_PEER_ROWS, flags NO_PREALLOC, version Some(2);
    /// (set, protocol, port) → 256 rule bits
    PolicyPorts: "POLICY_PORTS", Hash<PortKey, Row>, elements MAX_PORT_ROWS, flags NO_PREALLOC, version Some(2);
    /// the same for blocks of ports
    PolicyRanges: "POLICY_RANGES", LpmTrie<RangeKey, Row>, elements MAX_RANGE_ROWS, flags NO_PREALLOC, version Some(2);
    /// what rules of policies have decided on, for the sets that are counted
    PolicyHits: "POLICY_HITS", PerCpuHash<HitKey, Hits>, elements MAX_HITS, flags NO_PREALLOC, version Some(1);
    /// TCP after its handshake; two entries if translated
    EstablishedFlows: "CT_EST", Hash<FlowKey, Flow>, elements MAX_FLOW_ENTRIES, flags NO_PREALLOC, version Some(6);
    /// every other flow
    OtherFlows: "CT_ANY", Hash<FlowKey, Flow>, elements MAX_FLOW_ENTRIES, flags NO_PREALLOC, version Some(6);
    /// flows of each pod, for its limits
    FlowCounts: "POD_FLOWS", Array<u32, PodFlows>, elements PodFlows::ELEMENTS, flags 0, version Some(2);
    /// source ports in use, by destination and by who has them
    PortShares: "SHARES", Array<u32, Long>, elements MAX_SHARES, flags 0, version Some(2);
    /// which source ports of a crowded destination are in use
    PortSets: "PORTS", Hash<Destination, PortSet>, elements MAX_PORT_SETS, flags NO_PREALLOC, version Some(1);
    /// ports of datagrams in fragments
    Fragments: "FRAGS", LruHash<FragmentKey, FragmentPorts>, elements MAX_FRAGMENTS, flags 0, version Some(3);
    /// the node's addresses, MTU, mark, port range, limits
    Settings: "CONFIG", Array<u32, Config>, elements 1, flags 0, version Some(5);
    /// whether a client outside was ever sent to a process of the node
    HostFlows: "HOST_FLOWS", Array<u32, u32>, elements 1, flags 0, version Some(1);
    /// addresses of each uplink
    Uplinks: "UPLINKS", Hash<u32, Uplink>, elements MAX_UPLINKS, flags NO_PREALLOC, version Some(3);
    /// a socket's service; dies with it
    Sockets: "SOCKETS", SocketStorage<u32, SocketMemory>, elements 0, flags NO_PREALLOC, version Some(1);
    /// as whom backends answer a UDP socket of the node; dies with it
    SocketSenders: "SENDERS", SocketStorage<u32, Senders>, elements 0, flags NO_PREALLOC, version Some(3);
    /// the zone that is answered at pods' interfaces, and until when
    Zones: "DNS_ZONE", Array<u32, DnsZone>, elements 1, flags 0, version Some(1);
    /// name in that zone → its address, or that it has none
    ZoneNames: "DNS_NAMES", Hash<DnsName, DnsFacts>, elements MAX_DNS_NAMES, flags NO_PREALLOC, version Some(1);
    /// DNS queries that were answered there
    ZoneAnswers: "DNS_ANSWERS", PerCpuArray<u32, u64>, elements DnsAnswer::ALL.len(), flags 0, version Some(1);
    /// counters
    Drops: "DROPS", PerCpuArray<u32, u64>, elements MAX_DROP_REASONS, flags 0, version Some(2);
    /// packets that XDP has sent on at uplinks
    PacketsByXdp: "XDP_PACKETS", PerCpuArray<u32, u64>, elements 1, flags 0, version Some(1);
    /// errors that were not sent, by who would have got too many
    ErrorsUnsent: "UNSENT", PerCpuArray<u32, u64>, elements RECEIVERS, flags 0, version Some(1);
    /// counters of each pod
    DropsOfPods: "POD_DROPS", Array<u32, PodDrops>, elements MAX_PODS, flags 0, version Some(1);
    /// samples of drops, 64 a second and CPU
    DropEvents: "EVENTS", RingBuffer<(), DropEvent>, elements 262_144, flags 0, version Some(1);
    /// the grace period
    Barrier: "BARRIER", ArrayOfMaps<u32, u32>, elements 1, flags 0, version Some(1);
    /// lines about packets, when somebody asks for them (aya-log's own)
    PacketLog: "AYA_LOGS", RingBuffer<(), ()>, elements 131_072, flags 0, version None;
    /// drops that a CPU has sent samples of in this second
    EventBudgets: "EVENT_BUDGET", PerCpuArray<u32, EventBudget>, elements EventBudget::ELEMENTS, flags 0, version None;
    /// when the next error to each receiver may be sent
    ErrorTurns: "ERROR_TURNS", Array<u32, Long>, elements TURNS, flags 0, version None;
    /// an empty set of ports, to begin one with
    NoPorts: "NO_PORTS", Array<u32, PortSet>, elements 1, flags 0, version None;
    /// what the walk that runs on a CPU remembers
    Scratch: "WALK", PerCpuArray<u32, Walk>, elements 2, flags 0, version None;
}
