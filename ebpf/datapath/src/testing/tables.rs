//! The tables of a host: asked by the datapath, and written down.

use std::vec::Vec;

use super::host::Host;
use super::replay::Entry;
use crate::catalog::TableId;
use crate::flow::{
    self, Destination, Flow, FlowKey, FragmentKey, FragmentPorts, InsertError, PodFlows, PortSet, Table,
};
use crate::peer::{self, CidrKey, HostSide, NodeHop, Peer, Pod};
use crate::policy::{self, PeerKey, PolicySet, PortKey, RangeKey, Row};
use crate::service::{self, Affinity, AffinityKey, Backend, Frontend, FrontendKey, NodeAddress, SourceRangeKey};
use crate::{Addr, Long};

impl Host {
    /// What packets have left, as the kernel has it.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut entries = self.flows.bytes();
        entries.extend(
            self.services.affinities.borrow().iter().map(|(key, value)| Entry::new(TableId::Affinities, key, value)),
        );
        if self.host_flows.load() != 0 {
            entries.push(Entry::new(TableId::HostFlows, &0_u32, &self.host_flows.load()));
        }
        for (slot, pace) in &self.paces {
            let turns = [&pace.egress, &pace.ingress].map(Long::load);
            if turns != [0; 2] {
                entries.push(Entry::new(TableId::Paces, &u32::from(*slot), &turns));
            }
        }
        entries.sort_unstable();
        entries
    }

    /// What the agent has written, as the kernel has it.
    #[must_use]
    pub fn tables(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut add = |entry| entries.push(entry);
        add(Entry::new(TableId::Settings, &0_u32, &self.config));
        self.uplinks.iter().for_each(|(key, value)| add(Entry::new(TableId::Uplinks, key, &value.sealed(*key))));
        self.bandwidth.iter().for_each(|(slot, value)| add(Entry::new(TableId::Limits, &u32::from(*slot), value)));

        add(Entry::new(TableId::Zones, &0_u32, &self.zone));
        self.names.iter().for_each(|(key, value)| add(Entry::new(TableId::ZoneNames, key, &value.sealed(key.tag()))));

        let peers = &self.peers;
        peers.peers.iter().for_each(|(key, value)| add(Entry::new(TableId::Peers, key, value)));
        peers.cidrs.iter().for_each(|(key, value)| add(Entry::new(TableId::Cidrs, key, value)));
        peers.nodes.iter().for_each(|(index, value)| add(Entry::new(TableId::Nodes, &u32::from(*index), value)));
        peers.pods.iter().for_each(|(slot, value)| add(Entry::new(TableId::Pods, &u32::from(*slot), value)));

        peers.host_sides.iter().for_each(|(slot, ifindex)| {
            add(Entry::new(TableId::HostSides, &u32::from(*slot), ifindex));
            add(Entry::new(TableId::Foreign, ifindex, &HostSide { ifindex: *ifindex, slot: (*slot).into() }));
        });

        let policies = &self.policies;
        policies.sets.iter().for_each(|(index, value)| add(Entry::new(TableId::PolicySets, index, value)));
        policies.peers.iter().for_each(|(key, value)| add(Entry::new(TableId::PolicyPeers, key, value)));
        policies.ports.iter().for_each(|(key, value)| add(Entry::new(TableId::PolicyPorts, key, value)));
        policies.ranges.iter().for_each(|(key, value)| add(Entry::new(TableId::PolicyRanges, key, value)));

        let services = &self.services;
        services.frontends.iter().for_each(|(key, value)| add(Entry::new(TableId::Frontends, key, value)));
        (0_u32..).zip(&services.slots).for_each(|(index, id)| add(Entry::new(TableId::Slots, &index, id)));
        (0_u32..).zip(&services.backends).for_each(|(id, value)| add(Entry::new(TableId::Backends, &id, value)));
        services.node_addresses.iter().for_each(|(key, value)| {
            add(Entry::new(TableId::NodeAddresses, key, &NodeAddress { tag: 0, kinds: *value }.sealed(key.tag())));
        });
        services.service_ports.iter().for_each(|(index, value)| add(Entry::new(TableId::ServicePorts, index, value)));
        services.source_ranges.iter().for_each(|key| add(Entry::new(TableId::SourceRanges, key, &1_u32)));
        add(Entry::new(TableId::ServiceGeneration, &0_u32, &services.state));
        entries.sort_unstable();
        entries
    }
}

/// Implements a table trait by asking a field.
macro_rules! ask {
    ($field:ident: $tables:path { $(fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?;)+ }) => {
        impl $tables for Host {
            $(fn $name(&self, $($arg: $type),*) $(-> $result)? {
                self.$field.$name($($arg),*)
            })+
        }
    };
}

ask!(flows: flow::Tables {
    fn flow(table: Table, key: &FlowKey) -> Option<&flow::Entry>;
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

ask!(peers: peer::Tables {
    fn peer(addr: &Addr) -> Option<Peer>;
    fn cidr(key: &CidrKey) -> Option<Peer>;
    fn node(index: u16) -> Option<NodeHop>;
    fn pod(slot: u16) -> Option<&Pod>;
    fn pod_word(slot: u16) -> u64;
    fn foreign(ifindex: u32) -> Option<HostSide>;
    fn host_side(slot: u16) -> u32;
});

ask!(policies: policy::Tables {
    fn policy_set(index: u32) -> Option<PolicySet>;
    fn policy_peers(key: &PeerKey) -> Option<Row>;
    fn policy_ports(key: &PortKey) -> Option<Row>;
    fn policy_range(key: &RangeKey) -> Option<Row>;
});

ask!(services: service::Tables {
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
