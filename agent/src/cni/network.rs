//! What the CNI server needs of the rest of the agent.

use std::net::IpAddr;
use std::time::Duration;

use fairlead_cni::Mac;
use fairlead_objects::ObjectKey;
use ipnetwork::IpNetwork;

/// The model and the datapath, as the CNI server sees them.
pub trait PodNetwork: Send + Sync + 'static {
    /// Whether pods can be served.
    fn health(&self) -> Health;

    /// The node, or nothing while its Node object is unknown.
    fn node(&self) -> Option<NodeNetwork>;

    /// A Pod object of this node.
    fn pod(&self, key: &ObjectKey) -> Option<KnownPod>;

    /// The pod of this node whose object carries this address.
    fn owner(&self, ip: IpAddr) -> Option<ObjectKey>;

    /// Attaches programs to the host side, which exists and is down, and returns when the pod's policy is in force.
    /// Called again for every pod when the agent starts; for those the link is up. The server gives it ten seconds
    /// and drops the future then.
    fn attach(&self, pod: AttachedPod) -> impl Future<Output = Result<(), AttachError>> + Send;

    /// The plugin that had this pod attached has hung up: what it makes of the pod is made.
    fn finished(&self, _slot: u16, _key: ObjectKey) {}

    /// Closes the pod to everybody, and returns when nothing passes to or from it any more, or that it could not.
    /// [`PodNetwork::detach`] follows.
    fn close(&self, pod: AttachedPod) -> impl Future<Output = bool> + Send
    where
        Self: Sync,
    {
        async {
            self.detach(pod).await;
            true
        }
    }

    /// Takes the pod out of the datapath. Its link is deleted when this returns. It is also called for a pod whose
    /// attachment failed or was abandoned, and for one whose link is gone.
    fn detach(&self, pod: AttachedPod) -> impl Future<Output = ()> + Send;

    /// The host side of this name is deleted: nothing that was attached to it is needed any more.
    fn deleted(&self, host_link: &str);

    /// What is wrong at present with the node's side of the pod in a slot, and can't be put right.
    fn trouble(&self, _slot: u16) -> Option<String> {
        None
    }

    /// A request of the plugin was answered: its verb, whether it succeeded, and how long it took.
    fn answered(&self, _verb: &'static str, _ok: bool, _took: Duration) {}
}

/// Whether pods can be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Every informer has synced and the programs are loaded.
    Ready,
    /// Not yet, and why.
    Starting(String),
    /// Not any more, and pods that exist may suffer.
    Impaired(String),
}

/// What the node gives to its pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNetwork {
    /// `spec.podCIDRs`
    pub pod_cidrs: Vec<IpNetwork>,
    /// MTU of the uplink, in bytes.
    pub mtu: u32,
    /// The address of each family that the node's own packets to its pods should carry. Only addresses that the node
    /// really has: the kernel refuses others.
    pub addresses: Vec<IpAddr>,
}

/// What a Pod object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPod {
    /// The uid that the container runtime has it under (`Pod::runtime_uid`); empty where the source has none.
    pub uid: String,
    /// Its own addresses (`Pod::owned_ips`).
    pub ips: Vec<IpAddr>,
}

/// A pod with its place on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedPod {
    /// Its index in every per-pod map.
    pub slot: u16,
    /// The interface index of its host side.
    pub ifindex: u32,
    /// The name of its host side.
    pub host_link: String,
    /// Namespace and name.
    pub key: ObjectKey,
    /// `K8S_POD_UID`, where the runtime gave it.
    pub uid: Option<String>,
    /// `CNI_CONTAINERID`
    pub container_id: String,
    /// `CNI_IFNAME`
    pub ifname: String,
    /// Its addresses, at most one of a family.
    pub ips: Vec<IpAddr>,
    /// MAC address of the host side.
    pub host_mac: Mac,
    /// MAC address of the pod side.
    pub pod_mac: Mac,
    /// `CNI_NETNS`
    pub netns: String,
    /// The inode of that namespace.
    pub netns_inode: u64,
}

impl AttachedPod {
    /// Whether another plugin has wired it: its interface's index does not say its slot.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        fairlead_datapath::slot_of(self.ifindex) != Some(self.slot)
    }
}

/// Why a pod could not be attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AttachError(
    /// What went wrong and what to do.
    pub String,
);
