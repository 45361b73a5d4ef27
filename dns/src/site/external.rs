//! Zones in which Services have their external addresses, for clients outside of the cluster.

use crate::WireName;
use crate::name::strip_suffix;

use super::scope::Fall;

/// How such zones are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// The zones: the same is in each of them.
    pub zones: Vec<WireName>,
    /// The label of the name below which the zones' server is: `ns1.dns` in the zone.
    pub apex: String,
    /// How long records live, in seconds.
    pub ttl: u32,
    /// Endpoints of headless Services are in it.
    pub headless: bool,
    /// Which names that don't exist go on.
    pub fall: Fall,
}

impl External {
    /// The zone that a name, in lower case and wire format, is in: the longest.
    #[must_use]
    pub fn zone(&self, name: &[u8]) -> Option<&WireName> {
        let holds = |zone: &&WireName| strip_suffix(name, zone.as_wire()).is_some();
        self.zones.iter().filter(holds).max_by_key(|zone| zone.as_wire().len())
    }
}
