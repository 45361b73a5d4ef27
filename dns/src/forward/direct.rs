//! Questions that no task waits for: whoever reads the answer hands it on.
//!
//! Most questions are answered by the first server that is asked, over UDP, within milliseconds. For those a task, with its
//! timers and the futures in it, cost more than everything else, so they are a row in the table of the socket that they were
//! asked on, and a closure for each client. Where anything else comes of it (silence, an error, an answer that is cut or not
//! taken), a task goes on with a [`mod@super::race`]; an answer that comes late still counts.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use hickory_proto::op::ResponseCode;
use tokio::sync::oneshot;

use super::flights::{Client, Wait};
use super::forwarder::{Forwarder, Ticket};
use super::question::{Match, Question};
use super::race::Tried;
use super::reply::Reply;
use super::sent::OnItsWay;
use super::server::{More, Server};
use super::terms::{ForwardError, Given};
use super::trouble::Trouble;
use super::udp::Socket;
use super::waiting::{Hears, Seat};

/// So many times in the time that a server is waited for it is looked who has waited that long.
const LOOKS: u32 = 4;

/// A question that was sent to a server.
pub(super) struct Direct {
    forwarder: Arc<Forwarder>,
    server: Arc<Server>,
    /// It is read for as long as somebody has it.
    socket: Arc<Socket>,
    seat: OnceLock<Seat>,
    question: Question,
    client: IpAddr,
    asked: Instant,
    /// It has been answered, or a task goes on with it.
    settled: AtomicBool,
}

/// A client that waits.
struct Waits<D> {
    done: D,
    forwarder: Arc<Forwarder>,
    question: Question,
    /// Its place, and what says that it was given to somebody else. An answer that is there is given all the same.
    _ticket: (Ticket, oneshot::Receiver<()>),
}

impl<D: FnOnce(Result<Given, ForwardError>) + Send + 'static> Client for Waits<D> {
    fn land(self, result: Result<Arc<Reply>, ForwardError>) {
        (self.done)(self.forwarder.settle(&self.question, result));
    }
}

impl Forwarder {
    /// Asks, and has `done` called with what [`Self::ask`] returns, by whoever has it. Does not wait for anything. To be
    /// called in a runtime's context, after nothing was found in the cache.
    pub fn begin<D>(self: &Arc<Self>, question: Question, client: IpAddr, done: D)
    where
        D: FnOnce(Result<Given, ForwardError>) + Send + 'static,
    {
        if let Some(done) = self.ask_directly(&question, client, done) {
            let forwarder = Arc::clone(self);
            tokio::spawn(async move { done(forwarder.ask(&question, client).await) });
        }
    }

    /// Asks without a task. What is handed back needs one.
    fn ask_directly<D>(self: &Arc<Self>, question: &Question, client: IpAddr, done: D) -> Option<D>
    where
        D: FnOnce(Result<Given, ForwardError>) + Send + 'static,
    {
        // Who may get an old answer does not wait as long.
        let server = self.first(question).filter(|_| !self.cache().has_stale(question.key()));
        let place = server.and_then(|server| {
            let (stays, gone) = oneshot::channel();
            Some((server, (self.free_place(&client, stays)?, gone)))
        });
        let Some((server, ticket)) = place else { return Some(done) };
        let waits = Waits { done, forwarder: Arc::clone(self), question: question.clone(), _ticket: ticket };
        let is_first = match self.flights.wait(question, waits) {
            Wait::Flies(waits) => return Some(waits.done),
            Wait::First => true,
            Wait::Joins => false,
        };
        self.cache().counts.misses.increment();
        if is_first {
            match server.socket() {
                Ok(socket) => self.send(question, client, server, socket),
                Err(error) => {
                    let trouble = Trouble::from(error);
                    server.say(&trouble);
                    self.go_on(question, client, server, Tried::Failed(trouble), Instant::now(), None);
                }
            }
        }
        None
    }

    fn send(self: &Arc<Self>, question: &Question, client: IpAddr, server: Arc<Server>, socket: Arc<Socket>) {
        let direct = Arc::new(Direct {
            forwarder: Arc::clone(self),
            server,
            socket,
            seat: OnceLock::new(),
            question: question.clone(),
            client,
            asked: Instant::now(),
            settled: AtomicBool::new(false),
        });
        self.sent.push(Arc::clone(&direct) as Arc<dyn OnItsWay>);
        if let Err(error) =
            direct.socket.ask(question, Arc::clone(&direct) as Arc<dyn Hears>, |seat| _ = direct.seat.set(seat))
        {
            Arc::clone(&direct).fails(error.into());
        }
        if self.sent.begins() {
            tokio::spawn(Arc::clone(self).look());
        }
    }

    /// Looks who waits too long, for as long as anybody waits.
    async fn look(self: Arc<Self>) {
        let patience = self.limits.patience;
        loop {
            tokio::time::sleep(patience / LOOKS).await;
            while let Some(direct) = self.sent.overdue(patience) {
                direct.is_overdue();
            }
            if self.sent.is_over() {
                return;
            }
        }
    }

    /// Goes on in a task with a question that was asked of a server.
    fn go_on(
        self: &Arc<Self>,
        question: &Question,
        client: IpAddr,
        server: Arc<Server>,
        tried: Tried,
        asked: Instant,
        direct: Option<Arc<Direct>>,
    ) {
        let (forwarder, question) = (Arc::clone(self), question.clone());
        tokio::spawn(async move {
            let flight = forwarder.flights.join(&question, || {
                let (forwarder, question) = (Arc::clone(&forwarder), question.clone());
                async move { forwarder.fly(&question, client, asked, Some((server, tried))).await }
            });
            let result = flight.await;
            forwarder.land(&question, &result);
            // An answer that comes now is too late.
            if let Some(direct) = direct {
                direct.leave();
            }
        });
    }

    fn land(&self, question: &Question, result: &Result<Arc<Reply>, ForwardError>) {
        for client in self.flights.land(question) {
            client(result.clone());
        }
    }
}

impl Hears for Direct {
    fn hear(self: Arc<Self>, found: Match, message: &[u8]) {
        if found != Match::Answer {
            return self.go_on(Tried::Partly(More::Spelled));
        }
        // What can't be read may be asked for again.
        let Some(reply) = Reply::read(message, &self.question) else { return self.go_on(Tried::Nothing) };
        if matches!(reply.code(), ResponseCode::FormErr | ResponseCode::NotImp) {
            return self.go_on(Tried::Partly(More::WithoutEdns));
        }
        // However late it is.
        self.server.note_edns();
        if reply.is_truncated() {
            return self.go_on(Tried::Partly(More::Rest(Box::new(reply))));
        }
        self.server.note(&reply, self.asked);
        if self.forwarder.failover.leaves(&reply) {
            return self.go_on(Tried::Said(Box::new(reply)));
        }
        self.settled.store(true, Ordering::Relaxed);
        let reply = Arc::new(reply);
        self.forwarder.cache().keep(&self.question, self.client, &reply);
        self.forwarder.land(&self.question, &Ok(reply));
    }

    fn fails(self: Arc<Self>, trouble: Trouble) {
        self.server.say(&trouble);
        self.go_on(Tried::Failed(trouble));
    }
}

impl OnItsWay for Direct {
    fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    fn asked(&self) -> Instant {
        self.asked
    }

    fn is_overdue(self: Arc<Self>) {
        self.go_on(Tried::Silent(self.asked));
    }
}

impl Direct {
    fn go_on(self: &Arc<Self>, tried: Tried) {
        if !self.settled.swap(true, Ordering::Relaxed) {
            let server = Arc::clone(&self.server);
            let own = Some(Arc::clone(self));
            self.forwarder.go_on(&self.question, self.client, server, tried, self.asked, own);
        }
    }

    fn leave(&self) {
        if let Some(seat) = self.seat.get() {
            self.socket.leave(seat);
        }
    }
}
