//! The tables, for a packet of either kind of context: those of the object, whoever asks.

use fairlead_datapath::flow::{
    self, Destination, Entry, Flow, FlowKey, FragmentKey, FragmentPorts, InsertError, PodFlows, PortSet, Table,
};
use fairlead_datapath::peer::{self, CidrKey, HostSide, NodeHop, Peer, Pod};
use fairlead_datapath::policy::{self, PeerKey, PolicySet, PortKey, RangeKey, Row};
use fairlead_datapath::service::{self, Affinity, AffinityKey, Backend, Frontend, FrontendKey, SourceRangeKey};
use fairlead_datapath::{Addr, Long};

use crate::maps::Maps;
use crate::tc::Skb;
use crate::xdp::Buff;

/// A reference into a map lives as long as the program runs.
const MAPS: &Maps = &Maps;

/// Implements a table trait by asking the maps.
macro_rules! ask_maps {
    ($tables:path { $(fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?;)+ }) => {
        ask_maps!(@for Skb, $tables { $(fn $name($($arg: $type),*) $(-> $result)?;)+ });
        ask_maps!(@for Buff, $tables { $(fn $name($($arg: $type),*) $(-> $result)?;)+ });
    };
    (@for $context:ty, $tables:path { $(fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?;)+ }) => {
        impl $tables for $context {
            $(#[inline(always)]
            fn $name(&self, $($arg: $type),*) $(-> $result)? {
                <Maps as $tables>::$name(MAPS, $($arg),*)
            })+
        }
    };
}

ask_maps!(flow::Tables {
    fn flow(table: Table, key: &FlowKey) -> Option<&Entry>;
    fn insert_flow(table: Table, key: &FlowKey, flow: &Flow, only_new: bool) -> Result<(), InsertError>;
    fn remove_flow(table: Table, key: &FlowKey) -> bool;
    fn pod_flows(index: u16) -> Option<&PodFlows>;
    fn share(index: u32) -> Option<&Long>;
    fn ports(key: &Destination) -> Option<&PortSet>;
    fn keep_ports(key: &Destination) -> bool;
    fn drop_ports(key: &Destination);
    fn fragment(key: &FragmentKey) -> Option<FragmentPorts>;
    fn insert_fragment(key: &FragmentKey, ports: FragmentPorts);
});

ask_maps!(peer::Tables {
    fn peer(addr: &Addr) -> Option<Peer>;
    fn cidr(key: &CidrKey) -> Option<Peer>;
    fn node(index: u16) -> Option<NodeHop>;
    fn pod(slot: u16) -> Option<&Pod>;
    fn pod_word(slot: u16) -> u64;
    fn foreign(ifindex: u32) -> Option<HostSide>;
    fn host_side(slot: u16) -> u32;
});

ask_maps!(policy::Tables {
    fn policy_set(index: u32) -> Option<PolicySet>;
    fn policy_peers(key: &PeerKey) -> Option<Row>;
    fn policy_ports(key: &PortKey) -> Option<Row>;
    fn policy_range(key: &RangeKey) -> Option<Row>;
});

ask_maps!(service::Tables {
    fn frontend(key: &FrontendKey) -> Option<Frontend>;
    fn node_address(addr: &Addr) -> u32;
    fn affinity(key: &AffinityKey) -> Option<Affinity>;
    fn remember_affinity(key: &AffinityKey, value: &Affinity);
    fn service_ports(index: u32) -> u64;
    fn in_source_range(key: &SourceRangeKey) -> bool;
    fn slot(index: u32) -> Option<u32>;
    fn backend(id: u32) -> Option<&Backend>;
    fn backend_state(id: u32) -> u64;
    fn udp_generation() -> u32;
});
