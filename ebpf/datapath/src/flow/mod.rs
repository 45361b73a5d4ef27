//! Flows: what was decided for a connection, so that it is decided once.
//!
//! A flow that is not translated has one entry. A translated one has two, one for the tuple on each side: *near* is how
//! its opener sees it (client to service), *far* how its responder does (client to backend). Each carries the tuple of
//! the other, so a packet that meets either is rewritten without another lookup. The far entry is inserted first and
//! only if its place is free, which is what reserves the tuple: whoever would collide gets another source port.

mod create;
mod find;
mod fragment;
mod layout;
mod track;

pub use create::{Draft, create, insert_far, translate_at_uplink};
pub use find::{At, Hit, Place, find, find_key, forget};
pub use fragment::{FragmentKey, FragmentPorts, resolve as resolve_fragment};
pub use layout::{End, Flow, FlowFlags, FlowKey, FlowState, NO_BACKEND, PodFlows};
pub use track::{Tracked, expired, lifetime, track, track_change};

/// The two tables of flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `CT_EST`: TCP after the handshake. Preallocated; nothing in it is ever evicted.
    Established,
    /// `CT_ANY`: everything else. When it is full the least recently used goes.
    Any,
}

/// Why an entry could not be inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertError {
    /// There is one under this key.
    Exists,
    /// The table is full.
    Full,
}

/// The tables of flows.
pub trait Tables {
    /// The entry of a key. What it refers to may be evicted and reused at any time: [`Flow::tag`] tells.
    fn flow(&self, table: Table, key: &FlowKey) -> Option<&Flow>;
    /// Inserts an entry; `only_new`: not if the key has one.
    fn insert_flow(&self, table: Table, key: &FlowKey, flow: &Flow, only_new: bool) -> Result<(), InsertError>;
    /// Removes an entry.
    fn remove_flow(&self, table: Table, key: &FlowKey) -> bool;
    /// What is counted of a pod's flows.
    fn pod_flows(&self, slot: u16) -> Option<&PodFlows>;
    /// Adds to the count of a pod's established flows.
    fn count_established(&self, slot: u16, by: i64);
    /// Ports of a datagram whose first fragment was seen.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts>;
    /// Remembers the ports of a first fragment.
    fn insert_fragment(&self, key: &FragmentKey, ports: FragmentPorts);
}
