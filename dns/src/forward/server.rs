//! One upstream server: how it is asked, and what is known about it.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use hickory_proto::op::ResponseCode;
use tokio::time::timeout;

use super::question::Question;
use super::reply::Reply;
use super::stream::Lines;
use super::trouble::Trouble;
use super::udp::{Pool, Socket};
use super::upstreams::{Over, Upstream};
use super::waiting::Heard;
use crate::counter::Counter;
use crate::meter::{CODES, Histogram, TIMES, code_index};
use crate::seldom::Seldom;

/// How long it is remembered what a server can't do.
const REMEMBERED: Duration = Duration::from_mins(15);
/// How long is waited over TCP for an answer that was cut, or may be forged.
const REST: Duration = Duration::from_secs(1);
/// How long it is remembered that nothing comes over TCP.
const NO_REST: Duration = Duration::from_secs(10);
/// So many questions without an answer in a row, and a server is asked last; over TCP not at all, where UDP has part of it.
const SILENCES: u32 = 3;
/// So many questions that were answered only without an OPT record, and none is sent any more.
const SHY: u32 = 3;

/// A server that is asked.
pub struct Server {
    /// Where it is.
    pub address: SocketAddr,
    /// How long it took to answer, by response code ([`CODES`]).
    pub durations: [Histogram<{ TIMES.len() }>; CODES.len()],
    /// Questions that it didn't answer, while it was looked whether it does again.
    pub failed_checks: Counter,
    over: Over,
    pool: Pool,
    lines: Lines,
    state: Mutex<State>,
    /// It is this server, or another one of the DNS Service.
    own_address: AtomicBool,
    /// What it was asked came back here.
    led_back: AtomicBool,
    complaints: Seldom,
    recoveries: Seldom,
}

#[derive(Debug, Default)]
struct State {
    silences: u32,
    /// When it last answered anything.
    answered: Option<Instant>,
    /// Answers that came only without an OPT record, in a row.
    shy: u32,
    /// When it last answered a question that had one.
    edns_seen: Option<Instant>,
    no_edns_until: Option<Instant>,
    no_spelling_until: Option<Instant>,
    /// Answers that were waited for over TCP in vain, in a row.
    no_rest: u32,
    /// When the last of these was given up.
    no_rest_noted: Option<Instant>,
    no_rest_until: Option<Instant>,
    /// Milliseconds until it answers, smoothed.
    time: Option<f64>,
}

impl State {
    /// It has answered a question with an OPT record.
    fn note_edns(&mut self, now: Instant) {
        self.shy = 0;
        self.edns_seen = Some(now);
    }

    /// Where nothing came of a question with an OPT record, it has answered the same without.
    fn note_shy(&mut self, now: Instant) {
        // One that is slow answers both.
        if self.edns_seen.is_some_and(|seen| now.saturating_duration_since(seen) < REMEMBERED) {
            return;
        }
        // The question before may have been lost, but not each time.
        self.shy += 1;
        if self.shy >= SHY {
            self.shy = 0;
            self.no_edns_until = Some(now + REMEMBERED);
        }
    }

    /// Whether something may come over TCP.
    fn is_rest_asked(&self, now: Instant) -> bool {
        self.no_rest_until.is_none_or(|until| now >= until)
    }

    /// Something has come over TCP, if only an error or something else.
    fn note_rest(&mut self) {
        self.no_rest = 0;
        self.no_rest_until = None;
    }

    /// Nothing at all has come over TCP since then. What is waited for side by side counts once.
    fn note_no_rest(&mut self, since: Instant, now: Instant) {
        if self.no_rest_noted.is_some_and(|noted| since < noted) {
            return;
        }
        self.no_rest_noted = Some(now);
        self.no_rest = self.no_rest.saturating_add(1);
        self.no_rest_until = (self.no_rest >= SILENCES).then(|| now + NO_REST);
    }
}

/// What is known over TCP of a question that was asked over UDP.
enum Rest {
    /// This.
    Came(Reply),
    /// Nothing came there.
    Nothing,
    /// Nothing yet: it was not asked there, or the server is slow.
    Unknown,
}

impl Rest {
    fn reply(self) -> Option<Reply> {
        if let Self::Came(reply) = self { Some(reply) } else { None }
    }
}

/// What a question takes after its first answer.
pub(super) enum More {
    /// The rest of this.
    Rest(Box<Reply>),
    /// An answer without EDNS.
    WithoutEdns,
    /// One in the spelling of the question.
    Spelled,
}

impl Server {
    /// What is known about a server that has not been asked.
    #[must_use]
    pub fn new(upstream: Upstream) -> Self {
        let Upstream { address, over } = upstream;
        let tls = if let Over::Tls(tls) = &over { Some(tls.clone()) } else { None };
        Self {
            address,
            durations: std::array::from_fn(|_| Histogram::new(&TIMES)),
            failed_checks: Counter::default(),
            over,
            pool: Pool::new(address),
            lines: Lines::new(address, tls),
            state: Mutex::default(),
            own_address: AtomicBool::new(false),
            led_back: AtomicBool::new(false),
            complaints: Seldom::new(Duration::from_secs(10)),
            recoveries: Seldom::new(Duration::from_secs(10)),
        }
    }

    /// Whether it is this one.
    pub(super) fn is(&self, upstream: &Upstream) -> bool {
        let Upstream { address, over } = upstream;
        (&self.address, &self.over) == (address, over)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It leads back here, so it is not asked.
    #[must_use]
    pub fn is_loop(&self) -> bool {
        self.own_address.load(Ordering::Relaxed) || self.led_back.load(Ordering::Relaxed)
    }

    /// It has not answered for a while.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.state().silences >= SILENCES
    }

    /// Milliseconds until it answers.
    #[must_use]
    pub fn time(&self) -> Option<f64> {
        self.state().time
    }

    /// Questions on sockets that were there, and on new ones.
    #[must_use]
    pub fn sockets(&self) -> [&Counter; 2] {
        [&self.pool.reused, &self.pool.opened]
    }

    pub(super) fn renew_sockets(&self) {
        self.pool.renew();
    }

    pub(super) fn set_own_address(&self, is: bool) {
        let was = self.own_address.swap(is, Ordering::Relaxed);
        self.say_loop(was, is, "it is an address of this server or of the cluster's DNS Service");
    }

    pub(super) fn set_led_back(&self, is: bool) {
        let was = self.led_back.swap(is, Ordering::Relaxed);
        self.say_loop(was, is, "a probe that was sent to it came back here");
    }

    fn say_loop(&self, was: bool, is: bool, why: &str) {
        let server = self.address;
        match (was, is) {
            (false, true) => tracing::warn!(
                %server, why,
                "loop detected: this upstream server leads back here, so it is not asked; name another with --upstream \
                 or in resolv.conf"
            ),
            (true, false) => {
                tracing::info!(%server, "upstream server no longer loops back here: using it again");
            }
            _ => {}
        }
    }

    /// Asks. `again`: it has been asked before and was silent.
    pub(super) async fn ask(&self, question: &Question, again: bool) -> Result<Reply, Trouble> {
        let begin = Instant::now();
        let reply = self.exchange(question, again).await;
        match &reply {
            Ok(reply) => self.note(reply, begin),
            Err(trouble) => self.say(trouble),
        }
        reply
    }

    /// It has given an answer to what it was asked then.
    pub(super) fn note(&self, reply: &Reply, begin: Instant) {
        let took = begin.elapsed();
        if let Some(durations) = self.durations.get(code_index(reply.code().into())) {
            durations.observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        let took = took.as_secs_f64() * 1000.0;
        let mut state = self.state();
        let was_down = state.silences >= SILENCES;
        state.silences = 0;
        state.answered = Some(Instant::now());
        state.time = Some(state.time.map_or(took, |before| before * 0.8 + took * 0.2));
        drop(state);
        if was_down && let Some(left_out) = self.recoveries.allow() {
            tracing::info!(server = %self.address, left_out, "upstream server answers again");
        }
    }

    /// It has answered a question with an OPT record.
    pub(super) fn note_edns(&self) {
        self.state().note_edns(Instant::now());
    }

    /// Whether one question over UDP does, as far as is known: nothing that it can't do has to be minded.
    pub(super) fn is_plain(&self) -> bool {
        let state = self.state();
        let is_past = |until: Option<Instant>| until.is_none_or(|until| Instant::now() >= until);
        matches!(self.over, Over::Udp)
            && state.silences < SILENCES
            && is_past(state.no_edns_until)
            && is_past(state.no_spelling_until)
    }

    /// A socket to ask on.
    pub(super) fn socket(&self) -> io::Result<Arc<Socket>> {
        self.pool.pick()
    }

    /// It was asked then, and nobody waits for the answer any more. That is its silence only after so much time, in which
    /// it has answered nothing else: whoever asked may have gone.
    pub(super) fn was_silent(&self, since: Instant, patience: Duration) {
        let mut state = self.state();
        if since.elapsed() < patience || state.answered.is_some_and(|answered| answered >= since) {
            return;
        }
        state.silences = state.silences.saturating_add(1);
        drop(state);
        self.say(&Trouble::new("i/o timeout"));
    }

    pub(super) fn say(&self, trouble: &Trouble) {
        if let Some(left_out) = self.complaints.allow() {
            tracing::warn!(
                server = %self.address, %trouble, left_out,
                "an upstream DNS server does not answer: check that it runs and that this pod may reach it"
            );
        }
    }

    async fn exchange(&self, question: &Question, again: bool) -> Result<Reply, Trouble> {
        let now = Instant::now();
        let (shy, spelled) = {
            let state = self.state();
            let is_past = |until: Option<Instant>| until.is_none_or(|until| now >= until);
            (!is_past(state.no_edns_until), is_past(state.no_spelling_until))
        };
        // Signatures come only with an OPT record: without them an answer is of no use to whoever checks them.
        let wants = question.wants().signatures;
        let edns = !shy && (!again || wants);
        let mut reply = self.exchange_with(question, edns, spelled).await?;
        if edns && matches!(reply.code(), ResponseCode::FormErr | ResponseCode::NotImp) {
            return Box::pin(self.without_edns(question, spelled)).await;
        }
        reply.set_unsigned(wants && !edns);
        let mut state = self.state();
        if edns {
            state.note_edns(Instant::now());
        } else if again && !shy {
            state.note_shy(Instant::now());
        }
        Ok(reply)
    }

    /// Asks without an OPT record: servers that don't know EDNS say so, or they drop the question (RFC 6891 section 7).
    async fn without_edns(&self, question: &Question, spelled: bool) -> Result<Reply, Trouble> {
        let mut plain = self.exchange_with(question, false, spelled).await?;
        plain.set_unsigned(question.wants().signatures);
        if !plain.is_failure() {
            self.state().no_edns_until = Some(Instant::now() + REMEMBERED);
        }
        Ok(plain)
    }

    /// Goes on after an answer that is not the last word.
    pub(super) async fn go_on(&self, question: &Question, more: More) -> Result<Reply, Trouble> {
        let begin = Instant::now();
        let reply = match more {
            More::Rest(cut) => Ok(self.rest(question, true).await.reply().unwrap_or(*cut)),
            More::WithoutEdns => self.without_edns(question, true).await,
            More::Spelled => self.respelled(question, true).await,
        };
        match &reply {
            Ok(reply) => self.note(reply, begin),
            Err(trouble) => self.say(trouble),
        }
        reply
    }

    async fn exchange_with(&self, question: &Question, edns: bool, spelled: bool) -> Result<Reply, Trouble> {
        if !matches!(self.over, Over::Udp) {
            return self.over_tcp(question, edns).await;
        }
        let heard = match self.pool.ask(question, spelled, edns).await? {
            Heard::Answer(bytes) => Some(bytes),
            Heard::Misspelled => None,
        };
        let Some(bytes) = heard else {
            return Box::pin(self.respelled(question, edns)).await;
        };
        match Reply::read(&bytes, question) {
            Some(reply) if !reply.is_truncated() => Ok(reply),
            // What there is is better than nothing, and says that there is more.
            Some(cut) => Ok(self.rest(question, edns).await.reply().unwrap_or(cut)),
            None => self.over_tcp(question, edns).await,
        }
    }

    /// The answer where one came in another spelling. What comes over TCP is not forged; a server of which nothing comes
    /// there is one that changes spellings.
    async fn respelled(&self, question: &Question, edns: bool) -> Result<Reply, Trouble> {
        match self.rest(question, edns).await {
            Rest::Came(reply) => return Ok(reply),
            Rest::Nothing => self.state().no_spelling_until = Some(Instant::now() + REMEMBERED),
            // One forged answer must not be enough for the next.
            Rest::Unknown => {}
        }
        match self.pool.ask(question, false, edns).await? {
            Heard::Answer(bytes) => read(&bytes, question),
            Heard::Misspelled => Err(Trouble::new("it answered a different question")),
        }
    }

    /// The answer over TCP, where the one over UDP was cut or may be forged, if it comes in time.
    fn rest<'a>(&'a self, question: &'a Question, edns: bool) -> BoxFuture<'a, Rest> {
        Box::pin(async move {
            let begin = Instant::now();
            // Where something comes over TCP, an answer that is late is no sign that nothing does.
            if !self.state().is_rest_asked(begin) && !self.lines.are_alive() {
                return Rest::Unknown;
            }
            match timeout(REST, self.over_tcp(question, edns)).await {
                Ok(result) => {
                    self.state().note_rest();
                    result.map_or(Rest::Nothing, Rest::Came)
                }
                Err(_) if self.lines.are_alive() => {
                    self.state().note_rest();
                    Rest::Unknown
                }
                Err(_) => {
                    self.state().note_no_rest(begin, Instant::now());
                    Rest::Nothing
                }
            }
        })
    }

    /// In a box of its own: it is seldom needed over UDP, and would make every question large.
    fn over_tcp<'a>(&'a self, question: &'a Question, edns: bool) -> BoxFuture<'a, Result<Reply, Trouble>> {
        Box::pin(async move {
            let bytes = self.lines.ask(question, edns).await?;
            read(&bytes, question)
        })
    }
}

fn read(bytes: &[u8], question: &Question) -> Result<Reply, Trouble> {
    Reply::read(bytes, question).ok_or_else(|| Trouble::new("it sent a message that can't be read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::Wants;
    use crate::wire::RecordType;

    #[test]
    fn a_question_over_udp_takes_little_memory_while_it_waits() {
        let server = Server::new("192.0.2.1:53".parse::<SocketAddr>().unwrap().into());
        let question = Question::new(b"\x07example\x00", RecordType::A, Wants::default());
        // The C library keeps pieces of up to 1032 bytes at hand for each thread, and looks for larger ones among all.
        let size = size_of_val(&server.ask(&question, false));
        assert!(size < 900, "{size}");
    }

    #[test]
    fn it_is_remembered_for_a_while_that_nothing_comes_over_tcp() {
        let (mut state, now) = (State::default(), Instant::now());
        let second = Duration::from_secs(1);
        for number in 1..SILENCES {
            // Three that wait side by side are one.
            for _ in 0..3 {
                state.note_no_rest(now + second * (number - 1), now + second * number);
            }
            assert!(state.is_rest_asked(now));
        }
        let now = now + second * SILENCES;
        state.note_no_rest(now - second, now);
        assert!(!state.is_rest_asked(now) && !state.is_rest_asked(now + NO_REST - Duration::from_millis(1)));
        // Then one question tries it, and what comes of that holds.
        assert!(state.is_rest_asked(now + NO_REST));
        let now = now + NO_REST + second;
        state.note_no_rest(now - second, now);
        assert!(!state.is_rest_asked(now));
        state.note_rest();
        assert!(state.is_rest_asked(now));
        state.note_no_rest(now, now + second);
        assert!(state.is_rest_asked(now + second));
    }
}
