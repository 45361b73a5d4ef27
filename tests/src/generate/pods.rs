//! The pods that workloads make, bound to nodes and running.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodIP, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::manifests::{Pods, Workload};
use super::nodes::{Place, Topology};

/// Binds pods to nodes in turn and gives them addresses.
#[derive(Debug)]
struct Scheduler<'a> {
    nodes: &'a [Place],
    next: usize,
    /// How many pods each node has that have addresses of their own.
    taken: BTreeMap<u8, u8>,
}

/// Makes the pods of all workloads.
///
/// # Errors
/// When there is no node, or one has more pods than its IPv4 prefix has addresses.
pub(super) fn pods(workloads: &[Workload], topology: &Topology) -> Result<Vec<Pod>> {
    let mut scheduler = Scheduler { nodes: &topology.nodes, next: 0, taken: BTreeMap::new() };
    let mut pods = Vec::new();
    for workload in workloads {
        match &workload.pods {
            Pods::Replicas(count) => {
                for number in 1..=*count {
                    let place = scheduler.next()?;
                    pods.push(scheduler.pod(workload, &format!("{}-{number}", workload.name), None, place)?);
                }
            }
            Pods::Ordered(count, service) => {
                for number in 0..*count {
                    let place = scheduler.next()?;
                    let name = format!("{}-{number}", workload.name);
                    pods.push(scheduler.pod(workload, &name, service.as_deref(), place)?);
                }
            }
            Pods::EveryNode => {
                for place in &topology.nodes {
                    let name = format!("{}-{}", workload.name, place.name);
                    pods.push(scheduler.pod(workload, &name, None, place)?);
                }
            }
        }
    }
    Ok(pods)
}

impl<'a> Scheduler<'a> {
    fn next(&mut self) -> Result<&'a Place> {
        let place = self.nodes.get(self.next % self.nodes.len().max(1)).context("a cluster needs a node")?;
        self.next += 1;
        Ok(place)
    }

    fn pod(&mut self, workload: &Workload, name: &str, subdomain: Option<&str>, place: &Place) -> Result<Pod> {
        let template = workload.template.spec.as_ref().context("a pod template without spec")?;
        let host_network = template.host_network.unwrap_or(false);
        let (ipv4, ipv6) = if host_network { (place.ipv4(), place.ipv6()) } else { self.addresses(place)? };
        let metadata = workload.template.metadata.clone().unwrap_or_default();
        Ok(Pod {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(workload.namespace.clone()),
                uid: Some(uid(&workload.namespace, name)),
                labels: metadata.labels,
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                containers: template.containers.iter().map(bare).collect(),
                init_containers: template.init_containers.as_ref().map(|all| all.iter().map(bare).collect()),
                host_network: host_network.then_some(true),
                hostname: subdomain.map(|_| name.to_owned()),
                subdomain: subdomain.map(str::to_owned),
                node_name: Some(place.name.clone()),
                ..PodSpec::default()
            }),
            status: Some(PodStatus {
                phase: Some("Running".to_owned()),
                conditions: Some(vec![PodCondition {
                    type_: "Ready".to_owned(),
                    status: "True".to_owned(),
                    ..PodCondition::default()
                }]),
                host_ip: Some(place.ipv4().to_string()),
                pod_ip: Some(ipv4.to_string()),
                pod_ips: Some(vec![PodIP { ip: ipv4.to_string() }, PodIP { ip: ipv6.to_string() }]),
                ..PodStatus::default()
            }),
        })
    }

    fn addresses(&mut self, place: &Place) -> Result<(std::net::Ipv4Addr, std::net::Ipv6Addr)> {
        let taken = self.taken.entry(place.number).or_default();
        let addresses = place.pod_ips(*taken);
        *taken = taken.checked_add(1).filter(|taken| *taken < 240).context("a node has at most 240 pods")?;
        Ok(addresses)
    }
}

/// A container without what only a kubelet needs.
fn bare(container: &Container) -> Container {
    Container {
        name: container.name.clone(),
        image: container.image.clone(),
        ports: container.ports.clone(),
        restart_policy: container.restart_policy.clone(),
        ..Container::default()
    }
}

/// A name's uid, the same each time: the name hashed (FNV-1a, 128 bits) in the form of a UUID of version 8 (RFC 9562).
fn uid(namespace: &str, name: &str) -> String {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in namespace.bytes().chain([b'/']).chain(name.bytes()) {
        hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    let hex = format!("{hash:032x}");
    format!("{}-{}-8{}-8{}-{}", &hex[0..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}
