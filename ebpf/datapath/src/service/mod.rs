//! Services: from an address that a client uses to the backend that answers.

#[cfg(any(test, feature = "host"))]
mod host;
mod layout;
mod select;
pub mod sock;
mod tables;
#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "host"))]
pub use host::HostTables;
pub use layout::{
    Backend, BackendState, Frontend, FrontendKey, MAX_BACKENDS, MAX_FRONTENDS, MAX_SLOTS, Scope, ServiceState, Verdict,
};
pub use select::{Chosen, From, Selection, flow_is_stale, select, select_again};
pub use tables::Tables;
