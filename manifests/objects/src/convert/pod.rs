//! Pods.

use std::net::IpAddr;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::problem::{At, Problem, note};
use super::{Converted, Error, Slim, meta, quantity};
use crate::{Bandwidth, ContainerPort, Kind, Object, Phase, Pod};

impl Slim for v1::Pod {
    const KIND: Kind = Kind::Pod;

    fn slim(&self) -> Converted {
        let mut notes = Vec::new();
        let spec = self.spec.as_ref();
        let status = self.status.as_ref();
        let pod = Pod {
            key: meta::key(&self.metadata)?,
            uid: self.metadata.uid.clone().unwrap_or_default(),
            created: meta::created(&self.metadata),
            static_uid: static_uid(&self.metadata),
            labels: meta::labels(&self.metadata),
            node_name: spec.and_then(|s| s.node_name.clone()).filter(|name| !name.is_empty()),
            ips: ips(status)?,
            host_network: spec.and_then(|s| s.host_network).unwrap_or(false),
            phase: phase(status.and_then(|s| s.phase.as_deref()), &mut notes),
            terminating: self.metadata.deletion_timestamp.is_some(),
            container_ports: container_ports(spec, &mut notes),
            bandwidth: bandwidth(&self.metadata, &mut notes),
        };
        Ok((Object::Pod(pod), notes))
    }
}

/// What kubelet runs the pod under if it is the mirror of a static pod (`ConfigMirrorAnnotationKey` and
/// `ConfigHashAnnotationKey` in pkg/kubelet/types/pod_update.go). Only the two together make a mirror.
fn static_uid(metadata: &ObjectMeta) -> Option<String> {
    meta::annotation(metadata, "kubernetes.io/config.mirror")?;
    meta::annotation(metadata, "kubernetes.io/config.hash").filter(|hash| !hash.is_empty()).map(str::to_owned)
}

/// Limits of bandwidth, as pkg/util/bandwidth of Kubernetes reads them: quantities of bits a second within bounds.
fn bandwidth(metadata: &ObjectMeta, notes: &mut Vec<Error>) -> Bandwidth {
    const ALLOWED: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;
    let mut limit = |name: &str| {
        let text = meta::annotation(metadata, name)?;
        let value = quantity::value(text).filter(|bits| ALLOWED.contains(bits));
        let problem = || Problem::Bandwidth(text.to_owned()).at(format!("metadata.annotations[{name}]"));
        note(value.ok_or_else(problem), notes)
    };
    Bandwidth { egress: limit("kubernetes.io/egress-bandwidth"), ingress: limit("kubernetes.io/ingress-bandwidth") }
}

fn ips(status: Option<&v1::PodStatus>) -> Result<Vec<IpAddr>, Error> {
    let Some(status) = status else { return Ok(Vec::new()) };
    let list: Vec<IpAddr> = status
        .pod_ips
        .iter()
        .flatten()
        .enumerate()
        .map(|(i, entry)| meta::ip(&entry.ip).at(|| format!("status.podIPs[{i}].ip")))
        .collect::<Result<_, _>>()?;
    match status.pod_ip.as_deref() {
        Some(text) if list.is_empty() && !text.is_empty() => Ok(vec![meta::ip(text).at(|| "status.podIP".to_owned())?]),
        _ => Ok(list),
    }
}

fn phase(text: Option<&str>, notes: &mut Vec<Error>) -> Phase {
    match text {
        None | Some("" | "Pending") => Phase::Pending,
        Some("Running") => Phase::Running,
        Some("Succeeded") => Phase::Succeeded,
        Some("Failed") => Phase::Failed,
        Some("Unknown") => Phase::Unknown,
        Some(other) => {
            let words = "Pending, Running, Succeeded, Failed or Unknown";
            notes.push(Problem::Choice(other.to_owned(), words).at("status.phase"));
            Phase::Unknown
        }
    }
}

/// Ports of containers, and of init containers that run beside them (KEP-753).
fn container_ports(spec: Option<&v1::PodSpec>, notes: &mut Vec<Error>) -> Vec<ContainerPort> {
    let Some(spec) = spec else { return Vec::new() };
    let containers = spec.containers.iter().enumerate().map(|(i, c)| (format!("spec.containers[{i}]"), c));
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .enumerate()
        .filter(|(_, c)| c.restart_policy.as_deref() == Some("Always"))
        .map(|(i, c)| (format!("spec.initContainers[{i}]"), c));
    let mut ports = Vec::new();
    for (path, container) in containers.chain(sidecars) {
        for (i, port) in container.ports.iter().flatten().enumerate() {
            ports.extend(note(container_port(port, &format!("{path}.ports[{i}]")), notes));
        }
    }
    ports
}

fn container_port(from: &v1::ContainerPort, path: &str) -> Result<ContainerPort, Error> {
    let host_ip = from.host_ip.as_deref().filter(|text| !text.is_empty());
    Ok(ContainerPort {
        name: from.name.clone().filter(|name| !name.is_empty()),
        port: meta::port(from.container_port).at(|| format!("{path}.containerPort"))?,
        protocol: meta::protocol(from.protocol.as_deref()).at(|| format!("{path}.protocol"))?,
        host_port: meta::optional_port(from.host_port).at(|| format!("{path}.hostPort"))?,
        host_ip: host_ip.map(meta::ip).transpose().at(|| format!("{path}.hostIP"))?,
    })
}
