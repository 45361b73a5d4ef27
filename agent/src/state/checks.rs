//! The health checks of services that load balancers ask for.

use std::collections::BTreeMap;

use fairlead_objects::ObjectKey;

use crate::compile::services::Family;

/// A health check: a service, and the family of the addresses that it is at.
pub type CheckKey = (ObjectKey, Family);

/// What a health check says, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// `healthCheckNodePort`.
    pub port: u16,
    /// Ready endpoints on this node.
    pub endpoints: usize,
}

/// All of them.
pub type Checks = BTreeMap<CheckKey, Check>;
