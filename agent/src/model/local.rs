//! Pods attached to this node.

use std::net::IpAddr;

use fairlead_objects::ObjectKey;

/// A pod that the CNI plugin attached to this node, or that another plugin has wired and whose interface was found, whether or not
/// its Pod object is known already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPod {
    /// Its index in every per-pod array, and its host side's ifindex less [`fairlead_datapath::IFINDEX_BASE`].
    pub slot: u16,
    /// Its host side's ifindex, if that is another plugin's.
    pub foreign: Option<u32>,
    /// Namespace and name of the Pod.
    pub key: ObjectKey,
    /// The uid that the container runtime gave (`Pod::runtime_uid`); empty when it gave none.
    pub uid: String,
    /// The addresses that it was given.
    pub ips: Vec<IpAddr>,
    /// MAC of the pod's side.
    pub pod_mac: [u8; 6],
    /// MAC of the host's side.
    pub host_mac: [u8; 6],
}
