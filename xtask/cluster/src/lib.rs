//! A real Kubernetes cluster on one machine, without a container engine: every node is a set of namespaces with its own kubelet
//! and containerd, as kind's nodes are containers. `cargo xtask cluster` brings one up for people, tests bring up their own.
//!
//! The *fabric* is a namespace that stands for the network between nodes; the control plane runs there. What is known of a
//! cluster is in its directory, and processes are found by what is written there, so any process may go on with it.
#![forbid(unsafe_code)]

mod addresses;
mod archive;
mod balancer;
mod build;
mod cgroups;
mod cluster;
mod control_plane;
mod fabric;
mod images;
mod inner;
mod kubeadm;
mod kubeconfig;
mod node;
mod node_config;
mod operate;
mod parts;
mod pause;
mod peer;
mod pki;
mod place;
mod process;
mod registry;
mod say;
mod service;
mod start;
mod supervisor;
mod system;
mod teardown;

pub use addresses::{CLUSTER_DNS, KUBERNETES_SERVICE, POD_CIDRS, SERVICE_CIDRS, api_url, node, router, zone};
pub use archive::Image;
pub use build::{Builder, cache};
pub use cluster::Cluster;
pub use images::{AGNHOST_IMAGE, LAB_IMAGE, TEST_ROOT};
pub use inner::{Helper, inner};
pub use parts::{CLUSTER, E2E, KUBE_PROXY, KUBEADM, Module, POLICY_TESTS, Part};
pub use place::{FABRIC, Spec};
pub use service::Service;
pub use start::Host;
