//! Answers of upstream servers, kept for as long as they say.

mod shard;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::question::Question;
use super::reply::{Lifetime, Reply};
use crate::WireName;
use crate::counter::Counter;
use crate::name::covers;

pub use shard::{Found, Kept, Millis, Shard};

/// How many parts there are: threads that look at different ones don't wait for each other.
const SHARDS: usize = 16;
/// How long a failure is kept that a server tells, where nothing else is said (RFC 9520 section 3.2 has 5 minutes at most, and 1 second at least).
const FAILURE: Duration = Duration::from_secs(5);
/// How long it is kept that nobody answered, at most.
const SILENCE: Duration = Duration::from_secs(1);
/// How long nobody is asked again after an old answer had to do.
const QUIET: Duration = Duration::from_secs(5);
/// The TTL of old answers, in seconds (RFC 8767 section 4).
pub(super) const STALE_TTL: u32 = 30;

/// What is kept, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How many bytes answers may take. 0: none is kept.
    pub bytes: usize,
    /// The longest time for which an answer is kept, and the highest TTL that is handed on, in seconds.
    pub ttl: u32,
    /// For how long an old answer is given when no server answers, in seconds (RFC 8767). 0: not at all.
    pub stale: u32,
    /// The longest time for which it is kept that there is nothing, in seconds.
    pub denial: u32,
    /// The longest time for which a failure is kept. [`Duration::ZERO`]: not at all.
    pub failure: Duration,
    /// Ask anew for what is asked often before it goes.
    pub prefetch: bool,
    /// TTLs stay as they are for as long as an answer is kept.
    pub constant: bool,
    /// Which answers are kept.
    pub scope: Scope,
}

/// Which answers are kept, by the names that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Those in these zones; none: all.
    pub zones: Vec<WireName>,
    /// No records of names in these.
    pub no_records: Vec<WireName>,
    /// Nothing about the absence of records of names in these.
    pub no_denials: Vec<WireName>,
}

impl Scope {
    /// Whether it is about a name at all.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.zones.is_empty() || covers(&self.zones, name)
    }

    /// Whether an answer about a name is kept.
    fn keeps(&self, name: &[u8], denies: bool) -> bool {
        self.has(name) && !covers(if denies { &self.no_denials } else { &self.no_records }, name)
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            bytes: 16 << 20,
            ttl: 30,
            denial: 30,
            stale: 3600,
            failure: FAILURE,
            prefetch: true,
            constant: false,
            scope: Scope::default(),
        }
    }
}

/// The cache.
pub struct Cache {
    rules: Rules,
    start: Instant,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    /// What has happened.
    pub counts: Counts,
}

/// What has happened.
#[derive(Debug, Default)]
pub struct Counts {
    /// Answers with records that were there.
    pub hits: Counter,
    /// Answers that say that there is nothing, or why, that were there.
    pub denials: Counter,
    /// Questions that had to be asked.
    pub misses: Counter,
    /// Old answers that had to do.
    pub stale: Counter,
    /// Answers that were asked for before they went.
    pub prefetched: Counter,
}

impl Cache {
    /// An empty one.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let room = rules.bytes / SHARDS;
        Self {
            rules,
            start: Instant::now(),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::new(room))).collect(),
            counts: Counts::default(),
        }
    }

    /// What is kept, and for how long.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Entries with records, entries without, bytes, and how many entries had to go.
    #[must_use]
    pub fn size(&self) -> (usize, usize, usize, u64) {
        self.shards.iter().fold((0, 0, 0, 0), |(with, without, bytes, evicted), shard| {
            let shard = lock(shard);
            let (entries, own, gone) = shard.size();
            let denials = shard.denials();
            (with + entries - denials, without + denials, bytes + own, evicted + gone)
        })
    }

    /// How many of the entries that had to go were without records.
    #[must_use]
    pub fn evicted_denials(&self) -> u64 {
        self.shards.iter().map(|shard| lock(shard).evicted_denials()).sum()
    }

    /// What is known about a question.
    pub(super) fn look(&self, key: &[u8]) -> Found {
        let Some(mut shard) = self.shard(key) else { return Found::Nothing };
        let mut found = shard.look(key, self.now());
        drop(shard);
        match &mut found {
            Found::Fresh { denies, renew, .. } => {
                *renew &= self.rules.prefetch;
                if *denies { &self.counts.denials } else { &self.counts.hits }.increment();
                if *renew {
                    self.counts.prefetched.increment();
                }
            }
            Found::Stale(_) => self.counts.stale.increment(),
            Found::Nothing => {}
        }
        found
    }

    /// An old answer, because nobody answers.
    pub(super) fn fall_back(&self, key: &[u8]) -> Option<Arc<Reply>> {
        let now = self.now();
        let found = self.shard(key)?.fall_back(key, now, now + millis(QUIET));
        if found.is_some() {
            self.counts.stale.increment();
        }
        found
    }

    /// Whether there is an old answer that could be given.
    pub(super) fn has_stale(&self, key: &[u8]) -> bool {
        self.shard(key).is_some_and(|shard| shard.has_stale(key, self.now()))
    }

    /// Keeps an answer that came in time.
    pub(super) fn keep(&self, question: &Question, client: IpAddr, reply: &Arc<Reply>) {
        let second = |seconds: u32, most: u32| millis(Duration::from_secs(seconds.min(most).into()));
        let (life, denies) = match reply.lifetime() {
            Some(Lifetime::Positive(ttl)) => (second(ttl, self.rules.ttl), false),
            Some(Lifetime::Negative(ttl)) => (second(ttl, self.rules.denial), true),
            None if reply.is_failure() && !reply.is_truncated() => (millis(self.rules.failure), true),
            None => return,
        };
        if !self.rules.scope.keeps(question.name(), denies) {
            return;
        }
        let after = if reply.is_failure() { 0 } else { millis(Duration::from_secs(self.rules.stale.into())) };
        self.insert(question.key(), client, reply, life, after, denies);
    }

    /// Keeps it that nobody answered.
    pub(super) fn keep_silence(&self, question: &Question, client: IpAddr, reply: &Arc<Reply>) {
        if self.rules.scope.keeps(question.name(), true) {
            self.insert(question.key(), client, reply, millis(SILENCE.min(self.rules.failure)), 0, true);
        }
    }

    fn insert(&self, key: &[u8], client: IpAddr, reply: &Arc<Reply>, life: Millis, after: Millis, denies: bool) {
        if life == 0 {
            return;
        }
        let born = self.now();
        let Some(mut shard) = self.shard(key) else { return };
        let kept = Kept { reply: Arc::clone(reply), born, fresh: born + life, stale: born + life + after, denies };
        shard.keep(key, client, kept);
    }

    fn shard(&self, key: &[u8]) -> Option<MutexGuard<'_, Shard>> {
        if self.rules.bytes == 0 {
            return None;
        }
        let index = self.hasher.hash_one(key) as usize % self.shards.len();
        self.shards.get(index).map(lock)
    }

    fn now(&self) -> Millis {
        millis(self.start.elapsed())
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(time: Duration) -> Millis {
    Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX / 4)
}
