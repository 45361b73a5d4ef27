//! From one service and its slices to names and facts. Pure.

mod endpoints;
mod outside;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use fairlead_objects::{Protocol, Service, ServiceType};

pub(super) use self::endpoints::{Names, Slices};
use self::endpoints::{alias, ready_endpoints};
use super::facts::{Facts, Pointer, Srv};
use super::options::Options;
use super::outside::Outside;
use crate::WireName;

/// Everything that one service puts into the zone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) names: Names<Facts>,
    pub(super) pointers: BTreeSet<(IpAddr, Pointer)>,
    pub(super) outside: Names<Outside>,
    pub(super) outside_pointers: BTreeSet<(IpAddr, WireName)>,
}

/// Facts while they are collected; `entries` decide the weights of SRV records.
#[derive(Default)]
struct Draft {
    v4: BTreeSet<Ipv4Addr>,
    v6: BTreeSet<Ipv6Addr>,
    srv: BTreeSet<(WireName, u16)>,
    alias: Option<WireName>,
    entries: usize,
}

impl Draft {
    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => drop(self.v4.insert(v4)),
            IpAddr::V6(v6) => drop(self.v6.insert(v6)),
        }
    }

    fn finish(self) -> Facts {
        // CoreDNS shares 100 among everything that the name leads to, before duplicates are left out.
        let weight = u16::try_from(100 / self.entries.max(1)).unwrap_or(1).max(1);
        Facts {
            v4: self.v4.into_iter().collect(),
            v6: self.v6.into_iter().collect(),
            srv: self.srv.into_iter().map(|(target, port)| Srv { target, port, weight }).collect(),
            alias: self.alias,
        }
    }
}

/// The names of one service below `svc`, the name `svc.<zone>`, and those for the outside if they are wanted. A service
/// whose own names can't be names gives none.
pub(super) fn render(svc: &WireName, service: &Service, slices: &Slices, options: &Options) -> Rendered {
    let mut rendered = inside(svc, service, slices, options);
    if options.outside {
        (rendered.outside, rendered.outside_pointers) = outside::render(service, slices, options);
    }
    rendered
}

fn inside(svc: &WireName, service: &Service, slices: &Slices, options: &Options) -> Rendered {
    let Some(base) = svc.below(&[&service.key.name, &service.key.namespace]) else {
        return Rendered::default();
    };
    let mut drafts: BTreeMap<WireName, Draft> = BTreeMap::new();
    let mut pointers = BTreeSet::new();
    if service.service_type == ServiceType::ExternalName {
        drafts.entry(base).or_default().alias = service.external_name.as_deref().and_then(alias);
        return finish(drafts, pointers);
    }
    let none = Slices::new();
    let endpoints = ready_endpoints(&base, if options.endpoints { slices } else { &none }, options.endpoint_pod_names);
    for (endpoint, ports) in &endpoints {
        let own = drafts.entry(endpoint.name.clone()).or_default();
        own.address(endpoint.address);
        own.entries += ports.len();
        own.srv.extend(ports.iter().map(|(_, _, port)| (endpoint.name.clone(), *port)));
        pointers.insert((endpoint.address, Pointer::Endpoint(endpoint.name.clone())));
    }
    if service.headless {
        for (endpoint, ports) in &endpoints {
            let at_base = drafts.entry(base.clone()).or_default();
            at_base.address(endpoint.address);
            at_base.entries += ports.len().max(1);
            at_base.srv.extend(ports.iter().map(|(_, _, port)| (endpoint.name.clone(), *port)));
            for (name, protocol, port) in ports {
                port_entry(&mut drafts, &base, name, *protocol, (&endpoint.name, *port), endpoint.address);
            }
        }
    } else {
        let at_base = drafts.entry(base.clone()).or_default();
        for address in &service.cluster_ips {
            at_base.address(*address);
            at_base.entries += service.ports.len();
            at_base.srv.extend(service.ports.iter().map(|port| (base.clone(), port.port)));
            pointers.insert((*address, Pointer::Service(base.clone())));
        }
        for (port, address) in service.ports.iter().flat_map(|p| service.cluster_ips.iter().map(move |ip| (p, ip))) {
            port_entry(&mut drafts, &base, &port.name, port.protocol, (&base, port.port), *address);
        }
    }
    if endpoints.is_empty() && !options.empty_services {
        drafts.clear();
    }
    finish(drafts, pointers)
}

fn finish(drafts: BTreeMap<WireName, Draft>, pointers: BTreeSet<(IpAddr, Pointer)>) -> Rendered {
    let names = drafts.into_iter().map(|(name, draft)| (name, Arc::new(draft.finish()))).collect();
    Rendered { names, pointers, ..Rendered::default() }
}

/// Adds `_port._protocol` and, so that no name hangs in the air (RFC 8020), `_protocol`.
fn port_entry(
    drafts: &mut BTreeMap<WireName, Draft>,
    base: &WireName,
    name: &str,
    protocol: Protocol,
    target: (&WireName, u16),
    address: IpAddr,
) {
    let protocol = format!("_{}", protocol.as_str());
    let Some(parent) = base.below(&[&protocol]) else { return };
    // A port without a name has no name in DNS either.
    let Some(own) = Some(name).filter(|n| !n.is_empty()).and_then(|n| parent.below(&[&format!("_{n}")])) else {
        return;
    };
    drafts.entry(parent).or_default();
    let draft = drafts.entry(own).or_default();
    draft.address(address);
    draft.entries += 1;
    draft.srv.insert((target.0.clone(), target.1));
}
