//! What is in a zone, as it was at one time. Names and what is at them are shared with the zone, so this is small; records
//! are made when they are sent.

use std::sync::Arc;
use std::vec;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::DecodeError;

use super::super::external::{Place, name_below, records};
use super::super::records::{Answers, Spelling, spell};
use crate::WireName;
use crate::name::{labels, strip_suffix};
use crate::site::Block;
use crate::zone::{Answer, Facts, Outside, Zone};

/// The records of a zone: the SOA, what is at the zone's own name, every other name in order, and the SOA again.
pub(super) struct Contents {
    soa: Record,
    /// What comes next, the last first.
    next: Vec<Record>,
    names: Names,
    ended: bool,
}

enum Names {
    Inside { origin: WireName, spelled: Vec<u8>, ttl: u32, names: vec::IntoIter<(WireName, Arc<Facts>, What)> },
    Outside { origin: Vec<u8>, ttl: u32, names: vec::IntoIter<(WireName, Arc<Outside>)> },
}

/// What of a name is in a transfer, as in CoreDNS' of the same zone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// Addresses, an alias, and ports that are its own.
    Service,
    /// Addresses.
    Endpoint,
    /// Ports.
    Port,
}

/// Whether there is such a zone.
pub(super) enum Found {
    /// It is not one that is served here.
    Nothing,
    /// It is, and not complete yet.
    NotReady,
    /// This is in it.
    Zone(Box<Contents>),
}

impl Contents {
    /// The zone with this name, if it is one that is served here.
    pub(super) fn of(block: &Block, zone: &Zone, name: &[u8], spelled: &[u8]) -> Result<Found, DecodeError> {
        let is_external = |zones: &[WireName]| zones.iter().any(|zone| zone.as_wire() == name);
        let external = block.rules.external.as_ref().filter(|rules| is_external(&rules.zones));
        let own = block.rules.cluster.is_some() && zone.origin().as_wire() == name;
        if !own && external.is_none() {
            return Ok(Found::Nothing);
        }
        if !zone.is_synced() {
            return Ok(Found::NotReady);
        }
        let contents = match external {
            Some(rules) => match Place::of(rules, zone, name, spelled) {
                Ok(place) => Self::outside(place)?,
                Err(_) => return Ok(Found::Nothing),
            },
            None => Self::inside(zone, spelled)?,
        };
        Ok(Found::Zone(Box::new(contents)))
    }

    fn new(soa: Record, mut head: Vec<Record>, names: Names) -> Self {
        head.insert(0, soa.clone());
        head.reverse();
        Self { soa, next: head, names, ended: false }
    }

    fn outside(place: Place<'_>) -> Result<Self, DecodeError> {
        let (ns, addresses) = place.server()?;
        let head = std::iter::once(ns).chain(addresses).collect();
        let all = place.zone.outsides().all(place.rules.headless);
        let mut names: Vec<_> = all.map(|(name, outside)| (name.clone(), Arc::clone(outside))).collect();
        names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let (soa, ttl) = (place.soa()?, place.rules.ttl);
        Ok(Self::new(soa, head, Names::Outside { origin: place.origin, ttl, names: names.into_iter() }))
    }

    fn inside(zone: &Zone, spelled: &[u8]) -> Result<Self, DecodeError> {
        let spelling = Spelling { zone, spelled };
        let mut head = Answers::default();
        let apex = zone.origin().as_wire();
        if let Answer::NameServer(server) = zone.answer(apex, crate::wire::RecordType::NS) {
            head.push(&spelling.name(zone.origin())?, zone.ttl(), RData::NS(NS(spelling.name(server)?)));
            // The name of a Service is among the others.
            if zone.dns_service().is_none() {
                spelling.glue(server, &mut head)?;
            }
        }
        let Answers { mut records, glue } = head;
        records.extend(glue);
        let svc = [b"\x03svc", apex].concat();
        let meant =
            zone.names().filter_map(|(name, facts)| Some((name.clone(), Arc::clone(facts), what(zone, &svc, name)?)));
        let mut names: Vec<_> = meant.collect();
        names.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
        let names = names.into_iter();
        let names = Names::Inside { origin: zone.origin().clone(), spelled: spelled.to_vec(), ttl: zone.ttl(), names };
        Ok(Self::new(spelling.soa()?, records, names))
    }

    /// The SOA.
    pub(super) fn soa(&self) -> &Record {
        &self.soa
    }

    /// How many names are to come.
    pub(super) fn names(&self) -> usize {
        match &self.names {
            Names::Inside { names, .. } => names.len(),
            Names::Outside { names, .. } => names.len(),
        }
    }

    /// So many records as have at most `most` bytes with their names written whole; at least one, if there is one.
    pub(super) fn take(&mut self, most: usize) -> Result<Vec<Record>, DecodeError> {
        let (mut taken, mut room) = (Vec::new(), most);
        loop {
            while self.next.is_empty() && !self.ended {
                self.next = match self.names.next()? {
                    Some(mut records) => {
                        records.reverse();
                        records
                    }
                    None => {
                        self.ended = true;
                        vec![self.soa.clone()]
                    }
                };
            }
            let Some(record) = self.next.pop() else { return Ok(taken) };
            let length = length(&record);
            if length > room && !taken.is_empty() {
                self.next.push(record);
                return Ok(taken);
            }
            room = room.saturating_sub(length);
            taken.push(record);
        }
    }
}

impl Names {
    /// What is at the next name.
    fn next(&mut self) -> Result<Option<Vec<Record>>, DecodeError> {
        match self {
            Self::Inside { origin, spelled, ttl, names } => {
                let Some((name, facts, what)) = names.next() else { return Ok(None) };
                let spell = |name: &WireName| spell(origin, spelled, name);
                records_of(spell, *ttl, (&name, &facts), what).map(Some)
            }
            Self::Outside { origin, ttl, names } => {
                let Some((name, outside)) = names.next() else { return Ok(None) };
                let is_port = is_port(name.as_wire());
                let mut records = records(origin, *ttl, &name_below(origin, &name)?, &outside, 0)?;
                records.retain(|record| !is_port || record.record_type() == RecordType::SRV);
                Ok(Some(records))
            }
        }
    }
}

fn what(zone: &Zone, svc: &[u8], name: &WireName) -> Option<What> {
    let front = strip_suffix(name.as_wire(), svc)?;
    match labels(front).count() {
        2 => Some(What::Service),
        // Endpoints of Services with an address of their own are left out.
        3 => {
            let own = labels(front).next().map_or(0, <[u8]>::len) + 1;
            let service = WireName::from_wire(name.as_wire().get(own..)?);
            (!is_port(front) && !zone.has_cluster_address(&service)).then_some(What::Endpoint)
        }
        4 => Some(What::Port),
        _ => None,
    }
}

fn is_port(name: &[u8]) -> bool {
    labels(name).next().is_some_and(|label| label.starts_with(b"_"))
}

fn records_of(
    spell: impl Fn(&WireName) -> Result<Name, DecodeError>,
    ttl: u32,
    (name, facts): (&WireName, &Facts),
    what: What,
) -> Result<Vec<Record>, DecodeError> {
    let owner = &spell(name)?;
    let mut all = Answers::default();
    let Facts { v4, v6, srv, alias } = facts;
    if let Some(alias) = alias {
        all.push(owner, ttl, RData::CNAME(CNAME(spell(alias)?)));
    }
    if what != What::Port {
        v4.iter().for_each(|address| all.push(owner, ttl, RData::A(A(*address))));
        v6.iter().for_each(|address| all.push(owner, ttl, RData::AAAA(AAAA(*address))));
    }
    let wanted = |target: &WireName| match what {
        What::Service => target == name,
        What::Endpoint => false,
        What::Port => true,
    };
    for srv in srv.iter().filter(|srv| wanted(&srv.target)) {
        all.push(owner, ttl, RData::SRV(SRV::new(0, srv.weight, srv.port, spell(&srv.target)?)));
    }
    Ok(all.records)
}

/// How long a record is with its names written whole.
fn length(record: &Record) -> usize {
    let target = match &record.data {
        RData::CNAME(name) => name.len(),
        RData::NS(name) => name.len(),
        RData::SRV(srv) => srv.target.len() + 6,
        RData::SOA(soa) => soa.mname.len() + soa.rname.len() + 20,
        _ => 16,
    };
    record.name.len() + target + 14
}
