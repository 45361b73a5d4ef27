//! One part of the cache, as a structure without a clock or a lock of its own.
//!
//! Its size is bounded in bytes, and every entry is charged to the client that asked for it. When there is no room, the
//! client with the most bytes loses the entry that was longest without use: who asks for a million names loses their
//! answers, and nobody else's.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use super::super::reply::Reply;

/// Times are in milliseconds since some moment.
pub type Millis = u64;

/// What is kept of an answer.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The answer.
    pub reply: Arc<Reply>,
    /// When it came.
    pub born: Millis,
    /// Until when it is as good as new.
    pub fresh: Millis,
    /// Until when it is better than nothing.
    pub stale: Millis,
    /// It says that there is nothing, or why.
    pub denies: bool,
}

impl Kept {
    /// Whether it can be given when nobody answers: a failure says no more than that.
    fn is_better_than_nothing(&self, now: Millis) -> bool {
        now < self.stale && !self.reply.is_failure()
    }
}

/// What is known about a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An answer of this age, in milliseconds.
    Fresh {
        /// The answer.
        reply: Arc<Reply>,
        /// Its age.
        age: Millis,
        /// It is popular and about to go: whoever is told so asks for it anew.
        renew: bool,
        /// It says that there is nothing, or why.
        denies: bool,
    },
    /// An old answer, to be given without asking: nobody answered a moment ago.
    Stale(Arc<Reply>),
    /// Nothing that can be given yet.
    Nothing,
}

/// Hits within a lifetime that make an answer popular.
const POPULAR: u32 = 3;
/// What an entry costs besides its key and its answer: the tables' own bytes.
const OVERHEAD: usize = 160;

/// A part of the cache.
#[derive(Debug)]
pub struct Shard {
    room: usize,
    bytes: usize,
    entries: HashMap<Box<[u8]>, Entry>,
    clients: HashMap<IpAddr, Share>,
    /// Clients by what they have.
    ranks: BTreeSet<(usize, IpAddr)>,
    serial: u64,
    evicted: u64,
    /// Those of them that denied something.
    evicted_denials: u64,
}

#[derive(Debug)]
struct Entry {
    kept: Kept,
    client: IpAddr,
    cost: usize,
    serial: u64,
    hits: u32,
    used: bool,
    renewing: bool,
    /// Until when nobody is to be asked again.
    quiet: Millis,
}

#[derive(Debug, Default)]
struct Share {
    bytes: usize,
    /// Entries from the one that was longest without use; some may be gone.
    queue: VecDeque<(Box<[u8]>, u64)>,
}

impl Shard {
    /// An empty one that may have so many bytes.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self {
            room,
            bytes: 0,
            entries: HashMap::new(),
            clients: HashMap::new(),
            ranks: BTreeSet::new(),
            serial: 0,
            evicted: 0,
            evicted_denials: 0,
        }
    }

    /// How many entries and bytes it has, and how many entries have had to go.
    #[must_use]
    pub fn size(&self) -> (usize, usize, u64) {
        (self.entries.len(), self.bytes, self.evicted)
    }

    /// How many of its entries deny something.
    #[must_use]
    pub fn denials(&self) -> usize {
        self.entries.values().filter(|entry| entry.kept.denies).count()
    }

    /// How many of those that have had to go denied something.
    #[must_use]
    pub fn evicted_denials(&self) -> u64 {
        self.evicted_denials
    }

    /// What is known about a question.
    pub fn look(&mut self, key: &[u8], now: Millis) -> Found {
        let Some(entry) = self.entries.get_mut(key) else { return Found::Nothing };
        let Kept { reply, born, fresh, denies, .. } = &entry.kept;
        if now < *fresh {
            entry.used = true;
            entry.hits = entry.hits.saturating_add(1);
            // The last tenth of its life, a second at least.
            let left = fresh - now;
            let renew = !entry.renewing && entry.hits >= POPULAR && left <= ((fresh - born) / 10).max(1000);
            entry.renewing |= renew;
            let age = now.saturating_sub(*born);
            return Found::Fresh { reply: Arc::clone(reply), age, renew, denies: *denies };
        }
        if now < entry.kept.stale && now < entry.quiet {
            entry.used = true;
            return Found::Stale(Arc::clone(reply));
        }
        Found::Nothing
    }

    /// An old answer to give because nobody answers; nobody is asked again until `quiet`.
    pub fn fall_back(&mut self, key: &[u8], now: Millis, quiet: Millis) -> Option<Arc<Reply>> {
        let entry = self.entries.get_mut(key)?;
        entry.renewing = false;
        if !entry.kept.is_better_than_nothing(now) {
            return None;
        }
        entry.quiet = quiet;
        Some(Arc::clone(&entry.kept.reply))
    }

    /// Whether there is an old answer that could be given.
    #[must_use]
    pub fn has_stale(&self, key: &[u8], now: Millis) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.kept.is_better_than_nothing(now))
    }

    /// Keeps an answer, in place of the one before.
    pub fn keep(&mut self, key: &[u8], client: IpAddr, kept: Kept) {
        self.remove(key);
        let cost = key.len() * 2 + kept.reply.size() + OVERHEAD;
        // One answer is not worth all others.
        if cost > self.room / 4 {
            return;
        }
        self.serial += 1;
        let entry = Entry { kept, client, cost, serial: self.serial, hits: 0, used: false, renewing: false, quiet: 0 };
        self.entries.insert(key.into(), entry);
        self.bytes += cost;
        let serial = self.serial;
        self.change(client, |share| {
            share.bytes += cost;
            share.queue.push_back((key.into(), serial));
        });
        while self.bytes > self.room && self.evict() {}
    }

    fn evict(&mut self) -> bool {
        let Some(&(_, client)) = self.ranks.last() else { return false };
        let Some(share) = self.clients.get_mut(&client) else { return false };
        let Some((key, serial)) = share.queue.pop_front() else { return false };
        match self.entries.get_mut(&key) {
            Some(entry) if entry.serial == serial && entry.used => {
                entry.used = false;
                share.queue.push_back((key, serial));
            }
            Some(entry) if entry.serial == serial => {
                self.evicted += 1;
                self.evicted_denials += u64::from(entry.kept.denies);
                self.remove(&key);
            }
            // It was replaced, or is gone.
            _ => {}
        }
        true
    }

    fn remove(&mut self, key: &[u8]) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.bytes -= entry.cost;
        self.change(entry.client, |share| share.bytes -= entry.cost);
        // What is gone leaves the queue when it is looked at; a queue of such is made anew.
        let Some(share) = self.clients.get_mut(&entry.client) else { return };
        if share.queue.len() > 64 && share.queue.len() * OVERHEAD > share.bytes * 2 {
            let entries = &self.entries;
            share.queue.retain(|(key, serial)| entries.get(key).is_some_and(|entry| entry.serial == *serial));
        }
    }

    fn change(&mut self, client: IpAddr, change: impl FnOnce(&mut Share)) {
        let share = self.clients.entry(client).or_default();
        self.ranks.remove(&(share.bytes, client));
        change(share);
        if share.bytes == 0 {
            self.clients.remove(&client);
        } else {
            self.ranks.insert((share.bytes, client));
        }
    }
}

#[cfg(test)]
mod tests;
