//! Services.

use std::net::IpAddr;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::problem::{At, Problem, note};
use super::{Converted, Error, Slim, meta};
use crate::{Kind, LoadBalancerIngress, Object, Service, ServicePort, ServiceType, TrafficPolicy};

/// The label of a service that another proxy serves (KEP-2447).
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// The label of a service that no proxy serves (`noHeadlessEndpoints` of cmd/kube-proxy/app/server.go).
const HEADLESS: &str = "service.kubernetes.io/headless";
/// `sessionAffinityConfig.clientIP.timeoutSeconds` when absent, and its greatest value (pkg/apis/core).
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;
const MAX_AFFINITY_SECONDS: u32 = 86_400;

impl Slim for v1::Service {
    const KIND: Kind = Kind::Service;

    fn slim(&self) -> Converted {
        let mut notes = Vec::new();
        let empty = v1::ServiceSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let service_type = service_type(spec.type_.as_deref()).at(|| "spec.type".to_owned())?;
        let (cluster_ips, headless) = match service_type {
            ServiceType::ExternalName => (Vec::new(), false),
            _ => cluster_ips(spec)?,
        };
        if cluster_ips.is_empty() && !headless && service_type != ServiceType::ExternalName {
            notes.push(Problem::NoClusterIp.at("spec.clusterIP"));
        }
        let service = Service {
            key: meta::key(&self.metadata)?,
            created: meta::created(&self.metadata),
            service_type,
            cluster_ips,
            headless,
            external_name: spec.external_name.clone().filter(|_| service_type == ServiceType::ExternalName),
            ports: ports(spec)?,
            affinity_seconds: affinity(spec)?,
            internal_traffic_policy: traffic_policy(spec.internal_traffic_policy.as_deref())
                .at(|| "spec.internalTrafficPolicy".to_owned())?,
            external_traffic_policy: traffic_policy(spec.external_traffic_policy.as_deref())
                .at(|| "spec.externalTrafficPolicy".to_owned())?,
            external_ips: external_ips(spec, &mut notes),
            load_balancer: load_balancer(self.status.as_ref(), &mut notes),
            load_balancer_names: load_balancer_names(self.status.as_ref()),
            source_ranges: source_ranges(spec)?,
            health_check_node_port: meta::optional_port(spec.health_check_node_port)
                .at(|| "spec.healthCheckNodePort".to_owned())?,
            proxy_name: proxy_name(&self.metadata),
        };
        Ok((Object::Service(service), notes))
    }
}

fn service_type(text: Option<&str>) -> Result<ServiceType, Problem> {
    match text {
        None | Some("" | "ClusterIP") => Ok(ServiceType::ClusterIp),
        Some("NodePort") => Ok(ServiceType::NodePort),
        Some("LoadBalancer") => Ok(ServiceType::LoadBalancer),
        Some("ExternalName") => Ok(ServiceType::ExternalName),
        Some(other) => Err(Problem::Choice(other.to_owned(), "ClusterIP, NodePort, LoadBalancer or ExternalName")),
    }
}

/// The cluster addresses, and whether the service is headless.
fn cluster_ips(spec: &v1::ServiceSpec) -> Result<(Vec<IpAddr>, bool), Error> {
    let texts: Vec<&str> = match spec.cluster_ips.as_deref() {
        Some(list) if !list.is_empty() => list.iter().map(String::as_str).collect(),
        _ => spec.cluster_ip.iter().map(String::as_str).collect(),
    };
    if texts.contains(&"None") {
        return Ok((Vec::new(), true));
    }
    let texts = texts.into_iter().filter(|text| !text.is_empty()).enumerate();
    let ips = texts.map(|(i, text)| meta::ip(text).at(|| format!("spec.clusterIPs[{i}]")));
    Ok((ips.collect::<Result<_, _>>()?, false))
}

fn ports(spec: &v1::ServiceSpec) -> Result<Vec<ServicePort>, Error> {
    let ports = spec.ports.iter().flatten().enumerate();
    ports
        .map(|(i, from)| {
            let path = |field: &str| format!("spec.ports[{i}].{field}");
            Ok(ServicePort {
                name: from.name.clone().unwrap_or_default(),
                protocol: meta::protocol(from.protocol.as_deref()).at(|| path("protocol"))?,
                port: meta::port(from.port).at(|| path("port"))?,
                node_port: meta::optional_port(from.node_port).at(|| path("nodePort"))?,
            })
        })
        .collect()
}

fn affinity(spec: &v1::ServiceSpec) -> Result<Option<u32>, Error> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return Ok(None),
        Some("ClientIP") => {}
        Some(other) => {
            return Err(Problem::Choice(other.to_owned(), "None or ClientIP").at("spec.sessionAffinity"));
        }
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let Some(seconds) = config.and_then(|client_ip| client_ip.timeout_seconds) else {
        return Ok(Some(DEFAULT_AFFINITY_SECONDS));
    };
    u32::try_from(seconds)
        .ok()
        .filter(|seconds| (1..=MAX_AFFINITY_SECONDS).contains(seconds))
        .map(Some)
        .ok_or_else(|| Problem::Range(seconds.into(), 1, MAX_AFFINITY_SECONDS.into()))
        .at(|| "spec.sessionAffinityConfig.clientIP.timeoutSeconds".to_owned())
}

fn traffic_policy(text: Option<&str>) -> Result<TrafficPolicy, Problem> {
    match text {
        None | Some("" | "Cluster") => Ok(TrafficPolicy::Cluster),
        Some("Local") => Ok(TrafficPolicy::Local),
        Some(other) => Err(Problem::Choice(other.to_owned(), "Cluster or Local")),
    }
}

fn external_ips(spec: &v1::ServiceSpec, notes: &mut Vec<Error>) -> Vec<IpAddr> {
    let texts = spec.external_ips.iter().flatten().enumerate();
    texts.filter_map(|(i, text)| note(meta::ip(text).at(|| format!("spec.externalIPs[{i}]")), notes)).collect()
}

fn load_balancer(status: Option<&v1::ServiceStatus>, notes: &mut Vec<Error>) -> Vec<LoadBalancerIngress> {
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let entries = balancer.iter().flat_map(|balancer| &balancer.ingress).flatten().enumerate();
    entries
        .filter_map(|(i, entry)| {
            let text = entry.ip.as_deref().filter(|text| !text.is_empty())?;
            let ip = note(meta::ip(text).at(|| format!("status.loadBalancer.ingress[{i}].ip")), notes)?;
            Some(LoadBalancerIngress { ip, vip: matches!(entry.ip_mode.as_deref(), None | Some("VIP")) })
        })
        .collect()
}

fn load_balancer_names(status: Option<&v1::ServiceStatus>) -> Vec<String> {
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let entries = balancer.iter().flat_map(|balancer| &balancer.ingress).flatten();
    let nameless = |text: &&str| !text.is_empty();
    entries
        .filter(|entry| entry.ip.as_deref().is_none_or(str::is_empty))
        .filter_map(|entry| entry.hostname.as_deref().filter(nameless).map(ToOwned::to_owned))
        .collect()
}

/// The ranges. One that can't be read is an error for the whole service: without it everybody might be let in.
fn source_ranges(spec: &v1::ServiceSpec) -> Result<Vec<ipnetwork::IpNetwork>, Error> {
    let texts = spec.load_balancer_source_ranges.iter().flatten().enumerate();
    texts.map(|(i, text)| meta::cidr(text.trim()).at(|| format!("spec.loadBalancerSourceRanges[{i}]"))).collect()
}

fn proxy_name(metadata: &ObjectMeta) -> Option<String> {
    let nobody = || meta::label(metadata, HEADLESS).map(|_| HEADLESS.to_owned());
    meta::label(metadata, PROXY_NAME).or_else(nobody)
}
