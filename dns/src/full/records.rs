//! Answers of the zone as records.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinDecodable, DecodeError};

use crate::WireName;
use crate::fast::{SOA_TIMES, rotated};
use crate::name::strip_suffix;
use crate::wire::RecordType;
use crate::zone::{Answer, Srv, Zone};

/// How many names a chain of aliases in the zone may have.
const CHAIN: usize = 10;

/// Records for the client while they are collected.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) records: Vec<Record>,
    pub(super) glue: Vec<Record>,
}

impl Answers {
    pub(super) fn push(&mut self, owner: &Name, ttl: u32, data: RData) {
        self.records.push(Record::from_rdata(owner.clone(), ttl, data));
    }
}

/// Where a chain of aliases leads.
pub(super) enum Chain {
    /// To records of this zone, or to none.
    Ends,
    /// To another zone.
    Leaves(Name),
}

/// Writes names of the zone with the client's spelling of the zone's own name.
pub(super) struct Spelling<'z> {
    pub(super) zone: &'z Zone,
    pub(super) spelled: &'z [u8],
}

/// Writes a name with the spelling that its zone's own name has at the end of another.
pub(super) fn spell(origin: &WireName, spelled: &[u8], name: &WireName) -> Result<Name, DecodeError> {
    let origin = origin.as_wire();
    let front = strip_suffix(name.as_wire(), origin);
    let queried = spelled.len().checked_sub(origin.len()).and_then(|start| spelled.get(start..));
    match (front, queried.filter(|spelled| spelled.eq_ignore_ascii_case(origin))) {
        (Some(front), Some(spelled)) => Name::from_bytes(&[front, spelled].concat()),
        _ => Name::from_bytes(name.as_wire()),
    }
}

impl Spelling<'_> {
    pub(super) fn name(&self, name: &WireName) -> Result<Name, DecodeError> {
        spell(self.zone.origin(), self.spelled, name)
    }

    pub(super) fn soa(&self) -> Result<Record, DecodeError> {
        self.soa_of(self.zone.origin())
    }

    /// The SOA of the zone, or of a reverse zone.
    pub(super) fn soa_of(&self, origin: &WireName) -> Result<Record, DecodeError> {
        let zone = self.zone;
        let below = |labels: &[&str]| origin.below(labels).map_or(Ok(Name::root()), |name| self.name(&name));
        let [refresh, retry, expire] = SOA_TIMES.map(u32::cast_signed);
        let (mname, rname) = (below(&["ns", "dns"])?, below(&["hostmaster"])?);
        let data = SOA::new(mname, rname, zone.serial(), refresh, retry, expire, zone.ttl());
        Ok(Record::from_rdata(self.name(origin)?, zone.soa_ttl(), RData::SOA(data)))
    }

    /// The records of an answer of the zone, apart from aliases.
    pub(super) fn records(
        &self,
        owner: &Name,
        id: u16,
        answer: Answer<'_>,
        answers: &mut Answers,
    ) -> Result<ResponseCode, DecodeError> {
        let ttl = self.zone.ttl();
        match answer {
            Answer::NoName => return Ok(ResponseCode::NXDomain),
            Answer::V4(addresses) => {
                rotated(&addresses, id).for_each(|address| answers.push(owner, ttl, RData::A(A(*address))));
            }
            Answer::V6(addresses) => {
                rotated(&addresses, id).for_each(|address| answers.push(owner, ttl, RData::AAAA(AAAA(*address))));
            }
            Answer::Srv(records) => self.srv(owner, records, answers)?,
            Answer::Pointers(names) => {
                for name in names {
                    answers.push(owner, ttl, RData::PTR(PTR(self.name(name)?)));
                }
            }
            Answer::Soa => answers.records.push(self.soa()?),
            Answer::NameServer(name) => {
                answers.push(owner, ttl, RData::NS(NS(self.name(name)?)));
                self.glue(name, answers)?;
            }
            Answer::Version => {
                answers.push(owner, Zone::SCHEMA_TTL, RData::TXT(TXT::new(vec![Zone::SCHEMA.to_owned()])));
            }
            Answer::NoData | Answer::Alias(_) | Answer::Elsewhere | Answer::NotReady => {}
        }
        Ok(ResponseCode::NoError)
    }

    fn srv(&self, owner: &Name, records: &[Srv], answers: &mut Answers) -> Result<(), DecodeError> {
        let mut last = None;
        for Srv { target, port, weight } in records {
            answers.push(owner, self.zone.ttl(), RData::SRV(SRV::new(0, *weight, *port, self.name(target)?)));
            // They are sorted by target.
            if last.replace(target) != Some(target) {
                self.glue(target, answers)?;
            }
        }
        Ok(())
    }

    pub(super) fn glue(&self, target: &WireName, answers: &mut Answers) -> Result<(), DecodeError> {
        let name = self.name(target)?;
        let mut add = |data| answers.glue.push(Record::from_rdata(name.clone(), self.zone.ttl(), data));
        if let Answer::V4(addresses) = self.zone.answer(target.as_wire(), RecordType::A) {
            addresses.iter().for_each(|address| add(RData::A(A(*address))));
        }
        if let Answer::V6(addresses) = self.zone.answer(target.as_wire(), RecordType::AAAA) {
            addresses.iter().for_each(|address| add(RData::AAAA(AAAA(*address))));
        }
        Ok(())
    }

    /// Follows an alias through the zone. One that leads nowhere gives no records at all.
    pub(super) fn follow(
        &self,
        owner: &Name,
        target: &WireName,
        record_type: RecordType,
        answers: &mut Answers,
    ) -> Result<Chain, DecodeError> {
        let mut owner = owner.clone();
        let mut target = target;
        for _ in 0..CHAIN {
            let name = self.name(target)?;
            answers.push(&owner, self.zone.ttl(), RData::CNAME(CNAME(name.clone())));
            match self.zone.answer(target.as_wire(), record_type) {
                Answer::Elsewhere => return Ok(Chain::Leaves(name)),
                Answer::Alias(next) => (owner, target) = (name, next),
                answer @ (Answer::V4(_) | Answer::V6(_)) => {
                    self.records(&name, 0, answer, answers)?;
                    return Ok(Chain::Ends);
                }
                _ => break,
            }
        }
        answers.records.clear();
        Ok(Chain::Ends)
    }
}
