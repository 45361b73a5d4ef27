//! What the node knows of an address: `peers` (hash by address), `cidrs` (longest prefix), `nodes` (array), `pods` (array).

mod layout;

pub use layout::{CidrKey, NO_NODE, NO_SLOT, NodeHop, Peer, PeerFlags, Pod, PodWord};
