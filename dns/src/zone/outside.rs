//! What Services have for clients outside of the cluster: names as `service.namespace`, below whatever zone.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::WireName;
use crate::name::labels;

/// What is at one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outside {
    /// A records, sorted.
    pub v4: Vec<Ipv4Addr>,
    /// AAAA records, sorted.
    pub v6: Vec<Ipv6Addr>,
    /// SRV records, sorted by target and port.
    pub srv: Vec<(Target, u16)>,
    /// The weight of each of them.
    pub weight: u16,
    /// The name of a load balancer that has no address.
    pub alias: Option<WireName>,
    /// It is there only where endpoints are to be.
    pub endpoint: bool,
}

/// Where an SRV record leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// To a name below the same zone.
    Below(WireName),
    /// To a name elsewhere.
    Elsewhere(WireName),
}

impl Outside {
    /// Adds an address.
    pub(super) fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.v4.push(v4),
            IpAddr::V6(v6) => self.v6.push(v6),
        }
    }

    /// Sorts it all; `entries` decide the weight.
    pub(super) fn finish(mut self, entries: usize) -> Self {
        self.v4.sort_unstable();
        self.v4.dedup();
        self.v6.sort_unstable();
        self.v6.dedup();
        self.srv.sort();
        self.srv.dedup();
        self.weight = u16::try_from(100 / entries.max(1)).unwrap_or(1).max(1);
        self
    }
}

/// A change of it: one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutsideDelta {
    /// Names that are new or have something else now.
    pub set: Vec<(WireName, Arc<Outside>)>,
    /// Names that are gone.
    pub removed: Vec<WireName>,
    /// New addresses of services.
    pub pointers_set: Vec<(IpAddr, WireName)>,
    /// Addresses that services have no longer.
    pub pointers_removed: Vec<(IpAddr, WireName)>,
}

impl OutsideDelta {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { set, removed, pointers_set, pointers_removed } = self;
        set.is_empty() && removed.is_empty() && pointers_set.is_empty() && pointers_removed.is_empty()
    }
}

/// All of it, by name: as on the wire, in lower case, with the root behind it.
#[derive(Debug, Default)]
pub struct Outsides {
    names: HashMap<WireName, Arc<Outside>>,
    pointers: HashMap<IpAddr, BTreeSet<WireName>>,
}

impl Outsides {
    /// Takes a change in.
    pub(super) fn update(&mut self, delta: OutsideDelta) {
        let OutsideDelta { set, removed, pointers_set, pointers_removed } = delta;
        for name in removed {
            self.names.remove(&name);
        }
        self.names.extend(set);
        for (address, name) in pointers_removed {
            if let Some(names) = self.pointers.get_mut(&address) {
                names.remove(&name);
                if names.is_empty() {
                    self.pointers.remove(&address);
                }
            }
        }
        for (address, name) in pointers_set {
            self.pointers.entry(address).or_default().insert(name);
        }
    }

    /// What is at a name. One label in front of a service with addresses leads to the service, whatever it is, as in
    /// CoreDNS: it serves as a wildcard.
    #[must_use]
    pub fn find(&self, name: &[u8], endpoints: bool) -> Option<&Outside> {
        let meant = |name: &[u8]| self.names.get(name).filter(|outside| endpoints || !outside.endpoint);
        let wildcard = || {
            let first = labels(name).next().filter(|_| labels(name).count() == 3)?;
            self.names.get(name.get(first.len() + 1..)?).filter(|outside| !outside.endpoint)
        };
        meant(name).or_else(wildcard).map(|outside| &**outside)
    }

    /// The services with an address.
    pub fn at(&self, address: IpAddr) -> impl Iterator<Item = &WireName> {
        self.pointers.get(&address).into_iter().flatten()
    }

    /// Every name with what is there, in no order.
    pub fn all(&self, endpoints: bool) -> impl Iterator<Item = (&WireName, &Arc<Outside>)> {
        self.names.iter().filter(move |(_, outside)| endpoints || !outside.endpoint)
    }
}
