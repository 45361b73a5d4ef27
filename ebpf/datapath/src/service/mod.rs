//! Services: from an address that a client uses to the backend that answers.

mod affinity;
#[cfg(any(test, feature = "host"))]
mod host;
mod layout;
mod select;
pub mod sock;
mod tables;
#[cfg(test)]
mod tests;

pub use affinity::stick;
#[cfg(any(test, feature = "host"))]
pub use host::HostTables;
pub use layout::{
    Affinity, AffinityKey, Backend, BackendState, Frontend, FrontendFlags, FrontendKey, MAX_AFFINITIES, MAX_BACKENDS,
    MAX_FRONTENDS, MAX_NODE_ADDRESSES, MAX_SLOTS, MAX_SOURCE_RANGES, SERVICE_PORT_WORDS, Scope, ServiceState,
    SourceRangeKey, Verdict, service_port,
};
pub use select::{Chosen, From, Selection, admits, flow_is_stale, select, select_again};
pub use tables::Tables;
