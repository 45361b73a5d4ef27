//! What is rendered: the slices of a service, its endpoints, and the names that they and their targets have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_objects::{AddressType, Endpoint, EndpointSlice, ObjectKey, Protocol};

use crate::WireName;

/// The slices of one service.
pub(in crate::zone) type Slices = BTreeMap<ObjectKey, EndpointSlice>;

/// What is at which name.
pub(in crate::zone) type Names<T> = BTreeMap<WireName, Arc<T>>;

#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndpointName {
    pub(super) name: WireName,
    pub(super) address: IpAddr,
}

pub(super) type Ports = BTreeSet<(String, Protocol, u16)>;

/// Ready endpoints, each once with the ports of every slice that names it: while a slice is split, an endpoint may be
/// in two.
pub(super) fn ready_endpoints(base: &WireName, slices: &Slices, pod_names: bool) -> BTreeMap<EndpointName, Ports> {
    let mut endpoints: BTreeMap<EndpointName, Ports> = BTreeMap::new();
    for slice in slices.values().filter(|slice| slice.address_type != AddressType::Fqdn) {
        let ports = slice
            .ports
            .iter()
            .filter_map(|p| Some((p.name.clone().unwrap_or_default(), p.protocol, p.port.filter(|n| *n != 0)?)));
        let ports: Ports = ports.collect();
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
            for address in &endpoint.addresses {
                let Some(name) = endpoint_name(base, endpoint, *address, pod_names) else { continue };
                let known = endpoints.entry(EndpointName { name, address: *address }).or_default();
                known.extend(ports.iter().cloned());
            }
        }
    }
    endpoints
}

/// The endpoint's hostname where it has a usable one, else its pod's name if that is wanted, else its address with dashes.
fn endpoint_name(base: &WireName, endpoint: &Endpoint, address: IpAddr, pod_names: bool) -> Option<WireName> {
    // An underscore in front would make it the name of a port; a dot would make it two labels.
    let hostname = endpoint.hostname.as_deref().filter(|h| !h.starts_with('_') && !h.contains('.'));
    let pod = endpoint.pod.as_ref().filter(|pod| pod_names && !pod.name.contains('.'));
    let named = hostname.or(pod.map(|pod| pod.name.as_str())).and_then(|name| base.below(&[name]));
    named.or_else(|| base.below(&[&dashed(address)]))
}

/// `172-0-0-2` or `5678-abcd--1`; a dash at the end gets a `0`, as in CoreDNS.
fn dashed(address: IpAddr) -> String {
    let mut text = address.to_string().replace(['.', ':'], "-");
    if text.ends_with('-') {
        text.push('0');
    }
    text
}

/// The target of an ExternalName service. An address is no name: such a service has no record.
pub(super) fn alias(external_name: &str) -> Option<WireName> {
    if external_name.is_empty() || external_name.parse::<IpAddr>().is_ok() {
        return None;
    }
    WireName::parse(external_name).ok().filter(|name| name.as_wire().len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_labels() {
        for (address, label) in
            [("172.0.0.2", "172-0-0-2"), ("5678:abcd::1", "5678-abcd--1"), ("fd00::", "fd00--0"), ("::1", "--1")]
        {
            assert_eq!(dashed(address.parse().unwrap()), label);
        }
    }
}
