//! Which services there are, and what happens to connections to one.

use std::net::SocketAddr;

use fairlead_datapath::Addr;
use fairlead_datapath::service::FrontendKey;
use fairlead_objects::{Service, ServicePort, ServiceType, TrafficPolicy};
use zerocopy::IntoBytes;

use super::{Admin, EndpointView, ServiceExplanation, ServiceView, Verdict};
use crate::compile::services::{Answer, Family, Place, PortEndpoint, compile_service, endpoints};
use crate::model::Model;

fn place(model: &Model) -> Place {
    Place::new(model.node_name(), model.own_node())
}

pub(super) fn list(model: &Model) -> Vec<ServiceView> {
    let place = place(model);
    let rows = model.services().filter(|service| service.is_proxied()).flat_map(|service| {
        let content = compile_service(service, model.slices_of(&service.key), &place);
        service.ports.iter().map(move |port| {
            let of_port =
                content.ports.iter().filter(|(key, _)| key.port == port.name && key.protocol == port.protocol);
            let endpoints = of_port.flat_map(|(_, content)| match &content.cluster {
                Answer::Forward(chosen) => chosen.iter().collect(),
                Answer::Reject | Answer::Drop => Vec::new(),
            });
            ServiceView {
                service: service.key.to_string(),
                kind: kind(service).to_owned(),
                port_name: port.name.clone(),
                addresses: service.cluster_ips.iter().map(|ip| SocketAddr::new(*ip, port.port)).collect(),
                protocol: port.protocol.to_string(),
                endpoints: endpoints.count(),
            }
        })
    });
    rows.collect()
}

fn kind(service: &Service) -> &'static str {
    match service.service_type {
        ServiceType::ClusterIp => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
        ServiceType::ExternalName => "ExternalName",
    }
}

pub(super) fn explain(admin: &Admin, address: SocketAddr) -> Result<Vec<ServiceExplanation>, String> {
    let model = admin.shared.model();
    let with_address: Vec<_> = model.services().filter(|service| service.cluster_ips.contains(&address.ip())).collect();
    let Some(first) = with_address.first() else {
        return Err(format!("no service has the address {}: see `fairlead service list`", address.ip()));
    };
    if let Some(name) = first.proxy_name.as_ref().filter(|_| !first.is_proxied()) {
        return Err(format!("service {} is left to the proxy {name:?} by its label service-proxy-name", first.key));
    }
    let explanations: Vec<_> = with_address
        .iter()
        .flat_map(|service| service.ports.iter().map(move |port| (*service, port)))
        .filter(|(_, port)| port.port == address.port())
        .map(|(service, port)| explain_port(admin, &model, service, port, address))
        .collect();
    if explanations.is_empty() {
        let ports: Vec<_> = first.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol)).collect();
        return Err(format!("service {} has no port {}, only {}", first.key, address.port(), ports.join(", ")));
    }
    Ok(explanations)
}

fn explain_port(
    admin: &Admin,
    model: &Model,
    service: &Service,
    port: &ServicePort,
    address: SocketAddr,
) -> ServiceExplanation {
    let place = place(model);
    let slices = model.slices_of(&service.key);
    let content = compile_service(service, slices.clone(), &place);
    let family = Family::of(&address.ip());
    let compiled = content
        .ports
        .iter()
        .find(|(key, _)| key.port == port.name && key.protocol == port.protocol && key.family == family);
    let policy = service.internal_traffic_policy;
    let answer = compiled.map_or(&Answer::Reject, |(_, content)| content.answer(policy));
    let key = FrontendKey::new(Addr::from(address.ip()), port.port.to_be(), port.protocol.number());
    let in_force = admin.tables.map("FRONTENDS").and_then(|map| map.get(key.as_bytes()));
    let all = endpoints(slices.into_iter(), port, family, &place.node);
    let any_ready = all.iter().any(|endpoint| endpoint.ready);
    let views = all.iter().map(|endpoint| {
        let chosen = matches!(answer, Answer::Forward(set) if set.contains(&endpoint.addr));
        EndpointView {
            address: SocketAddr::new(endpoint.addr.ip, endpoint.addr.port),
            chosen,
            local: endpoint.local,
            why: why(endpoint, chosen, policy, any_ready, &place),
        }
    });
    ServiceExplanation {
        service: service.key.to_string(),
        port_name: port.name.clone(),
        address,
        protocol: port.protocol.to_string(),
        policy: match policy {
            TrafficPolicy::Cluster => "Cluster",
            TrafficPolicy::Local => "Local",
        }
        .to_owned(),
        verdict: match answer {
            Answer::Forward(_) => Verdict::Forward,
            Answer::Reject => Verdict::Reject,
            Answer::Drop => Verdict::Drop,
        },
        in_force: in_force.is_ok_and(|value| value.is_some()),
        endpoints: views.collect(),
    }
}

fn why(e: &PortEndpoint<'_>, chosen: bool, policy: TrafficPolicy, any_ready: bool, place: &Place) -> String {
    match (chosen, e.ready) {
        (true, true) => "ready".to_owned(),
        (true, false) => "it ends, but still serves, and nothing is ready".to_owned(),
        (false, _) if policy == TrafficPolicy::Local && !e.local => {
            "on another node, and internalTrafficPolicy is Local".to_owned()
        }
        (false, true) => {
            let zone = place.zone.as_deref().unwrap_or("no zone");
            let meant = [e.node_hints, e.zone_hints].concat();
            format!("meant for {} (this is {} in {zone})", meant.join(", "), place.node)
        }
        (false, false) if e.is_last_resort() && any_ready => "it ends, and others are ready".to_owned(),
        (false, false) if e.terminating => "it ends and serves no more".to_owned(),
        (false, false) => "not ready".to_owned(),
    }
}
