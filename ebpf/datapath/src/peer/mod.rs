//! What the node knows of an address: `peers` (hash by address), `cidrs` (longest prefix), `nodes` (array), `pods` (array).

#[cfg(any(test, feature = "host"))]
mod host;
mod layout;
mod lookup;

#[cfg(any(test, feature = "host"))]
pub use host::HostTables;
pub use layout::{
    CidrKey, HopFlags, MAX_CIDRS, MAX_NODES, MAX_PEERS, NO_NODE, NO_SLOT, NodeHop, Peer, PeerFlags, Pod, PodWord,
};
pub use lookup::{Tables, lookup};
