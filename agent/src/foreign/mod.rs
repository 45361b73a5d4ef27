//! Pods that another plugin has wired: which interface of the node is whose.
//!
//! Pod objects say which addresses a pod has, the kernel which veth leads to them. Whatever a plugin builds around a veth (a bridge,
//! routes), it is found by its other end.

mod journal;
mod steps;

pub use journal::{load, save};
pub use steps::{Step, Wanted, steps};

use std::net::IpAddr;

use fairlead_cni::Mac;
use fairlead_objects::ObjectKey;
use serde::{Deserialize, Serialize};

use crate::cni::AttachedPod;

/// A pod with the interface that was found for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignPod {
    /// Its index in every per-pod map.
    pub slot: u16,
    /// The index of its host side.
    pub ifindex: u32,
    /// The name of that.
    pub link: String,
    /// Namespace and name.
    pub key: ObjectKey,
    /// The uid that it runs under.
    pub uid: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// MAC address of its own side.
    pub pod_mac: Mac,
    /// MAC address of the host side.
    pub host_mac: Mac,
}

impl ForeignPod {
    /// The pod as the datapath wants it.
    #[must_use]
    pub fn to_pod(&self) -> AttachedPod {
        AttachedPod {
            slot: self.slot,
            ifindex: self.ifindex,
            host_link: self.link.clone(),
            key: self.key.clone(),
            uid: Some(self.uid.clone()),
            container_id: String::new(),
            ifname: String::new(),
            ips: self.ips.clone(),
            host_mac: self.host_mac,
            pod_mac: self.pod_mac,
            netns: String::new(),
            netns_inode: 0,
        }
    }
}
