//! Answers from what is kept, or asks upstream servers.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use tokio::sync::{Notify, oneshot};

use super::cache::{Cache, Found, Millis, STALE_TTL};
use super::flights::{Flight, Flights};
use super::order::{Policy, View, order};
use super::probes::Probes;
use super::question::{Question, Wants, write_key};
use super::race::race;
use super::reply::{Client, Lifetime, Reply};
use super::server::{Over, Server};
use super::terms::{Config, ForwardError, Given, Kept, Limits};
use crate::WireName;
use crate::crowd::{Crowd, Place};
use crate::manner::Manner;
use crate::name::strip_suffix;
use crate::random;
use crate::wire::{PlainQuery, flags};

/// After which time a client gets an old answer, if there is one (RFC 8767 section 5).
const CLIENT_PATIENCE: Duration = Duration::from_millis(1800);

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
    pub(super) probes: Probes,
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
            probes: Probes::default(),
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
        write_key(query.name, query.record_type, wants, out);
        let (reply, age, most, renew) = match self.cache.look(out) {
            Found::Fresh { reply, age, renew, .. } => {
                let most = self.most(&reply);
                (reply, seconds(age), most, renew)
            }
            Found::Stale(reply) => (reply, 0, STALE_TTL, false),
            Found::Nothing => return Kept::Nothing(Question::of_key(out)),
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
        let flight = self.join(question, client);
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
        let _reply = self.join(&question, client).await;
    }

    /// The flight with this question: somebody else's, or a new one.
    fn join(self: &Arc<Self>, question: &Question, client: IpAddr) -> Flight {
        self.flights.join(question, || {
            let (forwarder, question) = (Arc::clone(self), question.clone());
            async move { forwarder.fly(&question, client).await }
        })
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
            let race = race(&servers, question, self.limits.patience);
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

fn seconds(age: Millis) -> u32 {
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
