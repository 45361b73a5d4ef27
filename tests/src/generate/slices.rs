//! The EndpointSlices of services, as the endpointslice controller makes them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ContainerPort, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::nodes::{Place, Topology};

/// Both families, with the end of a slice's name.
const FAMILIES: [(&str, &str); 2] = [("IPv4", "ipv4"), ("IPv6", "ipv6")];

/// Makes the slices of all services: one for each family and for each set of port numbers that the pods' named ports give.
/// A service that selects no pod has an empty slice for each family.
///
/// # Errors
/// When an object lacks what every object has.
pub(super) fn slices(services: &[Service], pods: &[Pod], topology: &Topology) -> Result<Vec<EndpointSlice>> {
    let mut slices = Vec::new();
    for service in services {
        let Some(selector) = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else { continue };
        let selects = |pod: &&Pod| {
            let labels = pod.metadata.labels.as_ref();
            let has = |key, value| labels.and_then(|labels| labels.get(key)) == Some(value);
            pod.metadata.namespace == service.metadata.namespace && selector.iter().all(|(key, value)| has(key, value))
        };
        let members: Vec<&Pod> = pods.iter().filter(selects).collect();
        for (index, (family, suffix)) in FAMILIES.into_iter().enumerate() {
            slices.extend(family_slices(service, &members, topology, (index, family, suffix))?);
        }
    }
    Ok(slices)
}

fn family_slices(
    service: &Service,
    members: &[&Pod],
    topology: &Topology,
    (index, family, suffix): (usize, &str, &str),
) -> Result<Vec<EndpointSlice>> {
    let service_ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let mut groups: BTreeMap<Vec<i32>, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
    for pod in members {
        let ports: Vec<EndpointPort> = service_ports.iter().filter_map(|port| endpoint_port(port, pod)).collect();
        let numbers = ports.iter().filter_map(|port| port.port).collect();
        let group = groups.entry(numbers).or_insert_with(|| (ports, Vec::new()));
        group.1.push(endpoint(service, pod, topology, index)?);
    }
    if groups.is_empty() {
        groups.insert(Vec::new(), (Vec::new(), Vec::new()));
    }
    let name = service.metadata.name.as_deref().context("a Service without name")?;
    let groups = groups.into_values().enumerate();
    let slice = |(i, (ports, endpoints)): (usize, (Vec<EndpointPort>, Vec<Endpoint>))| EndpointSlice {
        metadata: metadata(service, if i == 0 { format!("{name}-{suffix}") } else { format!("{name}-{suffix}-{i}") }),
        address_type: family.to_owned(),
        ports: (!ports.is_empty()).then_some(ports),
        endpoints,
    };
    Ok(groups.map(slice).collect())
}

fn metadata(service: &Service, name: String) -> ObjectMeta {
    let mut labels = BTreeMap::from([
        ("endpointslice.kubernetes.io/managed-by".to_owned(), "endpointslice-controller.k8s.io".to_owned()),
        ("kubernetes.io/service-name".to_owned(), service.metadata.name.clone().unwrap_or_default()),
    ]);
    if is_headless(service) {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    let namespace = service.metadata.namespace.clone();
    ObjectMeta { name: Some(name), namespace, labels: Some(labels), ..ObjectMeta::default() }
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// The port of a pod behind a service's port, or nothing when the pod has no port of that name and protocol.
fn endpoint_port(port: &ServicePort, pod: &Pod) -> Option<EndpointPort> {
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named_port(pod, name, protocol(port.protocol.as_deref()))?,
    };
    Some(EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(number),
        protocol: Some(protocol(port.protocol.as_deref()).to_owned()),
        app_protocol: port.app_protocol.clone(),
    })
}

fn named_port(pod: &Pod, name: &str, wanted: &str) -> Option<i32> {
    let mut ports = pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|c| c.ports.iter().flatten());
    let is_it =
        |port: &&ContainerPort| port.name.as_deref() == Some(name) && protocol(port.protocol.as_deref()) == wanted;
    ports.find(is_it).map(|port| port.container_port)
}

fn protocol(text: Option<&str>) -> &str {
    text.unwrap_or("TCP")
}

fn endpoint(service: &Service, pod: &Pod, topology: &Topology, family: usize) -> Result<Endpoint> {
    let spec = pod.spec.as_ref().context("a Pod without spec")?;
    let place = topology.nodes.iter().find(|place| Some(&place.name) == spec.node_name.as_ref());
    let place = place.context("a Pod on no node")?;
    let ips = pod.status.as_ref().and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
    let in_domain = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    Ok(Endpoint {
        addresses: ips.iter().skip(family).take(1).map(|ip| ip.ip.clone()).collect(),
        conditions: Some(EndpointConditions { ready: Some(true), serving: Some(true), terminating: Some(false) }),
        hints: hints(service, place),
        hostname: spec.hostname.clone().filter(|_| in_domain),
        node_name: Some(place.name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone: Some(place.zone.clone()),
        deprecated_topology: None,
    })
}

/// What `trafficDistribution` gives (KEP-3015, KEP-4444).
fn hints(service: &Service, place: &Place) -> Option<EndpointHints> {
    let zones = Some(vec![ForZone { name: place.zone.clone() }]);
    let nodes = Some(vec![ForNode { name: place.name.clone() }]);
    match service.spec.as_ref()?.traffic_distribution.as_deref()? {
        "PreferSameNode" => Some(EndpointHints { for_nodes: nodes, for_zones: zones }),
        "PreferSameZone" | "PreferClose" => Some(EndpointHints { for_nodes: None, for_zones: zones }),
        _ => None,
    }
}
