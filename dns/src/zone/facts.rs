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

/// The digest of one name and its facts: the zone's content is the sum of them, so it doesn't depend on the order in
/// which they came, and two processes with the same objects have the same SOA serial.
pub(super) fn digest(name: &WireName, facts: &Facts) -> u64 {
    let Facts { v4, v6, srv, alias } = facts;
    let mut sum = Fnv::new();
    sum.field(name.as_wire());
    for address in v4 {
        sum.field(&address.octets());
    }
    for address in v6 {
        sum.field(&address.octets());
    }
    for Srv { target, port, weight } in srv {
        sum.field(target.as_wire());
        sum.field(&port.to_be_bytes());
        sum.field(&weight.to_be_bytes());
    }
    if let Some(alias) = alias {
        sum.field(b"alias");
        sum.field(alias.as_wire());
    }
    sum.finish()
}

/// FNV-1a with 64 bits: its result is part of what clients see, so it must not change with the compiler.
pub(super) struct Fnv(u64);

impl Fnv {
    pub(super) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn field(&mut self, bytes: &[u8]) {
        for byte in (bytes.len() as u64).to_be_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(super) fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    }
}
