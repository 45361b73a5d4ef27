//! Whole zones (RFC 5936, RFC 1995): every record between two copies of the SOA, over a stream.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::DecodeError;

use super::external::Place;
use super::records::{Answers, Spelling};
use super::{Asker, Outcome, Responder, Response, Transport, wire_of};
use crate::WireName;
use crate::name::{labels, strip_suffix};
use crate::seldom::Seldom;
use crate::site::Block;
use crate::site::transfer::may;
use crate::zone::{Facts, Zone};

/// How much of a zone is in a message, as names are written whole: most become pointers, which reach 16 KiB.
const MESSAGE: usize = 32 << 10;

/// How many zones may be on their way at once, in all and to each client. All of a zone is in memory until its last record
/// has left, and a client may take its time.
const AT_ONCE: [usize; 2] = [8, 2];

/// Zones that are on their way.
#[derive(Debug)]
pub struct Transfers {
    clients: Arc<Mutex<Vec<IpAddr>>>,
    complaints: Seldom,
}

impl Default for Transfers {
    fn default() -> Self {
        Self { clients: Arc::default(), complaints: Seldom::new(Duration::from_mins(1)) }
    }
}

impl Transfers {
    /// Room for one more, if there is.
    fn admit(&self, client: IpAddr) -> Option<Ticket> {
        let [all, each] = AT_ONCE;
        let mut clients = lock(&self.clients);
        if clients.len() >= all || clients.iter().filter(|other| **other == client).count() >= each {
            drop(clients);
            if let Some(left_out) = self.complaints.allow() {
                tracing::info!(
                    %client, left_out,
                    "zone transfer refused: {all} are under way, or {each} to this client; it may try again when they are done"
                );
            }
            return None;
        }
        clients.push(client);
        Some(Ticket { clients: Arc::clone(&self.clients), client })
    }
}

fn lock(clients: &Mutex<Vec<IpAddr>>) -> MutexGuard<'_, Vec<IpAddr>> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The room that one takes, free again when this is dropped.
#[derive(Debug)]
struct Ticket {
    clients: Arc<Mutex<Vec<IpAddr>>>,
    client: IpAddr,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut clients = lock(&self.clients);
        if let Some(at) = clients.iter().position(|client| *client == self.client) {
            clients.swap_remove(at);
        }
    }
}

/// A zone on its way: its messages, in order.
pub struct Transfer {
    messages: std::vec::IntoIter<Response>,
    _ticket: Ticket,
}

impl Iterator for Transfer {
    type Item = Response;

    fn next(&mut self) -> Option<Response> {
        self.messages.next()
    }
}

impl Responder {
    /// Answers a question for a whole zone.
    pub(super) fn transfer(
        &self,
        block: &Block,
        response: Response,
        request: &Message,
        query: &Query,
        asker: Asker,
    ) -> Outcome {
        let spelled = wire_of(query.name());
        let name = spelled.to_ascii_lowercase();
        if asker.transport != Transport::Tcp || !may(&block.rules.transfers, &name, asker.client) {
            return self.refuse(response, ResponseCode::Refused);
        }
        // What the client has already.
        let known = match (query.query_type(), &request.authorities[..]) {
            (RecordType::IXFR, [Record { data: RData::SOA(soa), .. }]) => Some(soa.serial),
            (RecordType::IXFR, _) => return self.refuse(response, ResponseCode::FormErr),
            _ => None,
        };
        let client = asker.client;
        let Some(ticket) = self.transfers.admit(client) else { return self.refuse(response, ResponseCode::Refused) };
        let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner);
        let records = match records(block, &zone, &name, &spelled) {
            Ok(Some(records)) => records,
            Ok(None) => return self.refuse(response, ResponseCode::Refused),
            Err(_) => return self.refuse(response, ResponseCode::ServFail),
        };
        drop(zone);
        let [Record { data: RData::SOA(soa), .. }, ..] = &records[..] else {
            self.stats.not_ready.increment();
            return self.refuse(response, ResponseCode::ServFail);
        };
        if known == Some(soa.serial) {
            let mut response = response;
            response.fill(ResponseCode::NoError, records.into_iter().take(1).collect(), None, Vec::new());
            return self.refuse(response, ResponseCode::NoError);
        }
        tracing::info!(zone = %query.name(), %client, serial = soa.serial, records = records.len(), "zone transfer");
        let messages = batches(records).into_iter().map(|records| {
            let mut response = Response::to(request, query.clone(), Transport::Tcp, asker.manner);
            response.fill(ResponseCode::NoError, records, None, Vec::new());
            response
        });
        self.stats.full.increment();
        let messages: Vec<Response> = messages.collect();
        Outcome::Transfer(Transfer { messages: messages.into_iter(), _ticket: ticket })
    }
}

/// The records of the zone with this name, if it is one that is served here; none before it is known.
fn records(block: &Block, zone: &Zone, name: &[u8], spelled: &[u8]) -> Result<Option<Vec<Record>>, DecodeError> {
    let external = block.rules.external.as_ref().filter(|rules| rules.zones.iter().any(|zone| zone.as_wire() == name));
    let own = block.rules.cluster.is_some() && zone.origin().as_wire() == name;
    let all = match external {
        _ if !own && external.is_none() => return Ok(None),
        _ if !zone.is_synced() => return Ok(Some(Vec::new())),
        Some(rules) => match Place::of(rules, zone, name, spelled) {
            Ok(place) => outside(&place)?,
            Err(_) => return Ok(None),
        },
        None => inside(&Spelling { zone, spelled })?,
    };
    Ok(Some(all))
}

fn outside(place: &Place<'_>) -> Result<Vec<Record>, DecodeError> {
    let soa = place.soa()?;
    let (ns, addresses) = place.server()?;
    let mut all = vec![soa.clone(), ns];
    all.extend(addresses);
    for (name, outside) in place.zone.outsides().all(place.rules.headless) {
        let is_port = is_port(name.as_wire());
        let records = place.records(&place.name(name)?, outside, 0)?;
        all.extend(records.into_iter().filter(|record| !is_port || record.record_type() == RecordType::SRV));
    }
    all.push(soa);
    Ok(all)
}

fn inside(spelling: &Spelling<'_>) -> Result<Vec<Record>, DecodeError> {
    let zone = spelling.zone;
    let soa = spelling.soa()?;
    let mut all = Answers { records: vec![soa.clone()], glue: Vec::new() };
    let origin = spelling.name(zone.origin())?;
    if let crate::zone::Answer::NameServer(server) = zone.answer(zone.origin().as_wire(), crate::wire::RecordType::NS) {
        all.push(&origin, zone.ttl(), RData::NS(NS(spelling.name(server)?)));
        spelling.glue(server, &mut all)?;
        // The name of a Service is among the others.
        let glue = std::mem::take(&mut all.glue);
        all.records.extend(glue.into_iter().filter(|_| zone.dns_service().is_none()));
    }
    let mut names: Vec<(&WireName, &Facts)> = zone.names().collect();
    names.sort_unstable_by_key(|(name, _)| *name);
    for (name, facts) in names {
        let owner = spelling.name(name)?;
        let Some(what) = what(zone, name) else { continue };
        records_of(spelling, &owner, facts, what, name, &mut all)?;
    }
    all.records.push(soa);
    Ok(all.records)
}

/// What of a name is in a transfer, as in CoreDNS' of the same zone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// Addresses, an alias, and ports that are its own.
    Service,
    /// Addresses.
    Endpoint,
    /// Ports.
    Port,
}

fn what(zone: &Zone, name: &WireName) -> Option<What> {
    let svc = [b"\x03svc", zone.origin().as_wire()].concat();
    let front = strip_suffix(name.as_wire(), &svc)?;
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
    spelling: &Spelling<'_>,
    owner: &Name,
    facts: &Facts,
    what: What,
    name: &WireName,
    all: &mut Answers,
) -> Result<(), DecodeError> {
    let ttl = spelling.zone.ttl();
    let Facts { v4, v6, srv, alias } = facts;
    if let Some(alias) = alias {
        all.push(owner, ttl, RData::CNAME(CNAME(spelling.name(alias)?)));
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
        all.push(owner, ttl, RData::SRV(SRV::new(0, srv.weight, srv.port, spelling.name(&srv.target)?)));
    }
    Ok(())
}

/// As many records together as a message holds.
fn batches(records: Vec<Record>) -> Vec<Vec<Record>> {
    let mut batches = vec![Vec::new()];
    let mut room = MESSAGE;
    for record in records {
        let target = match &record.data {
            RData::CNAME(name) => name.len(),
            RData::NS(name) => name.len(),
            RData::SRV(srv) => srv.target.len() + 6,
            RData::SOA(soa) => soa.mname.len() + soa.rname.len() + 20,
            _ => 16,
        };
        let length = record.name.len() + target + 14;
        if length > room {
            batches.push(Vec::new());
            room = MESSAGE;
        }
        room -= length;
        if let Some(last) = batches.last_mut() {
            last.push(record);
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_two_zones_on_their_way_and_all_have_eight() {
        let transfers = Transfers::default();
        let client = |last: u8| IpAddr::from([192, 0, 2, last]);
        let first = transfers.admit(client(1)).unwrap();
        let _second = transfers.admit(client(1)).unwrap();
        assert!(transfers.admit(client(1)).is_none());
        let others: Vec<Ticket> = (2..8).map(|last| transfers.admit(client(last)).unwrap()).collect();
        assert!(transfers.admit(client(9)).is_none(), "eight are enough");
        drop(first);
        let again = transfers.admit(client(1)).unwrap();
        assert!(transfers.admit(client(9)).is_none());
        drop((again, others));
        assert!(transfers.admit(client(9)).is_some());
    }
}
