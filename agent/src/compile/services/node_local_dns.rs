//! DNS at an address that is the same on every node, as clusters have it that ran NodeLocal DNSCache: `clusterDNS` of kubelets
//! names it, and pods have it in their resolv.conf for as long as they live.
//!
//! Nobody listens there. It is a frontend more of the DNS Service, so that policies see the pod behind it, and a node whose
//! own DNS pod is away has another's.

use fairlead_datapath::service::FrontendKey;
use fairlead_datapath::{Addr, WirePort};
use fairlead_objects::{EndpointSlice, Protocol, Service, TrafficPolicy};

use super::{Family, FrontendKind, FrontendPolicy, Place, PortKey, ServiceContent, belongs, endpoints};
use crate::model::NodeLocalDns;

/// The port of DNS.
const PORT: u16 = 53;

/// Adds the frontends, if this is the Service: to what is on this node as long as there is a ready endpoint, else to what the
/// cluster address leads to.
pub fn add_node_local_dns(
    content: &mut ServiceContent,
    service: &Service,
    slices: &[&EndpointSlice],
    place: &Place,
    dns: &NodeLocalDns,
) {
    if service.key != dns.service {
        return;
    }
    let ports = service.ports.iter().filter(|port| port.port == PORT && port.protocol != Protocol::Sctp);
    for (port, ip) in ports.flat_map(|port| dns.addresses.iter().map(move |ip| (port, *ip))) {
        let family = Family::of(&ip);
        let key = PortKey { service: service.key.clone(), port: port.name.clone(), protocol: port.protocol, family };
        let Some(content) = content.ports.get_mut(&key) else { continue };
        let slices = slices.iter().copied().filter(|slice| belongs(slice, service));
        let is_here =
            endpoints(slices, port, family, &place.node).iter().any(|endpoint| endpoint.local && endpoint.ready);
        let both = if is_here { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
        let policy = FrontendPolicy { kind: FrontendKind::NodeLocalDns, inside: both, outside: both, guarded: false };
        let key = FrontendKey::new(Addr::from(ip), WirePort::new(PORT), port.protocol.number());
        content.frontends.entry(key).or_insert(policy);
    }
}
