//! From (content now, content wanted) to an ordered list of map operations: pure functions.
//!
//! A plan is a `Vec<Op>`, applied strictly in order. Every packet, after every prefix of it, meets either the old answer
//! or the new one; where a packet in the middle of its walk could meet a mixture, a [`Op::Barrier`] stands between.

use fairlead_datapath::Addr;
use fairlead_datapath::bandwidth::Bandwidth;
use fairlead_datapath::config::{Config, Uplink};
use fairlead_datapath::peer::{CidrKey, NodeHop, Peer, Pod};
use fairlead_datapath::policy::{PeerKey, PolicySet, PortKey, RangeKey, Row};
use fairlead_datapath::service::{Backend, Frontend, FrontendKey, SourceRangeKey};

pub mod bandwidth;
pub mod node;
pub mod policy;
pub mod services;

/// One operation on the maps. `None` as a value deletes; deleting what is not there is no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Replaces or deletes an element of `FRONTENDS`: the commit point of a change to a service.
    Frontend {
        /// Its key.
        key: FrontendKey,
        /// Its new value.
        value: Option<Frontend>,
    },
    /// Writes backend ids to consecutive elements of `SLOTS`.
    Slots {
        /// The first index.
        offset: u32,
        /// The ids.
        ids: Vec<u32>,
    },
    /// Writes an element of `BACKENDS` that nothing refers to.
    Backend {
        /// The backend's id, its index.
        id: u32,
        /// The record.
        value: Backend,
    },
    /// Changes the one word of an element of `BACKENDS` that may change while flows refer to it.
    BackendState {
        /// The backend's id, its index.
        id: u32,
        /// A [`fairlead_datapath::service::BackendState`].
        state: u64,
    },
    /// Writes an element of `SERVICE_PORTS`, to which ports are only ever added.
    ServicePorts {
        /// Its index.
        index: u32,
        /// The ports, as [`fairlead_datapath::service::service_port`] has them.
        bits: u64,
    },
    /// Writes or deletes an element of `SOURCE_RANGES`.
    SourceRange {
        /// The set and the range.
        key: SourceRangeKey,
        /// Whether it is in the set.
        present: bool,
    },
    /// Writes the one element of `SERVICE_STATE`: UDP flows that go to no backend are decided anew.
    UdpFrontends {
        /// [`fairlead_datapath::service::ServiceState::udp_generation`].
        generation: u64,
    },
    /// Replaces or deletes an element of `PEERS`.
    Peer {
        /// The address.
        addr: Addr,
        /// What is known of it.
        value: Option<Peer>,
    },
    /// Replaces or deletes an element of `CIDRS`.
    Cidr {
        /// The prefix.
        key: CidrKey,
        /// What is known of its addresses.
        value: Option<Peer>,
    },
    /// Writes an element of `NODES`.
    Node {
        /// Its index.
        index: u16,
        /// The way to it; all zero when there is no such node.
        value: NodeHop,
    },
    /// Writes an element of `PODS` while its word denies everything, and begins anew with the slot's elements of `PACE` and
    /// `POD_DROPS`.
    Pod {
        /// The slot, its index.
        slot: u16,
        /// The record.
        value: Pod,
    },
    /// Changes the word of an element of `PODS`: from here on the pod is judged by these sets.
    PodWord {
        /// The slot, its index.
        slot: u16,
        /// A [`fairlead_datapath::peer::PodWord`], 0 to deny everything.
        word: u64,
    },
    /// Writes an element of `POLICY_SETS`, whose index is [`PolicySet::index`] of its id.
    PolicySet {
        /// The index.
        index: u32,
        /// The set; all zero when there is none.
        value: PolicySet,
    },
    /// Writes or deletes a row of `POLICY_PEERS`.
    PolicyPeers {
        /// Its key.
        key: PeerKey,
        /// The row.
        value: Option<Row>,
    },
    /// Writes or deletes a row of `POLICY_PORTS`.
    PolicyPorts {
        /// Its key.
        key: PortKey,
        /// The row.
        value: Option<Row>,
    },
    /// Writes or deletes a row of `POLICY_RANGES`.
    PolicyRange {
        /// Its key.
        key: RangeKey,
        /// The row.
        value: Option<Row>,
    },
    /// Writes the one element of `CONFIG`.
    Config {
        /// What it says of the node.
        value: Config,
    },
    /// Writes or deletes an element of `UPLINKS`.
    Uplink {
        /// The interface.
        ifindex: u32,
        /// Its addresses.
        value: Option<Uplink>,
    },
    /// Writes or deletes an element of `NODE_ADDRESSES`.
    NodeAddress {
        /// The address.
        addr: Addr,
        /// Kinds of ports that are reached there, as [`fairlead_datapath::service::FrontendFlags`] has them.
        kinds: Option<u32>,
    },
    /// Writes an element of `BANDWIDTH`, and begins anew with the pod's element of `PACE`.
    Bandwidth {
        /// The slot, its index.
        slot: u16,
        /// The limits; all zero when there are none.
        value: Bandwidth,
    },
    /// Waits until no program is running that has read the maps before: what nothing refers to may be reused after it.
    Barrier,
}
