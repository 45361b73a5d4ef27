//! Nodes.

use std::net::IpAddr;

use k8s_openapi::api::core::v1;

use super::problem::{At, Problem, note};
use super::{Converted, Error, Slim, meta};
use crate::node::{Annotated, POD_CIDRS};
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
        let pod_cidrs = pod_cidrs(self.spec.as_ref(), &mut notes);
        let node = Node {
            name: meta::name(&self.metadata)?,
            zone: meta::label(&self.metadata, ZONE).filter(|zone| !zone.is_empty()),
            internal_ips: addresses(self, "InternalIP", &mut notes),
            external_ips: addresses(self, "ExternalIP", &mut notes),
            annotated: note(annotated(self, &pod_cidrs), &mut notes).flatten(),
            pod_cidrs,
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

/// All of it or nothing: half of the ranges would be an answer that nobody gave.
fn annotated(node: &v1::Node, pod_cidrs: &[ipnetwork::IpNetwork]) -> Result<Option<Annotated>, Error> {
    let Some(text) = meta::annotation(&node.metadata, POD_CIDRS).map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let problem = |problem: Problem| problem.at(format!("metadata.annotations[{POD_CIDRS}]"));
    let ranges: Result<Vec<_>, _> = text.split(',').map(|part| meta::cidr(part.trim())).collect();
    let ranges = ranges.map_err(|_| problem(Problem::Ranges(text.to_owned())))?;
    let of_family = |v4: bool| ranges.iter().filter(|range| range.is_ipv4() == v4).count();
    if of_family(true) > 1 || of_family(false) > 1 {
        return Err(problem(Problem::Ranges(text.to_owned())));
    }
    if pod_cidrs.is_empty() {
        return Ok(Some(Annotated { ranges, created: meta::created(&node.metadata) }));
    }
    // Who writes both the same is no worse off.
    if ranges.iter().all(|range| pod_cidrs.contains(range)) { Ok(None) } else { Err(problem(Problem::Beside)) }
}

fn is_condemned(spec: Option<&v1::NodeSpec>) -> bool {
    spec.iter().flat_map(|spec| &spec.taints).flatten().any(|taint| taint.key == TO_BE_DELETED)
}
