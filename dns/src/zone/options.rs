//! What of the cluster is in the zone.

use std::collections::BTreeSet;

/// How names of pods by their addresses are answered: `10-0-0-1.namespace.pod`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PodMode {
    /// With the address, whatever it is, where the namespace exists.
    #[default]
    Insecure,
    /// With the address, where a pod in the namespace has it.
    Verified,
    /// Not at all.
    Disabled,
}

/// What of the cluster is in the zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Names of pods.
    pub pods: PodMode,
    /// An endpoint without a hostname has its pod's name.
    pub endpoint_pod_names: bool,
    /// Only these namespaces.
    pub namespaces: Option<BTreeSet<String>>,
    /// Endpoints are in it; without them headless services have no names.
    pub endpoints: bool,
    /// A service with a cluster address and no ready endpoint is in it.
    pub empty_services: bool,
    /// What services have for clients outside is in it.
    pub outside: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pods: PodMode::Insecure,
            endpoint_pod_names: false,
            namespaces: None,
            endpoints: true,
            empty_services: true,
            outside: false,
        }
    }
}

impl Options {
    /// Whether a namespace is in it.
    #[must_use]
    pub fn has(&self, namespace: &str) -> bool {
        self.namespaces.as_ref().is_none_or(|namespaces| namespaces.contains(namespace))
    }
}
