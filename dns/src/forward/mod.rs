//! Questions about other zones, asked of upstream servers.

mod exchange;
mod upstreams;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::crowd::{Bounds, Crowd, Place};
use crate::meter::{CODES, Histogram, TIMES, code_index};

pub use upstreams::{UpstreamError, from_resolv_conf, parse_upstream, refuse_loops};

/// The UDP size that is offered to upstream servers: what every path carries in one piece (DNS flag day 2020).
const UDP_SIZE: u16 = 1232;

/// Time-outs and bounds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long one upstream server is waited for before the next is asked too.
    pub patience: Duration,
    /// How long it may all take: less than the 5 seconds after which clients ask again.
    pub deadline: Duration,
    /// How many queries may wait at once, in all and for each client. Beyond that the oldest goes.
    pub in_flight: Bounds,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            patience: Duration::from_millis(500),
            deadline: Duration::from_secs(4),
            in_flight: Bounds { all: 2000, each: 500 },
        }
    }
}

/// What is asked of an upstream server.
#[derive(Debug, Clone)]
pub struct Request {
    /// The name, in the client's spelling.
    pub name: Name,
    /// The type.
    pub record_type: RecordType,
    /// Ask for recursion, as the client does.
    pub recursion_desired: bool,
    /// Ask for unchecked data, as the client does.
    pub checking_disabled: bool,
    /// Ask for signatures, as the client does.
    pub dnssec_ok: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// Too many queries of the client wait already.
    #[error("too many queries of this client wait for upstream servers: check that they answer")]
    Busy,
    /// Nobody answered in time.
    #[error("no upstream server answered in time: check that they can be reached")]
    TimedOut,
    /// A socket failed.
    #[error("an upstream server can't be reached: {0}")]
    Io(#[from] std::io::Error),
    /// A query can't be written.
    #[error("the query can't be written: {0}")]
    Encode(#[from] hickory_proto::ProtoError),
}

/// Asks upstream servers, first the one that answered last.
pub struct Forwarder {
    upstreams: Vec<Upstream>,
    preferred: AtomicUsize,
    waiting: Mutex<Crowd<IpAddr, oneshot::Sender<()>>>,
    left: Notify,
    limits: Limits,
}

/// A server that is asked.
pub struct Upstream {
    /// Where it is.
    pub address: SocketAddr,
    /// How long it took to answer, by response code ([`CODES`]).
    pub durations: [Histogram<{ TIMES.len() }>; CODES.len()],
}

impl Upstream {
    fn new(address: SocketAddr) -> Self {
        Self { address, durations: std::array::from_fn(|_| Histogram::new(&TIMES)) }
    }
}

impl Request {
    /// The question of a client's message, perhaps about another name.
    #[must_use]
    pub fn of(client: &Message, name: Name, record_type: RecordType) -> Self {
        Self {
            name,
            record_type,
            recursion_desired: client.metadata.recursion_desired,
            checking_disabled: client.metadata.checking_disabled,
            dnssec_ok: client.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok),
        }
    }

    fn query(&self) -> Query {
        Query::query(self.name.clone(), self.record_type)
    }

    fn message(&self, id: u16) -> Message {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.checking_disabled = self.checking_disabled;
        message.add_query(self.query());
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_SIZE).set_dnssec_ok(self.dnssec_ok);
        message.set_edns(edns);
        message
    }
}

impl Forwarder {
    /// A forwarder for these servers, or `None` when there are none.
    #[must_use]
    pub fn new(upstreams: Vec<SocketAddr>, limits: Limits) -> Option<Self> {
        let waiting = Mutex::new(Crowd::new(limits.in_flight));
        let upstreams: Vec<_> = upstreams.into_iter().map(Upstream::new).collect();
        (!upstreams.is_empty()).then(|| Self {
            upstreams,
            preferred: AtomicUsize::new(0),
            waiting,
            left: Notify::new(),
            limits,
        })
    }

    /// The servers.
    #[must_use]
    pub fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    fn waiting(&self) -> MutexGuard<'_, Crowd<IpAddr, oneshot::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when no query waits any more: at the latest when the last of them has waited as long as it may.
    pub async fn idle(&self) {
        let nobody = async {
            while !self.waiting().is_empty() {
                self.left.notified().await;
            }
        };
        // Either way nothing is left to wait for.
        let _ended = tokio::time::timeout(self.limits.deadline, nobody).await;
    }

    /// Asks one server, after a while or a failure the next too, and takes the first good answer.
    ///
    /// # Errors
    /// Too many queries of this client wait already, or no server gave an answer in time.
    pub async fn ask(&self, request: &Request, client: IpAddr) -> Result<Message, ForwardError> {
        let (stays, gone) = oneshot::channel();
        let (place, _evicted) = self.waiting().admit(&client, stays).ok_or(ForwardError::Busy)?;
        let _ticket = Ticket { forwarder: self, place };
        let deadline = Instant::now() + self.limits.deadline;
        tokio::select! {
            _ = gone => Err(ForwardError::Busy),
            result = timeout_at(deadline, self.race(request)) => result.unwrap_or(Err(ForwardError::TimedOut)),
        }
    }

    async fn race(&self, request: &Request) -> Result<Message, ForwardError> {
        let first = self.preferred.load(Ordering::Relaxed);
        // A single server is asked twice, since a datagram may be lost.
        let count = self.upstreams.len().max(2);
        let mut order = (0..count).map(|step| (first + step) % self.upstreams.len());
        let mut attempts = FuturesUnordered::new();
        let mut verdict = Err(ForwardError::TimedOut);
        let mut next = Instant::now();
        let mut exhausted = false;
        loop {
            tokio::select! {
                () = sleep_until(next), if !exhausted => match order.next() {
                    Some(index) => {
                        attempts.push(self.attempt(index, request));
                        next = Instant::now() + self.limits.patience;
                    }
                    None => exhausted = true,
                },
                Some((index, result)) = attempts.next() => match result {
                    Ok(message) if !is_failure(&message) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(message);
                    }
                    // Somebody else may do better; if nobody does, this is the answer.
                    other => {
                        if verdict.is_err() {
                            verdict = other;
                        }
                        next = Instant::now();
                    }
                },
                else => return verdict,
            }
        }
    }

    async fn attempt(&self, index: usize, request: &Request) -> (usize, Result<Message, ForwardError>) {
        let Some(upstream) = self.upstreams.get(index) else { return (index, Err(ForwardError::TimedOut)) };
        let begin = Instant::now();
        let result = exchange::exchange(upstream.address, request).await;
        if let Ok(message) = &result
            && let Some(durations) = upstream.durations.get(code_index(message.metadata.response_code.into()))
        {
            durations.observe(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        (index, result)
    }
}

/// A query's place among those that wait.
struct Ticket<'f> {
    forwarder: &'f Forwarder,
    place: Place,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut waiting = self.forwarder.waiting();
        waiting.remove(self.place);
        if waiting.is_empty() {
            self.forwarder.left.notify_one();
        }
    }
}

/// Whether a response says more about the server than about the name.
fn is_failure(message: &Message) -> bool {
    matches!(
        message.metadata.response_code,
        ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp | ResponseCode::FormErr
    )
}
