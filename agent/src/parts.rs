//! Which parts of Fairlead run on a node: all, or one beside the network of another plugin.

use std::fmt;

use clap::ValueEnum;

/// The setting `parts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Parts {
    /// Pods' network, Services and NetworkPolicy
    #[default]
    All,
    /// Services alone, for pods that another plugin has wired: no policy is enforced
    Proxy,
    /// NetworkPolicy alone, for pods that another plugin has wired, beside the proxy that serves Services
    Policy,
}

impl Parts {
    /// Its value in the settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Proxy => "proxy",
            Self::Policy => "policy",
        }
    }

    /// What an agent of another version says is taken for all, if this one does not know it.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::value_variants().iter().copied().find(|parts| parts.as_str() == name).unwrap_or_default()
    }

    /// Whether pods are wired here: addresses, links, routes, the tunnel, the masquerade, and the CNI configuration.
    #[must_use]
    pub const fn wires(self) -> bool {
        matches!(self, Self::All)
    }

    /// Whether Services are served at sockets and uplinks, for the node's processes and for clients outside. Where they are not,
    /// another proxy does; but what pods open to a Service is led to an endpoint wherever policy is enforced, since that is about
    /// endpoints.
    #[must_use]
    pub const fn serves(self) -> bool {
        !matches!(self, Self::Policy)
    }

    /// Whether policies are enforced.
    #[must_use]
    pub const fn enforces(self) -> bool {
        !matches!(self, Self::Proxy)
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Proxy => "proxy: Services alone, NetworkPolicy is not enforced; another plugin wires pods",
            Self::Policy => "policy: NetworkPolicy alone; another plugin wires pods, another proxy serves Services",
        })
    }
}
