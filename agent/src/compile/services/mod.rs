//! Services: which endpoints each service port has, for each scope.
//!
//! [`compile_service`] looks at one service and its slices, so the cost of a change is that of the services it touches.

mod categorize;
mod content;
mod contested;
mod endpoints;
mod external;
mod host_ports;
mod node_local_dns;
#[cfg(test)]
mod tests;

use fairlead_datapath::service::FrontendKey;
use fairlead_datapath::{Addr, WirePort};
use fairlead_objects::{EndpointSlice, Node, Service, ServicePort};

pub use categorize::{Categories, categorize};
pub use content::{
    Answer, BackendAddr, Family, FrontendKind, FrontendPolicy, PortContent, PortKey, Rank, ServiceContent,
};
pub use contested::{Claimant, Contested};
pub use endpoints::{PortEndpoint, endpoints};
pub use host_ports::{compile_host_ports, host_ports_key, pod_of_host_ports};
pub use node_local_dns::add_node_local_dns;

/// Where this node is, for what is chosen by place. When it changes, every service is compiled again (S32).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The node's name.
    pub node: String,
    /// The zone that its Node object names.
    pub zone: Option<String>,
}

impl Place {
    /// The place of the node with this name, as far as its object is known.
    #[must_use]
    pub fn new(name: &str, node: Option<&Node>) -> Self {
        Self { node: name.to_owned(), zone: node.and_then(|n| n.zone.clone()) }
    }
}

/// The wanted content of the tables for one service, from all EndpointSlices that name it; others are passed over.
///
/// A service that is not proxied has none: headless and ExternalName ones (S14), and those of another proxy (S15).
/// Families are handled independently (S16).
#[must_use]
pub fn compile_service<'a, I>(service: &Service, slices: I, place: &Place) -> ServiceContent
where
    I: IntoIterator<Item = &'a EndpointSlice>,
{
    let mut content = ServiceContent::default();
    if !service.is_proxied() {
        return content;
    }
    let slices: Vec<_> = slices.into_iter().filter(|slice| belongs(slice, service)).collect();
    for port in &service.ports {
        for family in [Family::V4, Family::V6] {
            let frontends: Vec<_> = cluster_frontends(service, port, family).collect();
            // A service has the families of its cluster addresses.
            if frontends.is_empty() {
                continue;
            }
            let endpoints = endpoints(slices.iter().copied(), port, family, &place.node);
            let categories = categorize(&endpoints, place);
            let key =
                PortKey { service: service.key.clone(), port: port.name.clone(), protocol: port.protocol, family };
            let content = content.ports.entry(key).or_insert_with(|| PortContent {
                affinity_seconds: service.affinity_seconds.unwrap_or(0),
                cluster: categories.cluster_answer(),
                local: categories.local_answer(),
                in_service: endpoints.iter().filter(|e| e.ready || e.serving).map(|e| e.addr).collect(),
                ending: endpoints.iter().filter(|e| !e.ready && e.is_last_resort()).map(|e| e.addr).collect(),
                source_ranges: external::source_ranges(service, family),
                created: service.created,
                frontends: Default::default(),
            });
            for (key, policy) in frontends.into_iter().chain(external::frontends(service, port, family, &slices)) {
                // An address that is given twice is what goes first: a load balancer's may be the cluster address
                // (`minikube tunnel`), and an external one the load balancer's, whose source ranges hold.
                let first = content.frontends.entry(key).or_insert(policy);
                if policy.kind < first.kind {
                    *first = policy;
                }
            }
        }
    }
    content.ports.values_mut().for_each(PortContent::forget_unused_ranges);
    content
}

/// The frontends of a port's cluster addresses. Whoever comes to them from outside gets what pods get (S17): external
/// policy is for addresses that are meant for the outside.
fn cluster_frontends(
    service: &Service,
    port: &ServicePort,
    family: Family,
) -> impl Iterator<Item = (FrontendKey, FrontendPolicy)> {
    let both = service.internal_traffic_policy;
    let policy = FrontendPolicy { kind: FrontendKind::Cluster, inside: both, outside: both, guarded: false };
    let addresses = service.cluster_ips.iter().filter(move |ip| Family::of(ip) == family && !ip.is_unspecified());
    addresses
        .map(move |ip| (FrontendKey::new(Addr::from(*ip), WirePort::new(port.port), port.protocol.number()), policy))
}

/// Whether a slice is of this service.
fn belongs(slice: &EndpointSlice, service: &Service) -> bool {
    slice.key.namespace == service.key.namespace && slice.service_name.as_deref() == Some(service.key.name.as_str())
}
