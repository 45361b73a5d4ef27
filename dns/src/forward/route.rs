//! Which names are forwarded where.

use std::sync::Arc;

use super::forwarder::Forwarder;
use crate::WireName;
use crate::name::{covers, strip_suffix};

/// Servers to forward to.
#[derive(Clone)]
pub struct Route {
    /// For names in this zone,
    pub from: WireName,
    /// and not in these.
    pub except: Vec<WireName>,
    /// The servers.
    pub forwarder: Arc<Forwarder>,
}

impl Route {
    /// Whether a name, in lower case and wire format, is forwarded there.
    #[must_use]
    pub fn is_for(&self, name: &[u8]) -> bool {
        strip_suffix(name, self.from.as_wire()).is_some() && !covers(&self.except, name)
    }
}
