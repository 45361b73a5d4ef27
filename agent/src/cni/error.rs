//! What can go wrong.

use std::io;
use std::path::PathBuf;

use fairlead_cni::code;
use fairlead_cni::protocol::{Attachment, Failure};

use super::AttachError;
use crate::wiring::WiringError;

/// Why a request can't be served, or the server can't start.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// The journal can't be read or written.
    #[error("can't {what} the journal {path}: {source}; is there space left and is the directory writable?")]
    Journal {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket can't be opened.
    #[error("can't listen at {path}: {source}; is the directory there and writable?")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody has removed the socket of a running agent.
    #[error("{0} was removed while the agent ran, so nobody can reach it: ending, for the next agent to make it again")]
    Removed(PathBuf),
    /// The agent has not yet heard of everything it needs.
    #[error("the Fairlead agent is starting: {0}")]
    NotReady(String),
    /// STATUS of an agent that was not ready since the node started.
    #[error("the Fairlead agent is starting and was not ready since the node started: {0}")]
    NotAvailable(String),
    /// The datapath is not in order.
    #[error("the Fairlead agent can't serve pods: {0}")]
    Impaired(String),
    /// The node has no addresses to give.
    #[error(
        "the Node object has no pod range: spec.podCIDRs is empty. Give the cluster one: kubeadm init \
         --pod-network-cidr=RANGE, or kube-controller-manager --allocate-node-cidrs=true --cluster-cidr=RANGE; where \
         that is not possible, set `annotatedRanges` and annotate the Node with fairlead.io/pod-cidrs"
    )]
    NoRanges,
    /// Every address is in use or resting.
    #[error(
        "no free address in {range}: {used} in use, {resting} freed recently; delete pods or give the node a larger \
         range"
    )]
    Full {
        /// The range.
        range: ipnetwork::IpNetwork,
        /// Addresses in use.
        used: usize,
        /// Addresses that were freed and rest.
        resting: usize,
    },
    /// An address that was asked for can't be given.
    #[error("runtimeConfig.ips: {0} is in use or can't be a pod's; request a different address")]
    Taken(std::net::IpAddr),
    /// An address that was asked for is of another node, or of no range.
    #[error("runtimeConfig.ips: {ip} is not in the pod ranges of this node ({ranges}); request one that is, or none")]
    NotOfNode {
        /// The address.
        ip: std::net::IpAddr,
        /// The ranges.
        ranges: String,
    },
    /// Every slot is in use.
    #[error("the node already has the maximum number of pods ({0}); lower its kubelet's maxPods")]
    NoSlot(u16),
    /// ADD of what was added.
    #[error("{} of container {} has already been added; DEL it first", .0.ifname, .0.container_id)]
    AlreadyAdded(Attachment),
    /// A request about an attachment that has no reservation.
    #[error("{} of container {} has no reservation; ADD it again", .0.ifname, .0.container_id)]
    Unknown(Attachment),
    /// CHECK of a pod whose wiring somebody undid.
    #[error("not as ADD configured it: {0}")]
    Differs(String),
    /// Programs or policy could not be put in place.
    #[error("can't apply the pod's policy: {0}")]
    Attach(#[from] AttachError),
    /// They were not in place in time.
    #[error("the pod's policy was not in force after {0} s: is the agent overloaded, or cut off from the API server?")]
    AttachTimeout(u64),
    /// As many plugins are served as may be.
    #[error("{0} plugins are connected to the agent, which is the limit; try again when some are done")]
    Busy(usize),
    /// A request that is not of this protocol.
    #[error("can't read the request: {0}; the plugin and the agent are different releases")]
    Request(String),
    /// The node's links.
    #[error(transparent)]
    Wiring(#[from] WiringError),
}

impl CniError {
    /// The CNI error code.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Journal { .. } | Self::Listen { .. } | Self::Removed(_) => code::IO,
            Self::NotReady(_)
            | Self::NoRanges
            | Self::Full { .. }
            | Self::NoSlot(_)
            | Self::Taken(_)
            | Self::Attach(_)
            | Self::Busy(_)
            | Self::AttachTimeout(_) => code::TRY_AGAIN,
            Self::NotOfNode { .. } => code::INVALID_CONFIG,
            Self::NotAvailable(_) => code::NOT_AVAILABLE,
            Self::Impaired(_) => code::IMPAIRED,
            Self::AlreadyAdded(_) => code::ALREADY_ADDED,
            Self::Unknown(_) | Self::Differs(_) => code::DIFFERS,
            Self::Request(_) => code::DECODING,
            Self::Wiring(_) => code::KERNEL,
        }
    }
}

impl From<CniError> for Failure {
    fn from(error: CniError) -> Self {
        Self { code: error.code(), msg: error.to_string(), details: String::new() }
    }
}
