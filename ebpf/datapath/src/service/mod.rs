//! Services: from an address that a client uses to the backend that answers.

mod layout;
mod select;
mod tables;

pub use layout::{Backend, BackendState, Frontend, FrontendKey, Scope, Verdict};
pub use select::{Chosen, From, Selection, flow_is_stale, select};
pub use tables::Tables;
