//! `fairlead service list`.

use std::net::SocketAddr;

use fairlead_objects::{ObjectKey, Protocol, Service, ServiceType, TrafficPolicy};

use super::super::ServiceView;
use super::{Content, address, contents, place, word};
use crate::compile::services::{Answer, Family, endpoints};
use crate::model::Model;

/// One row for each port, with the addresses and endpoints of both families; a headless service's has endpoints alone.
pub(in crate::admin) fn list(model: &Model) -> Vec<ServiceView> {
    let place = place(model);
    let mut rows: Vec<ServiceView> = Vec::new();
    for Content { owner, service, name: key, content } in contents(model, &place) {
        let endpoints = match &content.cluster {
            Answer::Forward(chosen) => chosen.len(),
            Answer::Reject | Answer::Drop => 0,
        };
        let addresses: Vec<_> = content.frontends.keys().map(address).collect();
        let port = service.and_then(|service| {
            service.ports.iter().find(|port| port.name == key.port && port.protocol == key.protocol)
        });
        let number = port.map_or_else(|| addresses.first().map_or(0, SocketAddr::port), |port| port.port);
        let row = ServiceView { addresses, ..row(&owner, service, &key.port, key.protocol, number) };
        add(&mut rows, row, key.family, endpoints);
    }
    for service in model.services().filter(|service| service.headless && service.proxy_name.is_none()) {
        let slices = model.slices_of(&service.key);
        for port in &service.ports {
            for family in [Family::V4, Family::V6] {
                let found = endpoints(slices.iter().copied(), port, family, &place.node);
                let ready = found.iter().filter(|endpoint| endpoint.ready).count();
                let row = row(&service.key, Some(service), &port.name, port.protocol, port.port);
                add(&mut rows, row, family, ready);
            }
        }
    }
    rows.sort_by(|a, b| a.service.cmp(&b.service));
    rows
}

/// A row without addresses and endpoints.
fn row(owner: &ObjectKey, service: Option<&Service>, name: &str, protocol: Protocol, port: u16) -> ServiceView {
    let policy = |of: fn(&Service) -> TrafficPolicy| word(service.map_or(TrafficPolicy::Cluster, of)).to_owned();
    ServiceView {
        service: owner.to_string(),
        kind: service.map_or("hostPort", kind).to_owned(),
        port_name: name.to_owned(),
        port,
        addresses: Vec::new(),
        protocol: protocol.to_string(),
        headless: service.is_some_and(|service| service.headless),
        endpoints: 0,
        endpoints_ipv4: 0,
        endpoints_ipv6: 0,
        internal_policy: policy(|service| service.internal_traffic_policy),
        external_policy: policy(|service| service.external_traffic_policy),
    }
}

/// Adds a family's endpoints and addresses to the row of its port. A pod of both families is an endpoint in each, and one.
fn add(rows: &mut Vec<ServiceView>, new: ServiceView, family: Family, endpoints: usize) {
    let same = |old: &ServiceView| {
        (&old.service, &old.port_name, &old.protocol) == (&new.service, &new.port_name, &new.protocol)
    };
    let last = rows.iter().rev().take_while(|old| old.service == new.service).position(same);
    let at = match last {
        Some(back) => {
            let at = rows.len() - 1 - back;
            rows[at].addresses.extend(new.addresses);
            at
        }
        None => {
            rows.push(new);
            rows.len() - 1
        }
    };
    let row = &mut rows[at];
    match family {
        Family::V4 => row.endpoints_ipv4 += endpoints,
        Family::V6 => row.endpoints_ipv6 += endpoints,
    }
    row.endpoints = row.endpoints_ipv4.max(row.endpoints_ipv6);
}

fn kind(service: &Service) -> &'static str {
    match service.service_type {
        ServiceType::ClusterIp => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
        ServiceType::ExternalName => "ExternalName",
    }
}

#[cfg(test)]
mod tests {
    use fairlead_objects::{Event, Kind, read_str};
    use serde_json::json;

    use super::*;

    /// A model that has these objects.
    fn model(objects: &[serde_json::Value]) -> Model {
        let mut model = Model::new("a");
        for object in objects {
            read_str(&object.to_string()).into_iter().for_each(|read| model.take(Event::Applied(read.unwrap())));
        }
        Kind::ALL.into_iter().for_each(|kind| model.take(Event::Synced(kind)));
        model
    }

    fn service(name: &str, ips: &[&str]) -> serde_json::Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name},
            "spec": {
                "clusterIP": ips[0], "clusterIPs": ips, "internalTrafficPolicy": "Cluster",
                "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
            },
        })
    }

    fn slice(service: &str, family: &str, ips: &[&str]) -> serde_json::Value {
        let endpoints: Vec<_> =
            ips.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {
                "namespace": "shop", "name": format!("{service}-{}", family.to_lowercase()),
                "labels": {"kubernetes.io/service-name": service},
            },
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
            "endpoints": endpoints,
        })
    }

    #[test]
    fn a_pod_of_both_families_is_one_endpoint() {
        let objects = [
            service("cart", &["10.96.0.9", "fd00:10:96::9"]),
            slice("cart", "IPv4", &["10.244.0.2", "10.244.0.3"]),
            slice("cart", "IPv6", &["fd00:10:244::2"]),
        ];
        let rows = list(&model(&objects));
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((row.endpoints, row.endpoints_ipv4, row.endpoints_ipv6), (2, 2, 1));
        assert_eq!((row.addresses.len(), row.port, row.headless), (2, 80, false));
    }

    #[test]
    fn headless_services_have_endpoints_and_no_address() {
        let external = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "away"},
            "spec": {"type": "ExternalName", "externalName": "shop.example.org"},
        });
        let objects = [service("db", &["None"]), slice("db", "IPv4", &["10.244.0.2"]), external];
        let rows = list(&model(&objects));
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((row.service.as_str(), row.headless, row.endpoints), ("shop/db", true, 1));
        assert_eq!((row.addresses.as_slice(), row.port), (&[][..], 80));
    }
}
