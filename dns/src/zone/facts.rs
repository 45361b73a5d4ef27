//! What is known about one name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::outside::OutsideDelta;
use crate::WireName;

/// What is at one name. A name with no facts at all exists: it answers with no data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Facts {
    /// A records, sorted.
    pub v4: Box<[Ipv4Addr]>,
    /// AAAA records, sorted.
    pub v6: Box<[Ipv6Addr]>,
    /// SRV records, sorted by target and port.
    pub srv: Box<[Srv]>,
    /// The CNAME of an ExternalName service.
    pub alias: Option<WireName>,
}

/// One SRV record. The priority is always 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Srv {
    /// Where it leads: a name of this zone.
    pub target: WireName,
    /// The port there.
    pub port: u16,
    /// Its share among its neighbours.
    pub weight: u16,
}

/// A name that an address leads back to. Sorted so that a service comes before endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pointer {
    /// The service whose cluster address it is.
    Service(WireName),
    /// An endpoint of a service.
    Endpoint(WireName),
}

/// A change of the zone: one service or one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// Names that are new or have other facts now.
    pub set: Vec<(WireName, Arc<Facts>)>,
    /// Names that are gone.
    pub removed: Vec<WireName>,
    /// New pointers.
    pub pointers_set: Vec<(IpAddr, Pointer)>,
    /// Pointers that are gone.
    pub pointers_removed: Vec<(IpAddr, Pointer)>,
    /// Addresses that pods below a name, as `namespace.pod`, have now or have no longer.
    pub pods: Vec<(WireName, IpAddr, bool)>,
    /// What changes for clients outside.
    pub outside: OutsideDelta,
}

impl Delta {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
            && self.removed.is_empty()
            && self.pointers_set.is_empty()
            && self.pointers_removed.is_empty()
            && self.pods.is_empty()
            && self.outside.is_empty()
    }
}
