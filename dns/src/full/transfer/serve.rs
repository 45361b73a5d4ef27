//! Who gets which zone.

use std::sync::PoisonError;
use std::time::Instant;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};

use super::super::outcome::{Asker, Outcome};
use super::super::responder::Responder;
use super::super::response::Response;
use super::Transfer;
use super::contents::{Contents, Found};
use crate::manner::Transport;
use crate::name::wire_of;
use crate::site::Block;
use crate::site::transfer::may;
use crate::zone::is_newer;

impl Responder {
    /// Answers a question for a whole zone.
    pub(in crate::full) fn transfer(
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
        let found = {
            let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner);
            Contents::of(block, &zone, &name, &spelled)
        };
        let contents = match found {
            Ok(Found::Zone(contents)) => contents,
            Ok(Found::Nothing) => return self.refuse(response, ResponseCode::Refused),
            Ok(Found::NotReady) => {
                self.stats.not_ready.increment();
                return self.refuse(response, ResponseCode::ServFail);
            }
            Err(_) => return self.refuse(response, ResponseCode::ServFail),
        };
        let RData::SOA(soa) = &contents.soa().data else { return self.refuse(response, ResponseCode::ServFail) };
        // One that is newer is from another server of the zone, which saw a change first or has started since.
        if known.is_some_and(|known| !is_newer(soa.serial, known)) {
            let mut response = response;
            response.fill(ResponseCode::NoError, vec![contents.soa().clone()], None, Vec::new());
            return self.refuse(response, ResponseCode::NoError);
        }
        tracing::info!(zone = %query.name(), %client, serial = soa.serial, names = contents.names(), "zone transfer");
        self.stats.full.increment();
        Outcome::Transfer(Box::new(Transfer {
            request: request.clone(),
            query: query.clone(),
            manner: asker.manner,
            contents,
            time: self.transfers.time,
            until: Instant::now() + self.transfers.time,
            began: false,
            _ticket: ticket,
        }))
    }
}
