//! Questions about other zones, asked of upstream servers.
//!
//! A question's way: the [`cache`] has the answer, or somebody asks the same already, or it becomes a flight: a
//! [`mod@race`] between servers in the [`mod@order`] that the policy says, over UDP, TCP or TLS. The answer is kept as a
//! [`reply`], from which each client's response is copied.

pub mod cache;
mod flights;
pub mod order;
mod question;
mod race;
mod reply;
mod server;
mod stream;
mod tend;
pub mod tls;
mod udp;
mod upstreams;
mod waiting;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use tokio::sync::{Notify, oneshot};

use crate::WireName;
use crate::crowd::{Bounds, Crowd, Place};
use crate::fast::Manner;
use crate::name::strip_suffix;
use crate::random;
use crate::wire::{PlainQuery, flags};

use cache::{Cache, Found, STALE_TTL};
use flights::Flights;
use order::{View, order};

pub use cache::Rules;
pub use order::Policy;
pub use question::{Question, Wants};
pub use reply::{Client, Lifetime, Reply};
pub use server::{Over, Server, Trouble};
pub use upstreams::{UpstreamError, from_resolv_conf, parse_stub, parse_upstream, refuse_loops};

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

/// How to forward.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The servers for names that are below no stub domain.
    pub upstreams: Vec<SocketAddr>,
    /// Domains with servers of their own; the longest that a name is below counts.
    pub stubs: Vec<(WireName, Vec<SocketAddr>)>,
    /// Time-outs and bounds.
    pub limits: Limits,
    /// What is kept, and for how long.
    pub rules: Rules,
    /// How to choose among servers.
    pub policy: Policy,
    /// What questions go over to the servers that are no stub domain's; those of stub domains are asked over UDP, or over
    /// TCP if the others are.
    pub over: Over,
}

/// After which time a client gets an old answer, if there is one (RFC 8767 section 5).
const CLIENT_PATIENCE: Duration = Duration::from_millis(1800);

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ForwardError {
    /// Too many queries of the client wait already.
    #[error("too many queries of this client wait for upstream servers: check that they answer")]
    Busy,
    /// Nobody answered in time.
    #[error("no upstream server answered in time: check that they can be reached")]
    TimedOut,
    /// There is no server for this name.
    #[error("there is no upstream server for this name: name one with --upstream")]
    Nobody,
    /// Every server leads back here.
    #[error("every upstream server leads back to this one: name others with --upstream or in resolv.conf")]
    Loop,
    /// The last of the servers can't be asked.
    #[error("an upstream server can't be asked: {0}")]
    Server(Trouble),
}

/// Asks upstream servers.
pub struct Forwarder {
    servers: RwLock<Arc<[Arc<Server>]>>,
    /// The longest first.
    stubs: Vec<(WireName, Arc<[Arc<Server>]>)>,
    policy: Policy,
    over: Over,
    limits: Limits,
    cache: Cache,
    flights: Flights,
    waiting: Mutex<Crowd<IpAddr, oneshot::Sender<()>>>,
    left: Notify,
    probes: tend::Probes,
}

/// An answer for a client.
#[derive(Debug, Clone)]
pub struct Given {
    /// The answer.
    pub reply: Arc<Reply>,
    /// Its age in seconds.
    pub age: u32,
    /// The highest TTL to hand on.
    pub most: u32,
    /// It was kept.
    pub cached: bool,
}

/// What became of a query that may be answered at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The response is written.
    Written,
    /// The response is written, and this question is to be asked anew: [`Forwarder::renew`].
    Renew(Question),
    /// Somebody has to be asked.
    Nothing,
}

impl Forwarder {
    /// A forwarder, or `None` when there are no servers.
    #[must_use]
    pub fn new(config: Config) -> Option<Self> {
        let Config { upstreams, mut stubs, limits, rules, policy, over } = config;
        let servers = |addresses: Vec<SocketAddr>, over: &Over| -> Arc<[Arc<Server>]> {
            addresses.into_iter().map(|to| Arc::new(Server::new(to, over.clone()))).collect()
        };
        let of_stubs = if matches!(over, Over::Tcp) { Over::Tcp } else { Over::Udp };
        stubs.sort_by_key(|(domain, _)| std::cmp::Reverse(domain.as_wire().len()));
        (!upstreams.is_empty() || !stubs.is_empty()).then(|| Self {
            servers: RwLock::new(servers(upstreams, &over)),
            stubs: stubs.into_iter().map(|(domain, addresses)| (domain, servers(addresses, &of_stubs))).collect(),
            policy,
            over,
            limits,
            cache: Cache::new(rules),
            flights: Flights::default(),
            waiting: Mutex::new(Crowd::new(limits.in_flight)),
            left: Notify::new(),
            probes: tend::Probes::default(),
        })
    }

    /// Every server, those of stub domains too; the one with the same address twice where it is in two places.
    #[must_use]
    pub fn all_upstreams(&self) -> Vec<Arc<Server>> {
        let stubs = self.stubs.iter().flat_map(|(_, servers)| servers.iter());
        self.upstreams().iter().chain(stubs).cloned().collect()
    }

    /// The servers to ask about a name in lower case and wire format.
    fn servers_for(&self, name: &[u8]) -> Arc<[Arc<Server>]> {
        let own = self.stubs.iter().find(|(domain, _)| strip_suffix(name, domain.as_wire()).is_some());
        own.map_or_else(|| self.upstreams(), |(_, servers)| Arc::clone(servers))
    }

    /// The servers for names that are below no stub domain.
    #[must_use]
    pub fn upstreams(&self) -> Arc<[Arc<Server>]> {
        Arc::clone(&self.servers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks these servers from now on. What is known about those that stay is kept.
    pub fn set_upstreams(&self, addresses: &[SocketAddr]) {
        let before = self.upstreams();
        let server = |address: &SocketAddr| {
            let known = before.iter().find(|server| server.address == *address).cloned();
            known.unwrap_or_else(|| Arc::new(Server::new(*address, self.over.clone())))
        };
        *self.servers.write().unwrap_or_else(PoisonError::into_inner) = addresses.iter().map(server).collect();
    }

    /// What is kept.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
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

    /// Answers a query with what is kept, without waiting for anything.
    pub fn respond(&self, query: &PlainQuery<'_>, limit: usize, manner: Manner, out: &mut Vec<u8>) -> Kept {
        let wants = Wants {
            recursion: query.header.flags & flags::RECURSION_DESIRED != 0,
            unchecked: query.header.flags & flags::CHECKING_DISABLED != 0,
            signatures: query.edns.is_some_and(|edns| edns.dnssec_ok),
        };
        // The key is written where the response will be: nothing is allocated for either.
        question::write_key(query.name, query.record_type, wants, out);
        let (reply, age, most, renew) = match self.cache.look(out) {
            Found::Fresh { reply, age, renew, .. } => {
                let most = self.most(&reply);
                (reply, seconds(age), most, renew)
            }
            Found::Stale(reply) => (reply, 0, STALE_TTL, false),
            Found::Nothing => return Kept::Nothing,
        };
        let client = Client {
            id: query.header.id,
            flags: query.header.flags,
            question: query.question,
            edns: query.edns,
            limit,
        };
        reply.write(&client, age, most, manner, out);
        if renew { Kept::Renew(Question::new(query.name, query.record_type, wants)) } else { Kept::Written }
    }

    /// The highest TTL of an answer to hand on: nobody is to keep it for longer than it is kept here.
    fn most(&self, reply: &Reply) -> u32 {
        let rules = self.cache.rules();
        match reply.lifetime() {
            _ if rules.bytes == 0 => u32::MAX,
            Some(Lifetime::Negative(ttl)) => rules.denial.min(ttl),
            _ => rules.ttl,
        }
    }

    /// What is kept, and whether it is to be asked anew: [`Self::renew`]. An answer that is not there is not counted.
    #[must_use]
    pub fn kept(&self, question: &Question) -> Option<(Given, bool)> {
        let given = |reply, age, most| Given { reply, age, most, cached: true };
        match self.cache.look(question.key()) {
            Found::Fresh { reply, age, renew, .. } => {
                let most = self.most(&reply);
                Some((given(reply, seconds(age), most), renew))
            }
            Found::Stale(reply) => Some((given(reply, 0, STALE_TTL), false)),
            Found::Nothing => None,
        }
    }

    /// Answers from what is kept, or asks.
    ///
    /// # Errors
    /// Too many queries of this client wait already, or no server gave an answer in time.
    pub async fn ask(self: &Arc<Self>, question: &Question, client: IpAddr) -> Result<Given, ForwardError> {
        match self.cache.look(question.key()) {
            Found::Fresh { reply, age, renew, .. } => {
                if renew {
                    tokio::spawn(Arc::clone(self).renew(question.clone(), client));
                }
                let most = self.most(&reply);
                return Ok(Given { reply, age: seconds(age), most, cached: true });
            }
            Found::Stale(reply) => return Ok(Given { reply, age: 0, most: STALE_TTL, cached: true }),
            Found::Nothing => self.cache.counts.misses.increment(),
        }
        let (stays, gone) = oneshot::channel();
        let (place, _evicted) = self.waiting().admit(&client, stays).ok_or(ForwardError::Busy)?;
        let _ticket = Ticket { forwarder: self, place };
        let flight = self.flights.join(self, question, client);
        let old = async {
            if !self.cache.has_stale(question.key()) {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(CLIENT_PATIENCE).await;
        };
        let result = tokio::select! {
            result = flight.clone() => result,
            _ = gone => Err(ForwardError::Busy),
            () = old => {
                // The answer may come yet, for the next client.
                tokio::spawn(flight);
                Err(ForwardError::TimedOut)
            }
        };
        match result {
            Ok(reply) if !reply.is_failure() => {
                let most = self.most(&reply);
                Ok(Given { reply, age: 0, most, cached: false })
            }
            // Nobody can say: what was said before is better than nothing.
            other => match self.cache.fall_back(question.key()) {
                Some(reply) => Ok(Given { reply, age: 0, most: STALE_TTL, cached: true }),
                None => other.map(|reply| {
                    let most = self.most(&reply);
                    Given { reply, age: 0, most, cached: false }
                }),
            },
        }
    }

    /// Asks anew for what is kept and will go soon.
    pub async fn renew(self: Arc<Self>, question: Question, client: IpAddr) {
        // It is in the cache when it comes; what is there stays until then.
        let _reply = self.flights.join(&self, &question, client).await;
    }

    /// Asks upstream servers, and keeps what they say.
    async fn fly(&self, question: &Question, client: IpAddr) -> Result<Arc<Reply>, ForwardError> {
        let all = self.servers_for(question.name());
        let views: Vec<View> = all
            .iter()
            .map(|server| View { is_loop: server.is_loop(), is_down: server.is_down(), time: server.time() })
            .collect();
        let places = order(&views, self.policy, random::number());
        let servers: Vec<Arc<Server>> = places.iter().filter_map(|at| all.get(*at).cloned()).collect();
        let result = if all.is_empty() {
            return Err(ForwardError::Nobody);
        } else if servers.is_empty() {
            Err(ForwardError::Loop)
        } else {
            let race = race::race(&servers, question, self.limits.patience);
            tokio::time::timeout(self.limits.deadline, race).await.unwrap_or(Err(ForwardError::TimedOut))
        };
        let key = question.key();
        let kept = self.cache.has_stale(key);
        match result {
            Ok(reply) => {
                let reply = Arc::new(reply);
                // An old answer is not replaced by none.
                if !reply.is_failure() || !kept {
                    self.cache.keep(key, client, &reply);
                }
                Ok(reply)
            }
            Err(error) => {
                tracing::debug!(name = %question, %error, "no answer from upstream");
                if !kept && let Some(failure) = Reply::empty(ResponseCode::ServFail, question) {
                    self.cache.keep_silence(key, client, &Arc::new(failure));
                }
                Err(error)
            }
        }
    }
}

fn seconds(age: cache::Millis) -> u32 {
    u32::try_from(age / 1000).unwrap_or(u32::MAX)
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
