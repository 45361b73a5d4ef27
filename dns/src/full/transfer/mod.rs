//! Whole zones (RFC 5936, RFC 1995): every record between two copies of the SOA, over a stream.

mod contents;
mod serve;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::Record;

use self::contents::Contents;
use super::response::Response;
use crate::manner::{Manner, Transport};
use crate::seldom::Seldom;

/// How much of a zone is in a message, as names are written whole: most become pointers, which reach 16 KiB.
const MESSAGE: usize = 32 << 10;

/// How many zones may be on their way at once, in all and to each client. What has changed since is in memory twice until
/// the last record has left.
const AT_ONCE: [usize; 2] = [8, 2];
/// How long a client may take for a zone.
const WHOLE: Duration = Duration::from_mins(2);

/// Zones that are on their way.
#[derive(Debug)]
pub struct Transfers {
    clients: Arc<Mutex<Vec<IpAddr>>>,
    complaints: Seldom,
    time: Duration,
}

impl Default for Transfers {
    fn default() -> Self {
        Self::within(WHOLE)
    }
}

impl Transfers {
    /// Zones have this much time to reach a client.
    #[must_use]
    pub fn within(time: Duration) -> Self {
        Self { clients: Arc::default(), complaints: Seldom::new(Duration::from_mins(1)), time }
    }

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

/// Why a zone does not arrive whole. The stream ends then, since a client can't be told otherwise.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The client takes too long.
    #[error("the client did not take the zone within {} s", .0.as_secs())]
    Late(Duration),
    /// A name can't be written.
    #[error("a name of the zone can't be written: {0}")]
    Name(#[from] hickory_proto::serialize::binary::DecodeError),
}

/// A zone on its way: its messages, in order. They are made when they are asked for.
pub struct Transfer {
    request: Message,
    query: Query,
    manner: Manner,
    contents: Box<Contents>,
    time: Duration,
    until: Instant,
    began: bool,
    _ticket: Ticket,
}

impl Transfer {
    fn message(&self, records: Vec<Record>) -> Response {
        let mut response = Response::to(&self.request, self.query.clone(), Transport::Tcp, self.manner);
        response.fill(ResponseCode::NoError, records, None, Vec::new());
        response
    }
}

impl Iterator for Transfer {
    type Item = Result<Response, TransferError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.contents.take(MESSAGE) {
            Ok(records) if records.is_empty() => None,
            Ok(_) if self.began && Instant::now() >= self.until => Some(Err(TransferError::Late(self.time))),
            Ok(records) => {
                self.began = true;
                Some(Ok(self.message(records)))
            }
            Err(error) => Some(Err(error.into())),
        }
    }
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
