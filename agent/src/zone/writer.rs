//! From what a server says to the tables.

use std::net::IpAddr;
use std::time::Duration;

use fairlead_datapath::dns::{DnsFacts, DnsFlags, DnsName, DnsZone, LONGEST_ZONE, ZoneFlags};
use fairlead_datapath::{Addr, WirePort, WireV4};
use fairlead_objects::zone::{Begin, Holds, LEASE, Line, Name, Said, VERSION};

use crate::bpf::BpfError;

/// What holds the tables: the kernel, or memory in tests.
pub trait Store {
    /// Writes an element for each name.
    ///
    /// # Errors
    /// Some could not be written; those before it are.
    fn put(&mut self, names: &[(DnsName, DnsFacts)]) -> Result<(), BpfError>;

    /// Removes names, where they are there.
    ///
    /// # Errors
    /// Some could not be removed.
    fn remove(&mut self, names: &[DnsName]) -> Result<(), BpfError>;

    /// Whether a name is there.
    ///
    /// # Errors
    /// It can't be looked up.
    fn has(&self, name: &DnsName) -> Result<bool, BpfError>;

    /// Every name, with the session in which it was written.
    ///
    /// # Errors
    /// They can't be read.
    fn all(&self) -> Result<Vec<(DnsName, u32)>, BpfError>;

    /// The zone.
    ///
    /// # Errors
    /// It can't be read.
    fn zone(&self) -> Result<DnsZone, BpfError>;

    /// Writes the zone.
    ///
    /// # Errors
    /// It can't be written.
    fn set_zone(&mut self, zone: &DnsZone) -> Result<(), BpfError>;

    /// Returns when no program is running any more that was running at the call.
    ///
    /// # Errors
    /// The kernel refuses.
    fn barrier(&mut self) -> Result<(), BpfError>;
}

/// What the node says to it.
pub trait Node {
    /// Milliseconds since the node's start.
    fn now(&self) -> u64;

    /// The slot of the pod with one of these addresses.
    fn slot_of(&self, addresses: &[IpAddr]) -> Option<u16>;

    /// Whether somebody looks at flows to learn what policies in audit mode would deny.
    fn audits(&self) -> bool;

    /// Why policies want answers about names in a zone to come from the server, if they do.
    fn rule_about(&self, zone: &str) -> Option<String>;
}

/// What can't be followed. Nothing is answered then.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The kernel refuses.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// Another release.
    #[error(
        "the DNS server tells its zone as version {0} has it, and this agent reads version {VERSION}: run one release of \
         fairlead and fairlead-dns"
    )]
    Version(u32),
    /// It is no name.
    #[error("{0:?} is not a name that a zone has")]
    Name(String),
    /// Nothing has begun.
    #[error("the DNS server tells names before it says of which zone they are")]
    Order,
}

/// Writes the tables. It is the only one who does.
#[derive(Debug)]
pub struct Writer<S> {
    store: S,
    session: u32,
    told: Option<Told>,
    /// The zone as it is in the table.
    written: DnsZone,
}

/// What a server has told.
#[derive(Debug)]
struct Told {
    begin: Begin,
    /// The zone without a dot at its end.
    zone: String,
    /// The last time it said that all of it holds.
    holds: Option<Holds>,
    /// Names in the table.
    names: usize,
    /// There was no room for some.
    short: bool,
}

/// How it is afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// When the lease ends, in milliseconds since the node's start; 0: there is none.
    pub until: u64,
    /// Names in the table.
    pub names: usize,
    /// Why there is no lease, or why nobody says that a name does not exist.
    pub why_not: Option<String>,
}

impl<S: Store> Writer<S> {
    /// One that has heard nothing. What an agent before has left ends.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(store: S) -> Result<Self, BpfError> {
        let written = store.zone()?;
        // None that a name is of.
        let session = store.all()?.into_iter().map(|(_, session)| session).max().unwrap_or(0);
        let mut writer = Self { store, session, told: None, written };
        writer.end()?;
        Ok(writer)
    }

    /// Nothing is answered any more.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn end(&mut self) -> Result<(), BpfError> {
        self.told = None;
        self.stop()
    }

    /// Removes every name.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn clear(&mut self) -> Result<(), BpfError> {
        self.end()?;
        let all: Vec<DnsName> = self.store.all()?.into_iter().map(|(name, _)| name).collect();
        self.store.remove(&all)
    }

    /// Ends the lease.
    fn stop(&mut self) -> Result<(), BpfError> {
        if self.written.until != 0 {
            self.set(DnsZone { until: 0, ..self.written })?;
        }
        Ok(())
    }

    fn set(&mut self, zone: DnsZone) -> Result<(), BpfError> {
        // Whatever becomes of it, it is written next time.
        self.written.until = u32::MAX;
        self.store.set_zone(&zone)?;
        self.written = zone;
        Ok(())
    }

    /// Takes in what the server says. Says how it is then, where that may have changed.
    ///
    /// # Errors
    /// It can't be followed: nothing is answered any more.
    pub fn take(&mut self, line: Line, node: &impl Node) -> Result<Option<Outcome>, WriterError> {
        let taken = self.try_take(line, node);
        if taken.is_err() {
            self.end()?;
        }
        taken
    }

    fn try_take(&mut self, line: Line, node: &impl Node) -> Result<Option<Outcome>, WriterError> {
        match line {
            Line::Begin(begin) => self.begin(begin)?,
            Line::Names(names) => self.put(&names)?,
            Line::Gone(names) => self.remove(&names)?,
            Line::Holds(holds) => return self.holds(holds, node).map(Some),
            Line::Silent(why) => {
                self.end()?;
                return Ok(Some(Outcome {
                    until: 0,
                    names: 0,
                    why_not: Some(format!("the DNS server answers itself: {why}")),
                }));
            }
        }
        Ok(None)
    }

    fn begin(&mut self, begin: Begin) -> Result<(), WriterError> {
        if begin.version != VERSION {
            return Err(WriterError::Version(begin.version));
        }
        self.end()?;
        // No packet is on its way that goes by what was said before.
        self.store.barrier()?;
        self.session = self.session.wrapping_add(1);
        let zone = begin.zone.trim_end_matches('.').to_owned();
        let origin = key(&begin.zone)?.filter(|_| wire_len(&zone) <= LONGEST_ZONE as usize);
        let origin = origin.ok_or_else(|| WriterError::Name(begin.zone.clone()))?;
        let recursion = if begin.recursion { ZoneFlags::RECURSION } else { 0 };
        self.set(DnsZone {
            until: 0,
            flags: recursion,
            serial: 0,
            ttl: begin.ttl,
            soa_ttl: begin.soa_ttl,
            server: u32::MAX,
            port: WirePort::new(begin.port),
            length: wire_len(&zone) as u32,
            origin: std::array::from_fn(|at| origin.words.get(at).copied().unwrap_or(0)),
            ..DnsZone::default()
        })?;
        self.told = Some(Told { begin, zone, holds: None, names: 0, short: false });
        Ok(())
    }

    fn put(&mut self, names: &[Name]) -> Result<(), WriterError> {
        let told = self.told.as_mut().ok_or(WriterError::Order)?;
        let mut elements = Vec::with_capacity(names.len());
        for name in names {
            // What has no key is too long to be asked for there.
            if let Some(key) = key(&name.name)? {
                elements.push((key, facts(name, self.session).sealed(key.tag())));
            }
        }
        // At first every name is new to the session, and most are not there.
        for (name, _) in &elements {
            told.names += usize::from(told.holds.is_none() || !self.store.has(name)?);
        }
        if self.store.put(&elements).is_ok() {
            return Ok(());
        }
        // What a full table has no room for is not there; what it has must not be what it was.
        told.short = true;
        self.set(DnsZone { flags: self.written.flags & !ZoneFlags::COMPLETE, ..self.written })?;
        let mut missing = 0;
        for (name, facts) in elements {
            if self.store.put(&[(name, facts)]).is_err() {
                self.store.remove(&[name])?;
                missing += 1;
            }
        }
        if let Some(told) = &mut self.told {
            told.names = told.names.saturating_sub(missing);
        }
        Ok(())
    }

    fn remove(&mut self, names: &[String]) -> Result<(), WriterError> {
        let told = self.told.as_mut().ok_or(WriterError::Order)?;
        let mut keys = Vec::with_capacity(names.len());
        for name in names {
            if let Some(key) = key(name)? {
                told.names = told.names.saturating_sub(usize::from(self.store.has(&key)?));
                keys.push(key);
            }
        }
        Ok(self.store.remove(&keys)?)
    }

    fn holds(&mut self, holds: Holds, node: &impl Node) -> Result<Outcome, WriterError> {
        let told = self.told.as_mut().ok_or(WriterError::Order)?;
        if told.holds.replace(holds).is_none() {
            // What servers before have told, and this one has not.
            let others = self.store.all()?.into_iter().filter(|(_, session)| *session != self.session);
            let others: Vec<DnsName> = others.map(|(name, _)| name).collect();
            self.store.remove(&others)?;
        }
        Ok(self.look(node)?)
    }

    /// Renews the lease by what was said last, or ends it.
    ///
    /// # Errors
    /// The kernel refuses: nothing is answered once the lease is over.
    pub fn look(&mut self, node: &impl Node) -> Result<Outcome, BpfError> {
        let Some(Told { begin, zone, holds: Some(holds), names, short }) = &self.told else {
            return Ok(Outcome { until: 0, names: 0, why_not: None });
        };
        let (names, now) = (*names, node.now());
        let rule = node.rule_about(zone);
        let (slot, why_not) = match (node.slot_of(&begin.addresses), rule) {
            (_, Some(rule)) => (None, Some(rule)),
            (None, None) => (None, Some("the DNS server is not a pod of this node's network".to_owned())),
            (Some(slot), None) => (Some(slot), None),
        };
        let Some(slot) = slot else {
            self.stop()?;
            return Ok(Outcome { until: 0, names, why_not });
        };
        let complete = holds.complete && !short;
        let until = holds.at.min(now) + LEASE.as_millis() as u64;
        let flags = [
            (complete, ZoneFlags::COMPLETE),
            (begin.recursion, ZoneFlags::RECURSION),
            (node.audits(), ZoneFlags::FLOWS),
        ];
        let flags = flags.into_iter().filter(|(is, _)| *is).fold(0, |all, (_, flag)| all | flag);
        let serial = holds.serial;
        // Whole seconds: it ends with the one that it is in then.
        let second = u32::try_from(Duration::from_millis(until).as_secs()).unwrap_or(u32::MAX - 1);
        self.set(DnsZone { until: second, flags, serial, server: slot.into(), ..self.written })?;
        if until <= now {
            let why_not = Some("the DNS server no longer says that its zone holds".to_owned());
            return Ok(Outcome { until: 0, names, why_not });
        }
        let why_not = (!complete).then(|| {
            "there are more names than the table DNS_NAMES holds: that a name does not exist is said by the DNS server alone"
                .to_owned()
        });
        Ok(Outcome { until, names, why_not })
    }
}

/// Bytes of a name in wire format, with its root.
fn wire_len(name: &str) -> usize {
    let name = name.trim_end_matches('.');
    if name.is_empty() { 1 } else { name.len() + 2 }
}

/// The key of a name as text. None if it is too long to have one.
fn key(text: &str) -> Result<Option<DnsName>, WriterError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
        wire.push(length.ok_or_else(|| WriterError::Name(text.to_owned()))?);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    Ok(DnsName::of(&wire))
}

fn facts(name: &Name, session: u32) -> DnsFacts {
    let (a, v4) = match name.v4 {
        Said::Nothing => (0, WireV4::default()),
        Said::None => (DnsFlags::NO_A, WireV4::default()),
        Said::One(v4) => (DnsFlags::A, WireV4::new(v4.to_bits())),
    };
    let (aaaa, v6) = match name.v6 {
        Said::Nothing => (0, Addr::UNSPECIFIED),
        Said::None => (DnsFlags::NO_AAAA, Addr::UNSPECIFIED),
        Said::One(v6) => (DnsFlags::AAAA, Addr::from_bytes(v6.octets())),
    };
    DnsFacts { tag: 0, flags: a | aaaa, v4, session, v6 }
}

#[cfg(test)]
mod tests;
