//! From names to answers.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use tokio::sync::Notify;

use super::facts::{Delta, Facts, Pointer, Srv};
use super::options::PodMode;
use super::outside::Outsides;
use super::reverse::{address_of, pod_address};
use super::serial::{Serial, now};
use crate::name::{labels, strip_suffix};
use crate::wire::RecordType;
use crate::{NameError, WireName};

/// The zone: every name that exists, in lower case and wire format, with what is known about it.
pub struct Zone {
    origin: WireName,
    apex: Apex,
    ttl: u32,
    names: HashMap<WireName, Arc<Facts>>,
    pointers: HashMap<IpAddr, BTreeSet<Pointer>>,
    outsides: Outsides,
    serial: Serial,
    outside_serial: Serial,
    synced: bool,
    pod_mode: PodMode,
    /// Pods' addresses below `namespace.pod`, if they are looked at.
    pods: HashSet<(WireName, IpAddr)>,
    /// Addresses of this server.
    own: Vec<IpAddr>,
    /// Names that have changed since somebody took them who follows, and who wakes when there are some.
    changed: Option<BTreeSet<WireName>>,
    changes: Arc<Notify>,
}

/// Names that are there whatever the objects say.
struct Apex {
    pod: WireName,
    version: WireName,
    name_server: WireName,
    dns_service: WireName,
}

/// What the zone says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<'z> {
    /// The name belongs to another zone.
    Elsewhere,
    /// Not every object is known yet, so nothing can be said.
    NotReady,
    /// The name doesn't exist.
    NoName,
    /// The name exists and has no such record.
    NoData,
    /// A records.
    V4(Cow<'z, [Ipv4Addr]>),
    /// AAAA records.
    V6(Cow<'z, [Ipv6Addr]>),
    /// SRV records. The addresses of their targets are in the zone.
    Srv(&'z [Srv]),
    /// A CNAME to follow.
    Alias(&'z WireName),
    /// PTR records.
    Pointers(Vec<&'z WireName>),
    /// The SOA record.
    Soa,
    /// The NS record.
    NameServer(&'z WireName),
    /// The TXT record with the version of the schema.
    Version,
}

impl Zone {
    /// The version of the Kubernetes DNS specification that the names follow.
    pub const SCHEMA: &'static str = "1.1.0";
    /// The TTL of the schema's version, in seconds.
    pub const SCHEMA_TTL: u32 = 28_800;
    /// The longest TTL that can be chosen, in seconds.
    pub const MAX_TTL: u32 = 3600;

    /// An empty zone, not synced, whose records live for `ttl` seconds (at most [`Self::MAX_TTL`]).
    ///
    /// # Errors
    /// There is no room for names below `origin`.
    pub fn new(origin: WireName, ttl: u32) -> Result<Self, NameError> {
        let below = |labels: &[&str]| origin.below(labels).ok_or_else(|| NameError::Length(origin.to_string()));
        let apex = Apex {
            pod: below(&["pod"])?,
            version: below(&["dns-version"])?,
            name_server: below(&["ns", "dns"])?,
            dns_service: below(&["kube-dns", "kube-system", "svc"])?,
        };
        let fixed = [
            origin.clone(),
            below(&["svc"])?,
            below(&["dns"])?,
            apex.pod.clone(),
            apex.version.clone(),
            apex.name_server.clone(),
        ];
        let names = fixed.into_iter().map(|name| (name, Arc::default())).collect();
        Ok(Self {
            origin,
            apex,
            ttl: ttl.min(Self::MAX_TTL),
            names,
            pointers: HashMap::new(),
            outsides: Outsides::default(),
            serial: Serial::default(),
            outside_serial: Serial::default(),
            synced: false,
            pod_mode: PodMode::default(),
            pods: HashSet::new(),
            own: Vec::new(),
            changed: None,
            changes: Arc::default(),
        })
    }

    /// The zone's own name.
    #[must_use]
    pub fn origin(&self) -> &WireName {
        &self.origin
    }

    /// How long a record lives in a cache, in seconds; also the last field of the SOA.
    #[must_use]
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    /// Has records live for `ttl` seconds (at most [`Self::MAX_TTL`]), and answers names of pods so.
    pub fn configure(&mut self, ttl: u32, pods: PodMode) {
        let ttl = ttl.min(Self::MAX_TTL);
        if self.synced && self.ttl != ttl {
            self.serial.change(now());
        }
        (self.ttl, self.pod_mode) = (ttl, pods);
    }

    /// Takes these addresses for this server's own: the DNS Service is the one with them among its endpoints.
    pub fn set_own(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        let is_of_use = |address: &IpAddr| match address {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_unspecified() && !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unspecified() && !v6.is_unicast_link_local(),
        };
        let mut own: Vec<IpAddr> = addresses.into_iter().filter(is_of_use).collect();
        own.sort();
        own.dedup();
        if own == self.own {
            return;
        }
        self.own = own;
        // The zone's name server is there.
        if self.synced {
            self.serial.change(now());
            self.outside_serial.change(now());
        }
    }

    /// How long the SOA record itself lives, in seconds.
    #[must_use]
    pub fn soa_ttl(&self) -> u32 {
        self.ttl.min(300)
    }

    /// The SOA serial: the time of the last change.
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.serial.at(now)
    }

    /// The serial of what services have for clients outside.
    #[must_use]
    pub fn outside_serial(&self) -> u32 {
        self.outside_serial.at(now)
    }

    /// Whether it may answer.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Lets it answer: the builder has seen the first list of every kind and all of its changes are in.
    pub fn set_synced(&mut self) {
        if !std::mem::replace(&mut self.synced, true) {
            self.serial.change(now());
            self.outside_serial.change(now());
        }
    }

    /// Every name with its facts, in no order.
    pub fn names(&self) -> impl Iterator<Item = (&WireName, &Arc<Facts>)> {
        self.names.iter()
    }

    /// The facts of one name, in lower case and wire format.
    #[must_use]
    pub fn facts(&self, name: &[u8]) -> Option<&Facts> {
        self.names.get(name).map(|facts| &**facts)
    }

    /// Begins to remember which names change, and forgets those that have: what wakes when there are some.
    pub fn follow(&mut self) -> Arc<Notify> {
        self.changed = Some(BTreeSet::new());
        Arc::clone(&self.changes)
    }

    /// Remembers no more which names change.
    pub fn leave(&mut self) {
        self.changed = None;
    }

    /// Some names that have changed, so many at most. They are forgotten.
    pub fn take_changed(&mut self, most: usize) -> Vec<WireName> {
        let Some(changed) = &mut self.changed else { return Vec::new() };
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(name) = changed.pop_first()
        {
            taken.push(name);
        }
        taken
    }

    /// Whether names have changed that nobody has taken.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.changed.as_ref().is_some_and(|changed| !changed.is_empty())
    }

    /// Takes a change in.
    pub fn update(&mut self, delta: Delta) {
        let Delta { set, removed, pointers_set, pointers_removed, pods, outside } = delta;
        if let Some(changed) = &mut self.changed {
            changed.extend(set.iter().map(|(name, _)| name).chain(&removed).cloned());
            self.changes.notify_one();
        }
        // Nobody has a copy of what is not complete.
        if self.synced && !(set.is_empty() && removed.is_empty()) {
            self.serial.change(now());
        }
        if self.synced && !outside.is_empty() {
            self.outside_serial.change(now());
        }
        self.outsides.update(outside);
        for (parent, address, has) in pods {
            if has {
                self.pods.insert((parent, address));
            } else {
                self.pods.remove(&(parent, address));
            }
        }
        for name in removed {
            self.names.remove(&name);
        }
        self.names.extend(set);
        for (address, pointer) in pointers_removed {
            if let Some(pointers) = self.pointers.get_mut(&address) {
                pointers.remove(&pointer);
                if pointers.is_empty() {
                    self.pointers.remove(&address);
                }
            }
        }
        for (address, pointer) in pointers_set {
            self.pointers.entry(address).or_default().insert(pointer);
        }
    }

    /// The name of the DNS Service: one that serves port 53 with an address of this server among its endpoints, or else
    /// the one that is called so.
    #[must_use]
    pub fn dns_service(&self) -> Option<&WireName> {
        let pointers = self.own.iter().filter_map(|address| self.pointers.get(address)).flatten();
        let services = pointers.filter_map(|pointer| {
            let Pointer::Endpoint(name) = pointer else { return None };
            let label = labels(name.as_wire()).next()?;
            let (service, facts) = self.names.get_key_value(name.as_wire().get(label.len() + 1..)?)?;
            let serves = facts.srv.iter().any(|srv| srv.port == 53) && (facts.v4.len() + facts.v6.len() > 0);
            serves.then_some(service)
        });
        let named = || self.names.get_key_value(&self.apex.dns_service).map(|(name, _)| name);
        services.min().or_else(named)
    }

    /// Whether an address is one of the DNS Service: its own, or an endpoint's.
    #[must_use]
    pub fn is_dns_service(&self, address: IpAddr) -> bool {
        let services = [Some(&self.apex.dns_service), self.dns_service()];
        let is_its = |name: &WireName| {
            services.iter().flatten().any(|service| strip_suffix(name.as_wire(), service.as_wire()).is_some())
        };
        self.pointers.get(&address).is_some_and(|pointers| {
            pointers.iter().any(|(Pointer::Service(name) | Pointer::Endpoint(name))| is_its(name))
        })
    }

    /// What services have for clients outside.
    #[must_use]
    pub fn outsides(&self) -> &Outsides {
        &self.outsides
    }

    /// Whether a namespace exists.
    #[must_use]
    pub fn has_namespace(&self, label: &[u8]) -> bool {
        let Ok(length) = u8::try_from(label.len()) else { return false };
        let name = [&[length], label, b"\x03svc", self.origin.as_wire()].concat();
        self.names.contains_key(&name[..])
    }

    /// Whether a name is that of a service with cluster addresses.
    #[must_use]
    pub fn has_cluster_address(&self, name: &WireName) -> bool {
        let Some(Facts { v4, v6, .. }) = self.facts(name.as_wire()) else { return false };
        let addresses = v4.iter().copied().map(IpAddr::V4).chain(v6.iter().copied().map(IpAddr::V6));
        let own = Pointer::Service(name.clone());
        addresses.into_iter().any(|address| self.pointers.get(&address).is_some_and(|known| known.contains(&own)))
    }

    /// Addresses of this server.
    #[must_use]
    pub fn own(&self) -> &[IpAddr] {
        &self.own
    }

    /// The answer to a question about a name in lower case and wire format.
    #[must_use]
    pub fn answer(&self, name: &[u8], record_type: RecordType) -> Answer<'_> {
        let Some(front) = strip_suffix(name, self.origin.as_wire()) else {
            return self.reverse(name, record_type);
        };
        if !self.synced {
            return Answer::NotReady;
        }
        match self.names.get(name) {
            Some(_) if front.is_empty() => self.at_apex(record_type),
            Some(_) if name == self.apex.version.as_wire() && record_type == RecordType::TXT => Answer::Version,
            Some(_) if name == self.apex.name_server.as_wire() => {
                match self.dns_service().and_then(|service| self.facts(service.as_wire())) {
                    Some(facts) => of_facts(facts, record_type),
                    None => self.of_own(record_type),
                }
            }
            Some(facts) => of_facts(facts, record_type),
            None => self.pod(name, record_type),
        }
    }

    fn at_apex(&self, record_type: RecordType) -> Answer<'_> {
        match record_type {
            RecordType::SOA => Answer::Soa,
            RecordType::NS => Answer::NameServer(self.dns_service().unwrap_or(&self.apex.name_server)),
            _ => Answer::NoData,
        }
    }

    /// The addresses of this server.
    fn of_own(&self, record_type: RecordType) -> Answer<'_> {
        let v4: Vec<Ipv4Addr> =
            self.own.iter().filter_map(|own| if let IpAddr::V4(v4) = own { Some(*v4) } else { None }).collect();
        let v6: Vec<Ipv6Addr> =
            self.own.iter().filter_map(|own| if let IpAddr::V6(v6) = own { Some(*v6) } else { None }).collect();
        match record_type {
            RecordType::A if !v4.is_empty() => Answer::V4(v4.into()),
            RecordType::AAAA if !v6.is_empty() => Answer::V6(v6.into()),
            _ => Answer::NoData,
        }
    }

    /// `10-0-0-1.namespace.pod`: what the name says, where the namespace exists, if that is how pods are answered.
    fn pod(&self, name: &[u8], record_type: RecordType) -> Answer<'_> {
        let Some(label) = labels(name).next() else { return Answer::NoName };
        let parent = name.get(label.len() + 1..).unwrap_or_default();
        let in_namespace = strip_suffix(parent, self.apex.pod.as_wire()).is_some_and(|front| !front.is_empty());
        if !in_namespace || !self.names.contains_key(parent) {
            return Answer::NoName;
        }
        let address = pod_address(label).filter(|address| match self.pod_mode {
            PodMode::Insecure => true,
            PodMode::Disabled => false,
            PodMode::Verified => {
                let parent = self.names.get_key_value(parent).map(|(name, _)| name.clone());
                parent.is_some_and(|parent| self.pods.contains(&(parent, *address)))
            }
        });
        match (address, record_type) {
            (None, _) => Answer::NoName,
            (Some(IpAddr::V4(address)), RecordType::A) => Answer::V4(vec![address].into()),
            (Some(IpAddr::V6(address)), RecordType::AAAA) => Answer::V6(vec![address].into()),
            (Some(_), _) => Answer::NoData,
        }
    }

    /// Reverse names belong to whoever comes after us, except those of our own addresses.
    fn reverse(&self, name: &[u8], record_type: RecordType) -> Answer<'_> {
        let address = if record_type == RecordType::PTR { address_of(name) } else { None };
        let Some(address) = address else { return Answer::Elsewhere };
        if !self.synced {
            return Answer::NotReady;
        }
        let Some(pointers) = self.pointers.get(&address) else { return Answer::Elsewhere };
        if let Some(Pointer::Service(name)) = pointers.first() {
            return Answer::Pointers(vec![name]);
        }
        Answer::Pointers(pointers.iter().map(|(Pointer::Service(name) | Pointer::Endpoint(name))| name).collect())
    }
}

fn of_facts(facts: &Facts, record_type: RecordType) -> Answer<'_> {
    let Facts { v4, v6, srv, alias } = facts;
    match (record_type, alias) {
        (RecordType::A | RecordType::AAAA | RecordType::CNAME, Some(alias)) => Answer::Alias(alias),
        (RecordType::A, None) if !v4.is_empty() => Answer::V4(Cow::Borrowed(v4)),
        (RecordType::AAAA, None) if !v6.is_empty() => Answer::V6(Cow::Borrowed(v6)),
        (RecordType::SRV, None) if !srv.is_empty() => Answer::Srv(srv),
        _ => Answer::NoData,
    }
}
