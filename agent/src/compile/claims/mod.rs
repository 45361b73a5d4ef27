//! What objects claim and may not have: addresses and ports of Services and hostPorts, and addresses of pods.
//!
//! Whoever may write a Service, or a Pod, or runs a node, names addresses in it that nobody checks: `externalIPs`,
//! `status.loadBalancer`, `hostIP`, `status.podIPs`, the endpoints of a slice. What belongs to somebody else does not count. Between two that may both
//! have an address and port the planner decides, by [`FrontendKind`](super::services::FrontendKind) and age.

mod backends;
mod disputes;
mod frontends;
mod pods;
#[cfg(test)]
mod tests;

use fairlead_objects::{Pod, Service};

use super::services::{Place, ServiceContent, compile_host_ports, compile_service};
use crate::model::{LocalPod, Model};

pub use disputes::{Dispute, Party, of_frontends, of_nodes, of_pods, of_refusals};
pub use frontends::{Claim, Owner, Part, Refusal, Why, judge, settle};
pub use pods::{PodRanges, Standing};

/// The wanted content of the tables for a service, without what it may not have, and what that is.
#[must_use]
pub fn service(model: &Model, service: &Service, place: &Place) -> (ServiceContent, Vec<Refusal>) {
    let (slices, mut refusals) = backends::admitted(model.slices_of(&service.key), model.reserved());
    let mut content = compile_service(service, slices.iter().map(|slice| &**slice), place);
    refusals.extend(settle(Owner::Service(&service.key), &mut content, model.reserved(), model.rules()));
    (content, refusals)
}

/// The same for the hostPorts of a pod of this node.
#[must_use]
pub fn host_ports(model: &Model, pod: &Pod, local: &LocalPod) -> (ServiceContent, Vec<Refusal>) {
    let mut content = compile_host_ports(pod, &local.ips);
    let refusals = settle(Owner::Pod(&pod.key), &mut content, model.reserved(), model.rules());
    (content, refusals)
}
