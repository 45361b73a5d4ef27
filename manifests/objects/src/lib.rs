//! The Kubernetes objects that Fairlead acts on, made slim, and the stream they arrive in.
//!
//! One stream ([`Event`]) has two sources behind it: the Kubernetes API, and a directory of YAML files for a node
//! without a cluster. Both give the same types, with the API's defaults already applied, so that nothing downstream
//! knows where an object came from.
#![forbid(unsafe_code)]

mod address;
mod causes;
mod cluster_policy;
pub mod convert;
pub mod directory;
mod event;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod meta;
pub mod names;
mod namespace;
mod node;
mod pod;
mod policy;
mod read;
mod service;
mod slice;
mod source;
pub mod zone;

pub use causes::causes;
pub use cluster_policy::{Action, ClusterNetworkPolicy, ClusterRule, Subject, Tier};
pub use event::{Event, Kind, Object};
pub use meta::{Labels, ObjectKey, Operator, Protocol, Requirement, Selector};
pub use names::{DomainName, DomainNames};
pub use namespace::Namespace;
pub use node::{Annotated, Node, POD_CIDRS};
pub use pod::{Bandwidth, ContainerPort, Phase, Pod};
pub use policy::{Mode, NetworkPolicy, Peer, PolicyPort, PortMatch, Rule};
pub use read::{Invalid, read_str, read_str_in, read_yaml};
pub use service::{LoadBalancerIngress, Service, ServicePort, ServiceType, TrafficPolicy};
pub use slice::{AddressType, Endpoint, EndpointPort, EndpointSlice};
pub use source::Source;
