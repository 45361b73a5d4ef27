//! Services: from an address that a client uses to the backend that answers.

mod layout;

pub use layout::{Backend, BackendState, Frontend, FrontendKey, Scope, Verdict};
