//! Answers of zones with external addresses.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinDecodable, DecodeError};

use super::Response;
use super::records::Answers;
use crate::fast::{SOA_TIMES, rotated};
use crate::name::{labels, strip_suffix};
use crate::site::external::External;
use crate::wire::RecordType;
use crate::zone::{Outside, Target, Zone, address_of};
use crate::{NameError, WireName};

/// What becomes of a question for such a zone.
pub(super) enum Said {
    /// The response is complete.
    Done,
    /// Somebody else is to be asked.
    Next,
    /// The response leads to a name elsewhere, which is to be looked up.
    Alias(WireName),
}

/// One of the zones, as a question spells it.
pub(super) struct Place<'z> {
    pub(super) rules: &'z External,
    pub(super) zone: &'z Zone,
    /// The zone's name as the client spells it.
    pub(super) origin: Vec<u8>,
    apex: WireName,
}

/// What a name is in such a zone.
enum Found<'z> {
    Nothing,
    NoData,
    Apex,
    Server,
    Service(&'z Outside),
}

/// A name below a zone, from one with the root behind it.
pub(super) fn name_below(origin: &[u8], below: &WireName) -> Result<Name, DecodeError> {
    let front = below.as_wire().strip_suffix(&[0]).unwrap_or_default();
    Name::from_bytes(&[front, origin].concat())
}

/// The records that are at a name of a zone for the outside.
pub(super) fn records(
    origin: &[u8],
    ttl: u32,
    owner: &Name,
    outside: &Outside,
    id: u16,
) -> Result<Vec<Record>, DecodeError> {
    let mut answers = Answers::default();
    if let Some(alias) = &outside.alias {
        answers.push(owner, ttl, RData::CNAME(CNAME(Name::from_bytes(alias.as_wire())?)));
    }
    rotated(&outside.v4, id).for_each(|address| answers.push(owner, ttl, RData::A(A(*address))));
    rotated(&outside.v6, id).for_each(|address| answers.push(owner, ttl, RData::AAAA(AAAA(*address))));
    for (target, port) in &outside.srv {
        let target = match target {
            Target::Below(name) => name_below(origin, name)?,
            Target::Elsewhere(name) => Name::from_bytes(name.as_wire())?,
        };
        answers.push(owner, ttl, RData::SRV(SRV::new(0, outside.weight, *port, target)));
    }
    Ok(answers.records)
}

impl<'z> Place<'z> {
    /// The zone that a name is in.
    pub(super) fn of(rules: &'z External, zone: &'z Zone, name: &[u8], spelled: &[u8]) -> Result<Self, NameError> {
        let root = WireName::parse(".")?;
        let origin = rules.zone(name).unwrap_or(&root).as_wire();
        let origin = spelled.get(spelled.len() - origin.len()..).unwrap_or_default().to_vec();
        Ok(Self { rules, zone, origin, apex: WireName::parse(&rules.apex)? })
    }

    /// A name below the zone, from one with the root behind it.
    pub(super) fn name(&self, below: &WireName) -> Result<Name, DecodeError> {
        name_below(&self.origin, below)
    }

    fn below_apex(&self, label: &str) -> Result<Name, DecodeError> {
        self.apex.below(&[label]).map_or(Ok(Name::root()), |name| self.name(&name))
    }

    pub(super) fn soa(&self) -> Result<Record, DecodeError> {
        let [refresh, retry, expire] = SOA_TIMES.map(u32::cast_signed);
        let serial = self.zone.outside_serial();
        let ttl = self.rules.ttl;
        let (mname, rname) = (self.below_apex("ns1")?, self.below_apex("hostmaster")?);
        let data = SOA::new(mname, rname, serial, refresh, retry, expire, ttl);
        Ok(Record::from_rdata(Name::from_bytes(&self.origin)?, ttl, RData::SOA(data)))
    }

    /// The zone's server: its NS record and its addresses.
    pub(super) fn server(&self) -> Result<(Record, Vec<Record>), DecodeError> {
        let name = self.below_apex("ns1")?;
        let ns = Record::from_rdata(Name::from_bytes(&self.origin)?, self.rules.ttl, RData::NS(NS(name.clone())));
        let (v4, v6) = match self.zone.dns_service() {
            Some(service) => {
                let svc = [b"\x03svc", self.zone.origin().as_wire()].concat();
                let front = strip_suffix(service.as_wire(), &svc).unwrap_or_default();
                let own = self.zone.outsides().find(&[front, &[0]].concat(), self.rules.headless);
                own.map(|own| (own.v4.clone(), own.v6.clone())).unwrap_or_default()
            }
            None => {
                let (v4, v6): (Vec<_>, Vec<_>) = self.zone.own().iter().partition(|address| address.is_ipv4());
                let v4 = v4.into_iter().filter_map(|address| match address {
                    std::net::IpAddr::V4(v4) => Some(v4),
                    std::net::IpAddr::V6(_) => None,
                });
                let v6 = v6.into_iter().filter_map(|address| match address {
                    std::net::IpAddr::V6(v6) => Some(v6),
                    std::net::IpAddr::V4(_) => None,
                });
                (v4.collect(), v6.collect())
            }
        };
        let addresses = v4.into_iter().map(|v4| RData::A(A(v4))).chain(v6.into_iter().map(|v6| RData::AAAA(AAAA(v6))));
        Ok((ns, addresses.map(|data| Record::from_rdata(name.clone(), self.rules.ttl, data)).collect()))
    }

    fn find(&self, name: &[u8]) -> Found<'z> {
        let Some(front) = name.len().checked_sub(self.origin.len()).and_then(|length| name.get(..length)) else {
            return Found::Nothing;
        };
        if front.is_empty() {
            return Found::Apex;
        }
        let relative = [front, &[0]].concat();
        if let Some(below) = strip_suffix(&relative, self.apex.as_wire()) {
            return match labels(below).collect::<Vec<_>>()[..] {
                [] => Found::NoData,
                [b"ns1"] => Found::Server,
                _ => Found::Nothing,
            };
        }
        let mut all = labels(front);
        match (self.zone.outsides().find(&relative, self.rules.headless), all.next(), all.next()) {
            (Some(outside), ..) => Found::Service(outside),
            (None, Some(namespace), None) if self.zone.has_namespace(namespace) => Found::NoData,
            _ => Found::Nothing,
        }
    }

    /// The records that are at a name for the outside.
    fn records(&self, owner: &Name, outside: &Outside, id: u16) -> Result<Vec<Record>, DecodeError> {
        records(&self.origin, self.rules.ttl, owner, outside, id)
    }

    /// The addresses of what SRV records lead to.
    fn glue(&self, outside: &Outside) -> Result<Vec<Record>, DecodeError> {
        let mut glue = Vec::new();
        let mut last = None;
        for (target, _) in &outside.srv {
            let Target::Below(name) = target else { continue };
            // They are sorted by target.
            if last.replace(name) != Some(name)
                && let Some(there) = self.zone.outsides().find(name.as_wire(), self.rules.headless)
            {
                let records = self.records(&self.name(name)?, there, 0)?;
                glue.extend(records.into_iter().filter(|record| matches!(record.data, RData::A(_) | RData::AAAA(_))));
            }
        }
        Ok(glue)
    }

    /// Answers a question.
    pub(super) fn answer(
        &self,
        response: &mut Response,
        (owner, name, record_type, id): (&Name, &[u8], RecordType, u16),
    ) -> Result<Said, DecodeError> {
        let wanted = hickory_proto::rr::RecordType::from(record_type.0);
        let (mut records, mut glue) = (Vec::new(), Vec::new());
        let address = address_of(name).filter(|_| record_type == RecordType::PTR);
        let mut exists = true;
        if let Some(address) = address {
            for service in self.zone.outsides().at(address) {
                let first = self.rules.zones.first().map_or(&[0][..], WireName::as_wire);
                let front = service.as_wire().strip_suffix(&[0]).unwrap_or_default();
                let target = Name::from_bytes(&[front, first].concat())?;
                records.push(Record::from_rdata(owner.clone(), self.rules.ttl, RData::PTR(PTR(target))));
            }
            exists = !records.is_empty();
        } else {
            match self.find(name) {
                Found::Nothing => exists = false,
                Found::NoData => {}
                Found::Apex => match record_type {
                    RecordType::SOA => records.push(self.soa()?),
                    RecordType::NS => {
                        let (ns, addresses) = self.server()?;
                        (records, glue) = (vec![ns], addresses);
                    }
                    _ => {}
                },
                Found::Server => {
                    records = self.server()?.1;
                    records.iter_mut().for_each(|record| record.name = owner.clone());
                }
                Found::Service(outside) => match &outside.alias {
                    Some(alias) if matches!(record_type, RecordType::A | RecordType::AAAA) => {
                        let name = Name::from_bytes(alias.as_wire())?;
                        response.alias(vec![Record::from_rdata(
                            owner.clone(),
                            self.rules.ttl,
                            RData::CNAME(CNAME(name)),
                        )]);
                        return Ok(Said::Alias(alias.clone()));
                    }
                    _ => {
                        records = self.records(owner, outside, id)?;
                        if record_type == RecordType::SRV {
                            glue = self.glue(outside)?;
                        }
                    }
                },
            }
            records.retain(|record| record.record_type() == wanted);
        }
        if !exists && self.rules.fall.through(name) {
            return Ok(Said::Next);
        }
        let code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
        let soa = if records.is_empty() { Some(self.soa()?) } else { None };
        response.fill(code, records, soa, glue);
        Ok(Said::Done)
    }
}
