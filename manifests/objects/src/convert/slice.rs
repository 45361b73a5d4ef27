//! EndpointSlices.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1;

use super::problem::{At, Problem};
use super::{Converted, Error, Slim, meta};
use crate::{AddressType, Endpoint, EndpointPort, EndpointSlice, Kind, Object, ObjectKey};

/// The label with the name of the service that a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The annotation with the time of what led to the last change. Nothing but a metric depends on it, so what can't be
/// read is passed over.
const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";

impl Slim for v1::EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;

    fn slim(&self) -> Converted {
        let key = meta::key(&self.metadata)?;
        let address_type = address_type(&self.address_type).at(|| "addressType".to_owned())?;
        let endpoints = match address_type {
            AddressType::Fqdn => Vec::new(),
            _ => {
                let all = self.endpoints.iter().enumerate();
                all.map(|(i, from)| endpoint(from, address_type, &key, i)).collect::<Result<_, _>>()?
            }
        };
        let slice = EndpointSlice {
            service_name: meta::label(&self.metadata, SERVICE_NAME).filter(|name| !name.is_empty()),
            address_type,
            ports: ports(self.ports.as_deref().unwrap_or_default())?,
            endpoints,
            triggered: meta::annotation(&self.metadata, TRIGGERED).and_then(|time| time.parse().ok()),
            key,
        };
        Ok((Object::EndpointSlice(slice), Vec::new()))
    }
}

fn address_type(text: &str) -> Result<AddressType, Problem> {
    match text {
        "IPv4" => Ok(AddressType::Ipv4),
        "IPv6" => Ok(AddressType::Ipv6),
        "FQDN" => Ok(AddressType::Fqdn),
        other => Err(Problem::Choice(other.to_owned(), "IPv4, IPv6 or FQDN")),
    }
}

/// The ports. An absent name is the empty one (`SetDefaults_EndpointPort` of pkg/apis/discovery/v1).
fn ports(from: &[v1::EndpointPort]) -> Result<Vec<EndpointPort>, Error> {
    let ports = from.iter().enumerate();
    ports
        .map(|(i, from)| {
            Ok(EndpointPort {
                name: Some(from.name.clone().unwrap_or_default()),
                protocol: meta::protocol(from.protocol.as_deref()).at(|| format!("ports[{i}].protocol"))?,
                port: meta::optional_port(from.port).at(|| format!("ports[{i}].port"))?,
            })
        })
        .collect()
}

fn endpoint(from: &v1::Endpoint, kind: AddressType, slice: &ObjectKey, index: usize) -> Result<Endpoint, Error> {
    let conditions = from.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let hints = from.hints.as_ref();
    Ok(Endpoint {
        addresses: addresses(&from.addresses, kind, index)?,
        ready,
        serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        hostname: from.hostname.clone().filter(|name| !name.is_empty()),
        node_name: from.node_name.clone().filter(|name| !name.is_empty()),
        zone: from.zone.clone().filter(|zone| !zone.is_empty()),
        zone_hints: hints.iter().flat_map(|h| &h.for_zones).flatten().map(|zone| zone.name.clone()).collect(),
        node_hints: hints.iter().flat_map(|h| &h.for_nodes).flatten().map(|node| node.name.clone()).collect(),
        pod: pod(from, slice),
    })
}

fn addresses(texts: &[String], kind: AddressType, index: usize) -> Result<Vec<IpAddr>, Error> {
    if texts.is_empty() {
        return Err(Problem::Empty.at(format!("endpoints[{index}].addresses")));
    }
    let addresses = texts.iter().enumerate();
    addresses
        .map(|(i, text)| {
            let ip = meta::ip(text).and_then(|ip| match (kind, ip) {
                (AddressType::Ipv4, IpAddr::V6(_)) => Err(Problem::Family(text.clone(), "IPv4")),
                (AddressType::Ipv6, IpAddr::V4(_)) => Err(Problem::Family(text.clone(), "IPv6")),
                _ => Ok(ip),
            });
            ip.at(|| format!("endpoints[{index}].addresses[{i}]"))
        })
        .collect()
}

fn pod(from: &v1::Endpoint, slice: &ObjectKey) -> Option<ObjectKey> {
    let target = from.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"))?;
    let namespace = target.namespace.as_deref().filter(|ns| !ns.is_empty()).unwrap_or(&slice.namespace);
    Some(ObjectKey::new(namespace, target.name.as_deref().filter(|name| !name.is_empty())?))
}
