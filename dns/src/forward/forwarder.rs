//! Answers from what is kept, or asks upstream servers.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use tokio::sync::{Notify, oneshot};

use super::cache::{Cache, Found, Millis, STALE_TTL};
use super::failover::Failover;
use super::flights::{Flight, Flights};
use super::order::{Policy, View, order};
use super::probes::Probes;
use super::question::{Question, Wants, write_key};
use super::race::{Tried, race};
use super::reply::{Client, Lifetime, Reply};
use super::sent::Sent;
use super::server::Server;
use super::terms::{Config, ForwardError, Given, Kept, Limits};
use super::upstreams::Upstream;
use crate::WireName;
use crate::crowd::{Crowd, Place};
use crate::manner::Manner;
use crate::name::{covers, strip_suffix};
use crate::random;
use crate::wire::{PlainQuery, flags};

/// After which time a client gets an old answer, if there is one (RFC 8767 section 5).
const CLIENT_PATIENCE: Duration = Duration::from_millis(1800);

/// Servers to forward to.
#[derive(Clone)]
pub struct Route {
    /// For names in this zone,
    pub from: WireName,
    /// and not in these.
    pub except: Vec<WireName>,
    /// The servers.
    pub forwarder: Arc<Forwarder>,
}

impl Route {
    /// Whether a name, in lower case and wire format, is forwarded there.
    #[must_use]
    pub fn is_for(&self, name: &[u8]) -> bool {
        strip_suffix(name, self.from.as_wire()).is_some() && !covers(&self.except, name)
    }
}

/// Asks upstream servers.
pub struct Forwarder {
    /// All names that are asked for are in it.
    zone: WireName,
    servers: RwLock<Arc<[Arc<Server>]>>,
    /// The longest first.
    stubs: Vec<(WireName, Arc<[Arc<Server>]>)>,
    policy: Policy,
    pub(super) failover: Failover,
    /// Who is asked where an answer is not taken: routes behind this one, in order.
    next: RwLock<Arc<[Route]>>,
    pub(super) limits: Limits,
    cache: Cache,
    pub(super) flights: Flights,
    pub(super) sent: Sent,
    waiting: Mutex<Crowd<IpAddr, oneshot::Sender<()>>>,
    left: Notify,
    pub(super) probes: Probes,
}

impl Forwarder {
    /// A forwarder, or `None` when there are no servers.
    #[must_use]
    pub fn new(config: Config) -> Option<Self> {
        let Config { zone, upstreams, mut stubs, limits, rules, policy, failover } = config;
        let servers = |upstreams: Vec<Upstream>| -> Arc<[Arc<Server>]> {
            upstreams.into_iter().map(|upstream| Arc::new(Server::new(upstream))).collect()
        };
        stubs.sort_by_key(|(domain, _)| std::cmp::Reverse(domain.as_wire().len()));
        (!upstreams.is_empty() || !stubs.is_empty()).then(|| Self {
            zone,
            servers: RwLock::new(servers(upstreams)),
            stubs: stubs.into_iter().map(|(domain, upstreams)| (domain, servers(upstreams))).collect(),
            policy,
            failover,
            next: RwLock::default(),
            limits,
            cache: Cache::new(rules),
            flights: Flights::default(),
            sent: Sent::default(),
            waiting: Mutex::new(Crowd::new(limits.in_flight)),
            left: Notify::new(),
            probes: Probes::default(),
        })
    }

    /// Every server, those of stub domains too; the one with the same address twice where it is in two places.
    #[must_use]
    pub fn all_upstreams(&self) -> Vec<Arc<Server>> {
        self.by_domain().into_iter().map(|(_, server)| server).collect()
    }

    /// Every server, with the domain whose names it is asked for.
    #[must_use]
    pub fn by_domain(&self) -> Vec<(WireName, Arc<Server>)> {
        let stubs = self.stubs.iter().flat_map(|(domain, servers)| servers.iter().map(move |server| (domain, server)));
        let own = self.upstreams();
        let all = own.iter().map(|server| (&self.zone, server)).chain(stubs);
        all.map(|(domain, server)| (domain.clone(), Arc::clone(server))).collect()
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
    pub fn set_upstreams(&self, upstreams: &[Upstream]) {
        let before = self.upstreams();
        let server = |upstream: &Upstream| {
            let known = before.iter().find(|server| server.is(upstream)).cloned();
            known.unwrap_or_else(|| Arc::new(Server::new(upstream.clone())))
        };
        *self.servers.write().unwrap_or_else(PoisonError::into_inner) = upstreams.iter().map(server).collect();
    }

    /// Asks by these routes from now on where an answer is not taken: by the first that is for the name.
    pub fn set_next(&self, routes: &[Route]) {
        *self.next.write().unwrap_or_else(PoisonError::into_inner) = routes.into();
    }

    /// Who is asked instead, where an answer is not taken.
    fn next(&self, question: &Question, reply: &Reply) -> Option<Arc<Self>> {
        if !self.failover.leaves_route(reply) {
            return None;
        }
        let routes = self.next.read().unwrap_or_else(PoisonError::into_inner);
        let route = routes.iter().find(|route| route.is_for(question.name()))?;
        Some(Arc::clone(&route.forwarder))
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
                (reply, self.age(age), most, renew)
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

    /// What has just come.
    fn fresh(&self, question: &Question, reply: Arc<Reply>) -> Given {
        let most = if self.cache.rules().scope.has(question.name()) { self.most(&reply) } else { u32::MAX };
        Given { reply, age: 0, most, cached: false }
    }

    /// How many seconds TTLs have shrunk by.
    fn age(&self, age: Millis) -> u32 {
        if self.cache.rules().constant { 0 } else { u32::try_from(age / 1000).unwrap_or(u32::MAX) }
    }

    /// What is kept, and whether it is to be asked anew: [`Self::renew`]. An answer that is not there is not counted.
    #[must_use]
    pub fn kept(&self, question: &Question) -> Option<(Given, bool)> {
        let given = |reply, age, most| Given { reply, age, most, cached: true };
        match self.cache.look(question.key()) {
            Found::Fresh { reply, age, renew, .. } => {
                let most = self.most(&reply);
                Some((given(reply, self.age(age), most), renew))
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
                return Ok(Given { reply, age: self.age(age), most, cached: true });
            }
            Found::Stale(reply) => return Ok(Given { reply, age: 0, most: STALE_TTL, cached: true }),
            Found::Nothing => self.cache.counts.misses.increment(),
        }
        let (stays, gone) = oneshot::channel();
        let (place, _evicted) = self.waiting().admit(&client, stays).ok_or(ForwardError::Busy)?;
        let _ticket = Ticket { forwarder: Arc::clone(self), place };
        let flight = self.flights.join_clients(question).unwrap_or_else(|| self.join(question, client));
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
        self.settle(question, result)
    }

    /// What a client gets of what came of a question.
    pub(super) fn settle(
        &self,
        question: &Question,
        result: Result<Arc<Reply>, ForwardError>,
    ) -> Result<Given, ForwardError> {
        match result {
            Ok(reply) if !reply.is_failure() => Ok(self.fresh(question, reply)),
            // Nobody can say: what was said before is better than nothing.
            other => match self.cache.fall_back(question.key()) {
                Some(reply) => Ok(Given { reply, age: 0, most: STALE_TTL, cached: true }),
                None => other.map(|reply| self.fresh(question, reply)),
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
            async move { forwarder.fly(&question, client, Instant::now(), None).await }
        })
    }

    /// Asks upstream servers, and keeps what they say. They may have been asked since `begin`, with this result.
    pub(super) async fn fly(
        &self,
        question: &Question,
        client: IpAddr,
        begin: Instant,
        tried: Option<(Arc<Server>, Tried)>,
    ) -> Result<Arc<Reply>, ForwardError> {
        // Where this process could not go on for as long, there is still time for one more server.
        let deadline = (begin + self.limits.deadline).max(Instant::now() + self.limits.patience);
        let exchange = async {
            let mut reply = self.exchange(question, tried, deadline).await?;
            let mut next = self.next(question, &reply);
            while let Some(forwarder) = next {
                reply = forwarder.exchange(question, None, deadline).await?;
                next = forwarder.next(question, &reply);
            }
            Ok(reply)
        };
        let result = exchange.await;
        if let Err(ForwardError::Nobody) = result {
            return Err(ForwardError::Nobody);
        }
        let key = question.key();
        let kept = self.cache.has_stale(key);
        match result {
            Ok(reply) => {
                let reply = Arc::new(reply);
                // An old answer is not replaced by none.
                if !reply.is_failure() || !kept {
                    self.cache.keep(question, client, &reply);
                }
                Ok(reply)
            }
            Err(error) => {
                tracing::debug!(name = %question, %error, "no answer from upstream");
                if !kept && let Some(failure) = Reply::empty(ResponseCode::ServFail, question) {
                    self.cache.keep_silence(question, client, &Arc::new(failure));
                }
                Err(error)
            }
        }
    }

    fn views(&self, servers: &[Arc<Server>]) -> Vec<View> {
        let view =
            |server: &Arc<Server>| View { is_loop: server.is_loop(), is_down: server.is_down(), time: server.time() };
        servers.iter().map(view).collect()
    }

    /// Asks the servers of this route. One may have been asked already.
    async fn exchange(
        &self,
        question: &Question,
        tried: Option<(Arc<Server>, Tried)>,
        deadline: Instant,
    ) -> Result<Reply, ForwardError> {
        let all = self.servers_for(question.name());
        let views = self.views(&all);
        let places = order(&views, self.policy, random::number());
        let mut servers: Vec<Arc<Server>> = places.iter().filter_map(|at| all.get(*at).cloned()).collect();
        let tried = match tried {
            Some((server, tried)) => {
                servers.retain(|other| !Arc::ptr_eq(other, &server));
                servers.insert(0, server);
                tried
            }
            None => {
                match places.first().and_then(|at| views.get(*at)) {
                    None if all.is_empty() => return Err(ForwardError::Nobody),
                    None => return Err(ForwardError::Loop),
                    // Those that answer come first.
                    Some(first) if first.is_down && self.failover.fast => return Err(ForwardError::Down),
                    Some(_) => {}
                }
                Tried::Nothing
            }
        };
        race(&servers, question, self.limits.patience, &self.failover, tried, deadline.into()).await
    }

    /// The server to ask first, if one question over UDP does, as far as is known.
    pub(super) fn first(&self, question: &Question) -> Option<Arc<Server>> {
        let all = self.servers_for(question.name());
        let first = match &all[..] {
            [only] => only,
            all => all.get(*order(&self.views(all), self.policy, random::number()).first()?)?,
        };
        (!first.is_loop() && first.is_plain()).then(|| Arc::clone(first))
    }

    /// A place for a client that waits, if nobody has to give one up.
    pub(super) fn free_place(self: &Arc<Self>, client: &IpAddr, stays: oneshot::Sender<()>) -> Option<Ticket> {
        let place = self.waiting().admit_free(client, stays)?;
        Some(Ticket { forwarder: Arc::clone(self), place })
    }
}

/// A query's place among those that wait.
pub(super) struct Ticket {
    forwarder: Arc<Forwarder>,
    place: Place,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiting = self.forwarder.waiting();
        waiting.remove(self.place);
        if waiting.is_empty() {
            self.forwarder.left.notify_one();
        }
    }
}
