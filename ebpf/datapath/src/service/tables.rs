//! What services ask of the kernel.

use super::{Affinity, AffinityKey, Backend, Frontend, FrontendKey, SourceRangeKey};
use crate::Addr;

/// The tables of services.
pub trait Tables {
    /// The element of `FRONTENDS` under this key, copied out, [`Frontend::tag`] last.
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend>;

    /// The value of an address of the node in `NODE_ADDRESSES`: kinds of wildcards that it reaches. 0 of any other.
    fn node_address(&self, addr: &Addr) -> u32;

    /// An element of `SERVICE_PORTS`, see [`super::service_port`]; 0 beyond the end.
    fn service_ports(&self, index: u32) -> u64;

    /// Whether `SOURCE_RANGES` has a prefix for a key.
    fn in_source_range(&self, key: &SourceRangeKey) -> bool;

    /// The backend id in an element of `SLOTS`, `None` beyond its end.
    fn slot(&self, index: u32) -> Option<u32>;

    /// The element of `AFFINITY` under a key, copied out, [`Affinity::tag`] last.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;

    /// Writes an element of `AFFINITY`.
    fn remember_affinity(&self, key: &AffinityKey, value: &Affinity);

    /// An element of `BACKENDS`, which stays where it is; `None` beyond its end.
    fn backend(&self, id: u32) -> Option<&Backend>;

    /// [`Backend::state`], read as one word; 0 beyond the end.
    fn backend_state(&self, id: u32) -> u64;

    /// The low half of [`super::ServiceState::udp_generation`].
    fn udp_generation(&self) -> u32;
}
