//! What becomes of a response: it goes, or it waits for the agent.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use fairlead_objects::DomainNames;
use fairlead_objects::names::{Ask, MOST_ADDRESSES, RULES, SOCKET, Said};

use super::agent::Agent;
use super::budget::Budget;
use super::response;
use super::rules::{self, Rules};
use crate::counter::Counter;
use crate::files::stamp;
use crate::meter::Histogram;

/// How often the agent's file is looked at.
const LOOK: Duration = Duration::from_millis(50);

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
    rules: RwLock<Arc<Rules>>,
    agent: OnceLock<Arc<Agent>>,
    said: Mutex<HashMap<Key, Word>>,
    budget: Mutex<Budget>,
    /// The same of what is only counted: that takes nothing of what is asked.
    counted: Mutex<Budget>,
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
}

impl Gate {
    /// Does as the agent says that shares this directory, in the current runtime.
    pub fn follow(self: &Arc<Self>, directory: &Path) {
        let _once = self.agent.set(Agent::connect(&directory.join(SOCKET)));
        let (gate, path) = (Arc::clone(self), directory.join(RULES));
        let mut before = None;
        let mut look = move || {
            let mark = stamp(&path).ok();
            if mark.is_some() && mark != before {
                before = mark;
                match rules::read(&path) {
                    Ok(rules) => gate.set_rules(rules),
                    // What is known stays.
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "which names rules have is not known");
                    }
                }
            }
        };
        // Before anybody is answered.
        look();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                look();
            }
        });
    }

    fn set_rules(&self, rules: Rules) {
        self.is_used.store(!rules.is_empty(), Ordering::Relaxed);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What becomes of a response to a client.
    #[must_use]
    pub fn look(&self, client: IpAddr, message: &[u8]) -> Look {
        if !self.is_used.load(Ordering::Relaxed) {
            return Look::Goes;
        }
        let rules = Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner));
        let client = client.to_canonical();
        if let Some(audited) = rules.audited_of(client) {
            self.tell(client, audited, rules.of_client(client), message);
        }
        let Some(names) = rules.of_client(client) else {
            if rules.is_elsewhere(client, || response::asked(message)) {
                self.counters.elsewhere.increment();
            }
            return Look::Goes;
        };
        let Some(name) = response::asked(message).filter(|name| names.matches(name)) else { return Look::Goes };
        match response::addresses(message) {
            Some(found) if found.addresses.is_empty() => {
                response::without_hints(message).map_or(Look::Goes, Look::Instead)
            }
            Some(found) if found.addresses.len() <= MOST_ADDRESSES => self.consider(client, name, found),
            _ => {
                self.counters.refused.increment();
                Look::Fails
            }
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

    fn consider(&self, client: IpAddr, name: String, found: response::Addresses) -> Look {
        let (now, response::Addresses { addresses, ttl }) = (Instant::now(), found);
        let until = end(now, ttl);
        let key = (client, name, digest(&addresses));
        if self.is_known(&key, until, now) {
            return Look::Goes;
        }
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let may = budget.spend(client, addresses.len(), now);
        drop(budget);
        if !may {
            self.counters.crowded.increment();
            return Look::Fails;
        }
        let (client, name, _) = key;
        Look::Ask(Box::new(Question { ask: Ask { id: 0, client, name, ttl, addresses }, until }))
    }

    /// Asks the agent whether a response goes.
    pub async fn ask(&self, question: Question) -> bool {
        let Question { ask, until } = question;
        let (key, asked) = ((ask.client, ask.name.clone(), digest(&ask.addresses)), Instant::now());
        let said = match self.agent.get() {
            Some(agent) => agent.ask(ask).await,
            None => None,
        };
        let counter = match said {
            Some(Said::InForce) => &self.counters.in_force,
            Some(Said::NotCovered) => &self.counters.not_covered,
            Some(Said::Refused) => &self.counters.refused,
            None => &self.counters.silent,
        };
        counter.increment();
        self.counters.waits.observe(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if said == Some(Said::InForce) {
            self.remember(key, Word { asked, until });
        }
        matches!(said, Some(Said::InForce | Said::NotCovered))
    }

    /// The response that goes in place of one that does not.
    #[must_use]
    pub fn failed(message: &[u8]) -> Vec<u8> {
        response::failed(message)
    }

    /// What goes in place of a response, if that does not.
    pub async fn pass(&self, client: IpAddr, message: &[u8]) -> Option<Vec<u8>> {
        self.settle(self.look(client, message), message).await
    }

    /// The same of a response that was looked at. The room that it takes to ask is there when somebody asks: thousands of connections
    /// have the room for what may be.
    pub async fn settle(&self, look: Look, message: &[u8]) -> Option<Vec<u8>> {
        let goes = match look {
            Look::Goes => true,
            Look::Ask(question) => Box::pin(self.ask(*question)).await,
            Look::Fails => false,
            Look::Instead(response) => return Some(response),
        };
        (!goes).then(|| Self::failed(message))
    }
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
    use super::*;

    #[test]
    fn p85_the_agents_word_about_each_family_is_remembered_while_answers_go_on() {
        let gate = Gate::default();
        let client: IpAddr = [10, 244, 1, 5].into();
        let mut asked = Vec::new();
        for _ in 0..3 {
            for ip in ["192.0.2.1", "2001:db8::1"] {
                let found = response::Addresses { addresses: vec![ip.parse().unwrap()], ttl: 30 };
                if let Look::Ask(question) = gate.consider(client, "a.example".to_owned(), found) {
                    let Question { ask, until } = *question;
                    let key = (ask.client, ask.name, digest(&ask.addresses));
                    gate.said.lock().unwrap().insert(key, Word { asked: Instant::now(), until });
                    asked.push(ip);
                }
            }
        }
        assert_eq!(asked, ["192.0.2.1", "2001:db8::1"], "a question each");
    }
}
