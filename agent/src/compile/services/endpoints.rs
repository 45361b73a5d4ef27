//! The endpoints of one service port, from all slices of the service.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use fairlead_objects::{Endpoint, EndpointSlice, ServicePort};

use super::{BackendAddr, Family};

/// An endpoint of one service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortEndpoint<'a> {
    /// Where it listens.
    pub addr: BackendAddr,
    /// Whether it runs on this node.
    pub local: bool,
    /// It takes new flows.
    pub ready: bool,
    /// It takes new flows, or would if it were not about to end.
    pub serving: bool,
    /// It is about to end.
    pub terminating: bool,
    /// Nodes that it is meant for.
    pub node_hints: &'a [String],
    /// Zones that it is meant for.
    pub zone_hints: &'a [String],
}

impl PortEndpoint<'_> {
    /// Whether it is used when nothing is ready: it still works while it ends.
    #[must_use]
    pub fn is_last_resort(&self) -> bool {
        self.serving && self.terminating
    }

    /// Which of two entries for one address is believed: the one on this node (S21), then the one that is more alive.
    fn rank(&self) -> (bool, bool, bool) {
        (self.local, self.ready, self.serving)
    }
}

/// The endpoints of a service port in one family, in the order of their addresses.
///
/// Slices are a union (S20). A slice's port is this one if its name and protocol are; its number may differ from slice
/// to slice (S19). Of an endpoint's addresses the first alone counts. An address that is there twice counts once (S21).
///
/// As `addEndpoints` of kubernetes/pkg/proxy/endpointslicecache.go; where that leaves it to chance which of two entries
/// for one address is taken, here it is the one that is more alive.
pub fn endpoints<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    port: &ServicePort,
    family: Family,
    node: &str,
) -> Vec<PortEndpoint<'a>> {
    let mut found = BTreeMap::new();
    for slice in slices.filter(|slice| Family::of_slice(slice.address_type) == Some(family)) {
        for number in numbers(slice, port) {
            for endpoint in slice.endpoints.iter().filter_map(|e| port_endpoint(e, number, family, node)) {
                match found.entry(endpoint.addr) {
                    Entry::Vacant(entry) => {
                        entry.insert(endpoint);
                    }
                    Entry::Occupied(mut entry) => {
                        if endpoint.rank() > entry.get().rank() {
                            entry.insert(endpoint);
                        }
                    }
                }
            }
        }
    }
    found.into_values().collect()
}

/// The port numbers that a slice has for a service port.
pub(super) fn numbers(slice: &EndpointSlice, port: &ServicePort) -> impl Iterator<Item = u16> {
    let ports = slice.ports.iter().filter(|p| p.name.as_ref() == Some(&port.name) && p.protocol == port.protocol);
    ports.filter_map(|p| p.port).filter(|number| *number != 0)
}

/// An endpoint behind a port number, unless it has no address of the family.
fn port_endpoint<'a>(endpoint: &'a Endpoint, port: u16, family: Family, node: &str) -> Option<PortEndpoint<'a>> {
    let ip = *endpoint.addresses.first()?;
    if Family::of(&ip) != family || ip.is_unspecified() {
        return None;
    }
    Some(PortEndpoint {
        addr: BackendAddr { ip, port },
        local: endpoint.node_name.as_deref() == Some(node),
        ready: endpoint.ready,
        serving: endpoint.serving,
        terminating: endpoint.terminating,
        node_hints: &endpoint.node_hints,
        zone_hints: &endpoint.zone_hints,
    })
}
