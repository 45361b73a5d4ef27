//! Nodes.

use std::net::IpAddr;

use k8s_openapi::api::core::v1;

use super::problem::{At, note};
use super::{Converted, Error, Slim, meta};
use crate::{Kind, Node, Object};

/// The label with a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";
/// The taint of a node that the cluster autoscaler is about to delete.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

impl Slim for v1::Node {
    const KIND: Kind = Kind::Node;

    fn slim(&self) -> Converted {
        // Cloud providers write addresses that nobody checks: what can't be read is left out, the node stays.
        let mut notes = Vec::new();
        let node = Node {
            name: meta::name(&self.metadata)?,
            zone: meta::label(&self.metadata, ZONE).filter(|zone| !zone.is_empty()),
            internal_ips: addresses(self, "InternalIP", &mut notes),
            external_ips: addresses(self, "ExternalIP", &mut notes),
            pod_cidrs: pod_cidrs(self.spec.as_ref(), &mut notes),
            labels: meta::labels(&self.metadata),
            leaving: self.metadata.deletion_timestamp.is_some() || is_condemned(self.spec.as_ref()),
        };
        Ok((Object::Node(node), notes))
    }
}

fn addresses(node: &v1::Node, kind: &str, notes: &mut Vec<Error>) -> Vec<IpAddr> {
    let all = node.status.iter().flat_map(|status| &status.addresses).flatten().enumerate();
    all.filter(|(_, address)| address.type_ == kind)
        .filter_map(|(i, a)| note(meta::ip(&a.address).at(|| format!("status.addresses[{i}].address")), notes))
        .collect()
}

fn pod_cidrs(spec: Option<&v1::NodeSpec>, notes: &mut Vec<Error>) -> Vec<ipnetwork::IpNetwork> {
    let Some(spec) = spec else { return Vec::new() };
    let all: Vec<&String> = match &spec.pod_cidrs {
        Some(list) if !list.is_empty() => list.iter().collect(),
        _ => spec.pod_cidr.iter().filter(|cidr| !cidr.is_empty()).collect(),
    };
    all.into_iter()
        .enumerate()
        .filter_map(|(i, text)| note(meta::cidr(text).at(|| format!("spec.podCIDRs[{i}]")), notes))
        .collect()
}

fn is_condemned(spec: Option<&v1::NodeSpec>) -> bool {
    spec.iter().flat_map(|spec| &spec.taints).flatten().any(|taint| taint.key == TO_BE_DELETED)
}
