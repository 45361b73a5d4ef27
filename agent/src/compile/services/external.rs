//! The addresses of a service that are meant for the outside.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fairlead_datapath::service::FrontendKey;
use fairlead_datapath::{Addr, WirePort};
use fairlead_objects::{EndpointSlice, Service, ServicePort, ServiceType, TrafficPolicy};
use ipnetwork::IpNetwork;

use super::endpoints::numbers;
use super::{Family, FrontendKind, FrontendPolicy};

/// The address that stands for every address of the node in a family.
pub(super) fn wildcard(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The frontends of a port for external addresses (S11), those of load balancers that leave them to nodes (S8), and for
/// its NodePort (S4), which a load balancer may do without (S9).
///
/// `externalTrafficPolicy` is for clients outside. Whoever is inside is answered as under policy Cluster, as if the packet
/// had gone out to the load balancer and come back to a node that has an endpoint (S28).
///
/// A NodePort is guarded (S7), unless endpoints have the same number, in whatever family: those may be processes of nodes,
/// which are meant to listen there and take what comes for it.
pub(super) fn frontends(
    service: &Service,
    port: &ServicePort,
    family: Family,
    slices: &[&EndpointSlice],
) -> impl Iterator<Item = (FrontendKey, FrontendPolicy)> {
    let for_nodes = matches!(service.service_type, ServiceType::NodePort | ServiceType::LoadBalancer);
    let external = service.external_ips.iter().copied().filter(move |ip| is_usable(ip, family));
    let external = external.map(|ip| (FrontendKind::External, ip, port.port));
    let balancer = balancers(service, family).map(|ip| (FrontendKind::LoadBalancer, ip, port.port));
    let node_port = port.node_port.filter(|number| for_nodes && *number != 0);
    let node_port = node_port.map(|number| (FrontendKind::NodePort, wildcard(family), number));
    let outside = service.external_traffic_policy;
    let is_listened_at = |number| slices.iter().flat_map(|slice| numbers(slice, port)).any(|other| other == number);
    external.chain(balancer).chain(node_port).map(move |(kind, ip, number)| {
        let key = FrontendKey::new(Addr::from(ip), WirePort::new(number), port.protocol.number());
        let guarded = kind == FrontendKind::NodePort && !is_listened_at(number);
        (key, FrontendPolicy { kind, inside: TrafficPolicy::Cluster, outside, guarded })
    })
}

/// The addresses of load balancers that are left to nodes.
fn balancers(service: &Service, family: Family) -> impl Iterator<Item = IpAddr> {
    let balanced = service.service_type == ServiceType::LoadBalancer;
    let of_nodes = service.load_balancer.iter().filter(move |ingress| balanced && ingress.vip);
    of_nodes.map(|ingress| ingress.ip).filter(move |ip| is_usable(ip, family))
}

fn is_usable(ip: &IpAddr, family: Family) -> bool {
    Family::of(ip) == family && !ip.is_unspecified()
}

/// The source ranges of a family, where there is an address that they are for. A service that has none of this family lets
/// everybody in by it, as upstream (`newBaseServiceInfo` of kubernetes/pkg/proxy/serviceport.go).
pub(super) fn source_ranges(service: &Service, family: Family) -> BTreeSet<IpNetwork> {
    if balancers(service, family).next().is_none() {
        return BTreeSet::new();
    }
    service.source_ranges.iter().copied().filter(|range| Family::of(&range.ip()) == family).collect()
}
