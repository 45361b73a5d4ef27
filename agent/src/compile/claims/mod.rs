//! What objects claim and may not have: addresses and ports of Services and hostPorts, and addresses of pods.
//!
//! Whoever may write a Service, or a Pod, or runs a node, names addresses in it that nobody checks: `externalIPs`,
//! `status.loadBalancer`, `hostIP`, `status.podIPs`, the endpoints of a slice. What belongs to somebody else does not count. Between two that may both
//! have an address and port the planner decides, by [`FrontendKind`](super::services::FrontendKind) and age.

mod backends;
mod disputes;
mod endpoints;
mod frontends;
mod pods;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use fairlead_objects::{EndpointSlice, Pod, Service};

use super::services::{Place, ServiceContent, add_node_local_dns, compile_host_ports, compile_service};
use crate::model::{LocalPod, Model};

pub use disputes::{Dispute, Party, of_annotations, of_frontends, of_nodes, of_pods, of_refusals};
pub use frontends::{Claim, Claimed, Owner, Refusal, Why, judge, settle};
pub use pods::{PodRanges, Standing};

/// The wanted content of the tables for a service, without what it may not have, and what that is.
#[must_use]
pub fn service(model: &Model, service: &Service, place: &Place) -> (ServiceContent, Vec<Refusal>) {
    let (slices, mut refusals) = endpoints(model, service);
    let mut content = compile_service(service, slices.iter().map(AsRef::as_ref), place);
    let borrowed: Vec<&EndpointSlice> = slices.iter().map(AsRef::as_ref).collect();
    add_node_local_dns(&mut content, service, &borrowed, place, &model.rules().node_local_dns);
    refusals.extend(settle(Owner::Service(&service.key), &mut content, model.reserved(), model.rules()));
    (content, refusals)
}

/// The slices of a service without the endpoints that it may not have, and which those are.
#[must_use]
pub fn endpoints<'a>(model: &'a Model, service: &Service) -> (Vec<Cow<'a, EndpointSlice>>, Vec<Refusal>) {
    let (slices, mut refusals) = endpoints::settle(service, model.slices_of(&service.key), model.rules());
    let (slices, of_the_tunnel) = backends::admitted(slices, model.reserved());
    refusals.extend(of_the_tunnel);
    (slices, refusals)
}

/// The same for the hostPorts of a pod of this node.
#[must_use]
pub fn host_ports(model: &Model, pod: &Pod, local: &LocalPod) -> (ServiceContent, Vec<Refusal>) {
    let mut content = compile_host_ports(pod, &local.ips);
    let refusals = settle(Owner::Pod(&pod.key), &mut content, model.reserved(), model.rules());
    (content, refusals)
}
