//! Namespaces.

use crate::Labels;

/// A core/v1 Namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels; `kubernetes.io/metadata.name` is always among them (KEP-2161).
    pub labels: Labels,
}
