//! What becomes of a response: it goes, or it waits for the agent.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use fairlead_objects::DomainNames;
use fairlead_objects::names::{Ask, MOST_ADDRESSES, RULES, SOCKET, Said};

use super::agent::{Agent, Tell};
use super::budget::Budget;
use super::response;
use super::rules::{self, Rules, RulesError};
use crate::counter::Counter;
use crate::files::stamp;
use crate::meter::Histogram;

/// How often the agent's file is looked at while nobody asks.
const LOOK: Duration = Duration::from_millis(50);

/// How old what is known of it may be when somebody is answered, in nanoseconds. A pod whose rules are new in it has yet to start.
const FRESH: u64 = 1_000_000;

/// How long the agent's word about a client, a name and addresses is good, if the answer does not last longer than the one
/// that it was about by more than that: the agent adds five seconds to what it is asked for.
const GOOD: Duration = Duration::from_secs(1);

/// Words of the agent that are remembered.
const REMEMBERED: usize = 4096;

/// Bounds of the time that an answer waits for the agent, in nanoseconds.
pub const WAITS: [u64; 10] =
    [20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 20_000_000, 50_000_000];

/// What is counted.
#[derive(Debug)]
pub struct Counters {
    /// Answers whose addresses are in force.
    pub in_force: Counter,
    /// Answers that no rule is about after all.
    pub not_covered: Counter,
    /// Answers whose addresses the agent did not bring into force.
    pub refused: Counter,
    /// Answers of which the agent said nothing in time.
    pub silent: Counter,
    /// Answers that were not asked about, since their client has so many.
    pub crowded: Counter,
    /// Answers to clients that are none of the node's pods, for names that rules have: they open nothing.
    pub elsewhere: Counter,
    /// Nanoseconds that answers waited for the agent.
    pub waits: Histogram<{ WAITS.len() }>,
}

impl Default for Counters {
    fn default() -> Self {
        let counter = Counter::default;
        Self {
            in_force: counter(),
            not_covered: counter(),
            refused: counter(),
            silent: counter(),
            crowded: counter(),
            elsewhere: counter(),
            waits: Histogram::new(&WAITS),
        }
    }
}

/// Whether responses concern policy, and what becomes of those.
#[derive(Debug, Default)]
pub struct Gate {
    /// What is counted.
    pub counters: Counters,
    /// Whether there are rules at all.
    is_used: AtomicBool,
    /// Whether there is a file that can't be read: then any answer may concern policy.
    is_unread: AtomicBool,
    file: OnceLock<File>,
    rules: RwLock<Arc<Rules>>,
    agent: OnceLock<Arc<Agent>>,
    said: Mutex<HashMap<Key, Word>>,
    budget: Mutex<Budget>,
    /// The same of what is only counted: that takes nothing of what is asked.
    counted: Mutex<Budget>,
}

/// The agent's file.
#[derive(Debug)]
struct File {
    path: PathBuf,
    begin: Instant,
    /// When it is to be looked at again, in nanoseconds since then.
    next: AtomicU64,
    /// The state that it was read in last.
    read: Mutex<Option<u64>>,
}

/// A client, a name, and addresses: those of both families are asked for side by side.
type Key = (IpAddr, String, u64);

/// What the agent has said of these.
#[derive(Debug)]
struct Word {
    asked: Instant,
    until: Instant,
}

/// What becomes of a response.
#[derive(Debug)]
pub enum Look {
    /// It goes.
    Goes,
    /// The agent is to be asked: [`Gate::ask`].
    Ask(Box<Question>),
    /// There is no answer: [`Gate::failed`].
    Fails,
    /// This goes in its place.
    Instead(Vec<u8>),
}

/// A question for the agent.
#[derive(Debug)]
pub struct Question {
    ask: Ask,
    until: Instant,
    /// Whether a rule for the client has the name. Else nobody knows what rules have.
    is_covered: bool,
}

/// One that was asked.
#[derive(Debug)]
struct Asked {
    key: Key,
    since: Instant,
    until: Instant,
    is_covered: bool,
}

impl Asked {
    fn of(question: Question) -> (Ask, Self) {
        let Question { ask, until, is_covered } = question;
        let key = (ask.client, ask.name.clone(), digest(&ask.addresses));
        (ask, Self { key, since: Instant::now(), until, is_covered })
    }
}

impl Gate {
    /// Does as the agent says that shares this directory, in the current runtime.
    pub fn follow(self: &Arc<Self>, directory: &Path) {
        let _once = self.agent.set(Agent::connect(&directory.join(SOCKET)));
        let (path, begin) = (directory.join(RULES), Instant::now());
        let _once = self.file.set(File { path, begin, next: AtomicU64::new(0), read: Mutex::default() });
        // Before anybody is answered.
        self.keep_up();
        let gate = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                gate.keep_up();
            }
        });
    }

    /// Reads the agent's file if it has changed. It is small, and in memory.
    fn keep_up(&self) {
        let Some(file) = self.file.get() else { return };
        let now = || u64::try_from(file.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if now() < file.next.load(Ordering::Acquire) {
            return;
        }
        let mut read = file.read.lock().unwrap_or_else(PoisonError::into_inner);
        // Who waited for it knows what another has read.
        if now() < file.next.load(Ordering::Acquire) {
            return;
        }
        let begin = now();
        match stamp(&file.path).map(mark) {
            Ok(mark) if *read == Some(mark) => {}
            Ok(mark) => {
                *read = Some(mark);
                match rules::read(&file.path) {
                    Ok(rules) => self.set_rules(rules),
                    Err(error) => self.cannot_read(&file.path, &error),
                }
            }
            // What is known stays.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                *read = None;
                self.cannot_read(&file.path, &error.into());
            }
        }
        file.next.store(begin.saturating_add(FRESH), Ordering::Release);
    }

    /// What is known stays, and the agent is asked about all else.
    fn cannot_read(&self, path: &Path, error: &RulesError) {
        if !self.is_unread.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                path = %path.display(), %error, "which names rules have is not known: the agent is asked about every answer"
            );
        }
    }

    fn set_rules(&self, rules: Rules) {
        let is_used = !rules.is_empty();
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.is_used.store(is_used, Ordering::Relaxed);
        self.is_unread.store(false, Ordering::Relaxed);
    }

    /// What becomes of a response to a client.
    #[must_use]
    pub fn look(&self, client: IpAddr, message: &[u8]) -> Look {
        self.keep_up();
        let is_unread = self.is_unread.load(Ordering::Relaxed);
        if !is_unread && !self.is_used.load(Ordering::Relaxed) {
            return Look::Goes;
        }
        let rules = Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner));
        let client = client.to_canonical();
        if let Some(audited) = rules.audited_of(client) {
            self.tell(client, audited, rules.of_client(client), message);
        }
        let Some(names) = rules.of_client(client) else {
            if is_unread {
                return self.look_unread(client, message);
            }
            if rules.is_elsewhere(client, || response::asked(message)) {
                self.counters.elsewhere.increment();
            }
            return Look::Goes;
        };
        let Some(name) = response::asked(message).filter(|name| names.matches(name)) else {
            return if is_unread { self.look_unread(client, message) } else { Look::Goes };
        };
        match response::addresses(message) {
            Some(found) if found.addresses.is_empty() => {
                response::without_hints(message).map_or(Look::Goes, Look::Instead)
            }
            Some(found) if found.addresses.len() <= MOST_ADDRESSES => self.consider(client, name, found, true),
            _ => {
                self.counters.refused.increment();
                Look::Fails
            }
        }
    }

    /// The same where nobody knows what rules have: the agent says so, as long as it is there.
    fn look_unread(&self, client: IpAddr, message: &[u8]) -> Look {
        let found = response::addresses(message)
            .filter(|found| !found.addresses.is_empty() && found.addresses.len() <= MOST_ADDRESSES);
        match response::asked(message).zip(found) {
            Some((name, found)) => self.consider(client, name, found, false),
            None => Look::Goes,
        }
    }

    /// Tells the agent what a client is given for a name that a rule in audit mode has. That is only counted: nobody waits, and
    /// if the agent is away it does not know.
    fn tell(&self, client: IpAddr, names: &DomainNames, asked_by: Option<&Arc<DomainNames>>, message: &[u8]) {
        let Some(name) = response::asked(message).filter(|name| names.matches(name)) else { return };
        // What is asked about is told.
        let is_asked = asked_by.is_some_and(|names| names.matches(&name));
        let Some(found) = response::addresses(message) else { return };
        if found.addresses.is_empty() || found.addresses.len() > MOST_ADDRESSES {
            return;
        }
        let (now, response::Addresses { addresses, ttl }) = (Instant::now(), found);
        let (key, until) = ((client, name, digest(&addresses)), end(now, ttl));
        if is_asked || self.is_known(&key, until, now) {
            return;
        }
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let may = counted.spend(client, addresses.len(), now);
        drop(counted);
        if !may {
            return;
        }
        let ask = Ask { id: 0, client, name: key.1.clone(), ttl, addresses };
        if self.agent.get().is_some_and(|agent| agent.say(ask)) {
            self.remember(key, Word { asked: now, until });
        }
    }

    /// Whether the agent knows of an answer by now.
    fn is_known(&self, key: &Key, until: Instant, now: Instant) -> bool {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.get(key).is_some_and(|word| until <= word.until + GOOD && now.duration_since(word.asked) < GOOD)
    }

    fn remember(&self, key: Key, word: Word) {
        let mut words = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() >= REMEMBERED {
            words.clear();
        }
        words.insert(key, word);
    }

    fn consider(&self, client: IpAddr, name: String, found: response::Addresses, is_covered: bool) -> Look {
        let (now, response::Addresses { addresses, ttl }) = (Instant::now(), found);
        let until = end(now, ttl);
        let key = (client, name, digest(&addresses));
        if self.is_known(&key, until, now) {
            return Look::Goes;
        }
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let may = budget.spend(client, addresses.len(), now);
        drop(budget);
        if !may && !is_covered {
            return Look::Goes;
        }
        if !may {
            self.counters.crowded.increment();
            return Look::Fails;
        }
        let (client, name, _) = key;
        let ask = Ask { id: 0, client, name, ttl, addresses };
        Look::Ask(Box::new(Question { ask, until, is_covered }))
    }

    /// Asks the agent whether a response goes.
    pub async fn ask(&self, question: Question) -> bool {
        let (ask, asked) = Asked::of(question);
        let said = match self.agent.get() {
            Some(agent) => agent.ask(ask).await,
            None => None,
        };
        self.hear(asked, said)
    }

    /// The same from any thread: `then` is told by whatever thread hears the agent, or by the runtime if the agent is not there.
    pub fn ask_then(
        self: &Arc<Self>,
        runtime: &tokio::runtime::Handle,
        question: Question,
        then: impl FnOnce(bool) + Send + 'static,
    ) {
        let (ask, asked) = Asked::of(question);
        let gate = Arc::clone(self);
        let tell: Tell = Box::new(move |said| then(gate.hear(asked, said)));
        let Some(agent) = self.agent.get() else { return tell(None) };
        if let Err((ask, tell)) = agent.ask_at_once(ask, tell) {
            let agent = Arc::clone(agent);
            runtime.spawn(async move { tell(agent.ask(ask).await) });
        }
    }

    /// Whether a response goes of which the agent has said this.
    fn hear(&self, asked: Asked, said: Option<Said>) -> bool {
        let Asked { key, since, until, is_covered } = asked;
        let counter = match said {
            Some(Said::InForce) => &self.counters.in_force,
            Some(Said::NotCovered) => &self.counters.not_covered,
            Some(Said::Refused) => &self.counters.refused,
            None => &self.counters.silent,
        };
        counter.increment();
        self.counters.waits.observe(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if said == Some(Said::InForce) {
            self.remember(key, Word { asked: since, until });
        }
        matches!(said, Some(Said::InForce | Said::NotCovered)) || (said.is_none() && !is_covered)
    }

    /// The response that goes in place of one that does not.
    #[must_use]
    pub fn failed(message: &[u8]) -> Vec<u8> {
        response::failed(message)
    }

    /// What goes in place of a response, if that does not. The room that it takes to ask is there when somebody asks: thousands of
    /// connections have the room for what may be.
    pub async fn pass(&self, client: IpAddr, message: &[u8]) -> Option<Vec<u8>> {
        let goes = match self.look(client, message) {
            Look::Goes => true,
            Look::Ask(question) => Box::pin(self.ask(*question)).await,
            Look::Fails => false,
            Look::Instead(response) => return Some(response),
        };
        (!goes).then(|| Self::failed(message))
    }

    /// The same from any thread, of a response that was looked at: `then` is told.
    pub fn pass_then(
        self: &Arc<Self>,
        runtime: &tokio::runtime::Handle,
        look: Look,
        message: Vec<u8>,
        then: impl FnOnce(Vec<u8>) + Send + 'static,
    ) {
        match look {
            Look::Goes => then(message),
            Look::Fails => then(Self::failed(&message)),
            Look::Instead(response) => then(response),
            Look::Ask(question) => self.ask_then(runtime, *question, move |goes| {
                then(if goes { message } else { Self::failed(&message) });
            }),
        }
    }
}

/// A state of a file, in a number.
fn mark(stamp: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    stamp.hash(&mut hasher);
    hasher.finish()
}

/// When an answer ends.
fn end(now: Instant, ttl: u32) -> Instant {
    now.checked_add(Duration::from_secs(ttl.into())).unwrap_or(now)
}

/// Addresses, in whatever order.
fn digest(addresses: &[IpAddr]) -> u64 {
    let each = |ip: &IpAddr| {
        let mut hasher = DefaultHasher::new();
        ip.hash(&mut hasher);
        hasher.finish()
    };
    addresses.iter().map(each).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use fairlead_objects::DomainName;
    use fairlead_objects::names::NameRules;
    use hickory_proto::op::{Message, MessageType, OpCode, Query};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    use super::*;

    #[test]
    fn p85_the_agents_word_about_each_family_is_remembered_while_answers_go_on() {
        let gate = Gate::default();
        let client: IpAddr = [10, 244, 1, 5].into();
        let mut asked = Vec::new();
        for _ in 0..3 {
            for ip in ["192.0.2.1", "2001:db8::1"] {
                let found = response::Addresses { addresses: vec![ip.parse().unwrap()], ttl: 30 };
                if let Look::Ask(question) = gate.consider(client, "a.example".to_owned(), found, true) {
                    let Question { ask, until, .. } = *question;
                    let key = (ask.client, ask.name, digest(&ask.addresses));
                    gate.said.lock().unwrap().insert(key, Word { asked: Instant::now(), until });
                    asked.push(ip);
                }
            }
        }
        assert_eq!(asked, ["192.0.2.1", "2001:db8::1"], "a question each");
    }

    fn answer(name: &str) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        let name = Name::from_ascii(name).unwrap();
        message.add_query(Query::query(name.clone(), RecordType::A));
        message.add_answer(Record::from_rdata(name, 30, RData::A(A([192, 0, 2, 1].into()))));
        message.to_vec().unwrap()
    }

    fn rules(client: IpAddr) -> Vec<u8> {
        let mut rules = NameRules::default();
        rules.lists.push(vec![DomainName::parse("a.example").unwrap()]);
        rules.clients.insert(client, 0);
        rules.encode()
    }

    /// An empty directory of this test's own.
    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("fairlead-gate-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// The agent renames a whole file into its place.
    fn put(directory: &Path, content: &[u8]) {
        std::fs::write(directory.join("new"), content).unwrap();
        std::fs::rename(directory.join("new"), directory.join(RULES)).unwrap();
    }

    #[tokio::test]
    async fn p76_rules_hold_for_what_is_answered_after_they_were_written() {
        let (directory, gate) = (directory("fresh"), Arc::new(Gate::default()));
        gate.follow(&directory);
        // Nothing else runs on this thread meanwhile.
        for number in 1..100 {
            let client: IpAddr = [10, 244, 1, number].into();
            assert!(matches!(gate.look(client, &answer("a.example")), Look::Goes), "nobody has rules for {client}");
            put(&directory, &rules(client));
            std::thread::sleep(Duration::from_nanos(FRESH));
            assert!(matches!(gate.look(client, &answer("a.example")), Look::Ask(_)), "{client} has some");
            assert!(matches!(gate.look(client, &answer("b.example")), Look::Goes));
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn p77_where_rules_cannot_be_read_the_agent_is_asked_about_every_answer() {
        let (directory, gate) = (directory("unread"), Arc::new(Gate::default()));
        let [known, other]: [IpAddr; 2] = [[10, 244, 1, 1].into(), [10, 244, 1, 2].into()];
        // From the beginning, too.
        put(&directory, b"{");
        gate.follow(&directory);
        for client in [known, other] {
            assert!(matches!(gate.look(client, &answer("a.example")), Look::Ask(_)), "{client}");
        }
        put(&directory, &rules(known));
        std::thread::sleep(Duration::from_nanos(FRESH));
        assert!(matches!(gate.look(other, &answer("a.example")), Look::Goes), "they can be read again");
        put(
            &directory,
            &String::from_utf8(rules(other)).unwrap().replace("\"version\":1", "\"version\":2").into_bytes(),
        );
        std::thread::sleep(Duration::from_nanos(FRESH));
        for (client, name) in [(known, "a.example"), (known, "b.example"), (other, "a.example")] {
            assert!(matches!(gate.look(client, &answer(name)), Look::Ask(_)), "{client} {name}");
        }
        // There is no agent here: what is known to be covered fails, and all else goes.
        assert!(gate.pass(known, &answer("a.example")).await.is_some());
        assert!(gate.pass(other, &answer("a.example")).await.is_none());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
