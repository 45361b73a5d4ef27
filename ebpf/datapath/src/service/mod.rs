//! Services: from an address that a client uses to the backend that answers.

mod affinity;
#[cfg(any(test, feature = "host"))]
mod host;
mod select;
pub mod sock;
#[cfg(test)]
mod tests;

pub use affinity::stick;
#[cfg(any(test, feature = "host"))]
pub use host::HostTables;
pub use select::{Chosen, From, Selection, admits, flow_is_stale, select, select_again};

pub use crate::tables::service::*;
