//! What a service has for clients outside: its external addresses, or, where it has none, its endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_objects::{Protocol, Service, ServiceType};

use super::super::options::Options;
use super::super::outside::{Outside, Target};
use super::endpoints::{Names, Slices, alias, ready_endpoints};
use crate::WireName;

/// Names while they are collected, with how many entries each has.
type Drafts = BTreeMap<WireName, (Outside, usize)>;

/// The names of one service, and the addresses that lead back to it.
pub(super) fn render(
    service: &Service,
    slices: &Slices,
    options: &Options,
) -> (Names<Outside>, BTreeSet<(IpAddr, WireName)>) {
    let Some(base) =
        WireName::parse(".").ok().and_then(|root| root.below(&[&service.key.name, &service.key.namespace]))
    else {
        return <(Names<Outside>, _)>::default();
    };
    let balancers = service.load_balancer.iter().map(|entry| entry.ip);
    let addresses: BTreeSet<IpAddr> = service.external_ips.iter().copied().chain(balancers).collect();
    let name = service.load_balancer_names.iter().find_map(|name| alias(name));
    let mut drafts = Drafts::new();
    match name.filter(|_| addresses.is_empty()) {
        Some(name) => named(&mut drafts, service, &base, &name),
        None if addresses.is_empty() => endpoints(&mut drafts, service, slices, &base, options),
        None => addressed(&mut drafts, service, &base, &addresses),
    }
    let pointers = addresses.into_iter().map(|address| (address, base.clone())).collect();
    (drafts.into_iter().map(|(name, (draft, entries))| (name, Arc::new(draft.finish(entries)))).collect(), pointers)
}

/// The name of a named port.
fn port_name(base: &WireName, name: &str, protocol: Protocol) -> Option<WireName> {
    base.below(&[&format!("_{name}"), &format!("_{}", protocol.as_str())]).filter(|_| !name.is_empty())
}

fn addressed(drafts: &mut Drafts, service: &Service, base: &WireName, addresses: &BTreeSet<IpAddr>) {
    for (port, address) in service.ports.iter().flat_map(|port| addresses.iter().map(move |address| (port, *address))) {
        for name in [Some(base.clone()), port_name(base, &port.name, port.protocol)].into_iter().flatten() {
            let (draft, entries) = drafts.entry(name).or_default();
            draft.address(address);
            draft.srv.push((Target::Below(base.clone()), port.port));
            *entries += 1;
        }
    }
}

fn named(drafts: &mut Drafts, service: &Service, base: &WireName, balancer: &WireName) {
    for port in &service.ports {
        for name in [Some(base.clone()), port_name(base, &port.name, port.protocol)].into_iter().flatten() {
            let (draft, entries) = drafts.entry(name).or_default();
            draft.alias = Some(balancer.clone());
            draft.srv.push((Target::Elsewhere(balancer.clone()), port.port));
            *entries += 1;
        }
    }
}

fn endpoints(drafts: &mut Drafts, service: &Service, slices: &Slices, base: &WireName, options: &Options) {
    if service.service_type == ServiceType::ExternalName || !options.endpoints {
        return;
    }
    for (endpoint, ports) in ready_endpoints(base, slices, options.endpoint_pod_names) {
        let mut add = |name: WireName, port: Option<u16>| {
            let (draft, entries) = drafts.entry(name).or_default();
            draft.endpoint = true;
            draft.address(endpoint.address);
            draft.srv.extend(port.map(|port| (Target::Below(endpoint.name.clone()), port)));
            *entries += 1;
        };
        let numbers: Vec<Option<u16>> =
            if ports.is_empty() { vec![None] } else { ports.iter().map(|(_, _, port)| Some(*port)).collect() };
        for port in numbers {
            add(endpoint.name.clone(), port);
            if service.headless {
                add(base.clone(), port);
            }
        }
        for (name, protocol, port) in ports.iter().filter(|_| service.headless) {
            if let Some(name) = port_name(base, name, *protocol) {
                add(name, Some(*port));
            }
        }
    }
}
