//! Places that many clients share: a bound for all, a bound for each, and whoever holds the most gives one up first.
//!
//! A place can be taken away while it is idle. When a client is at its own bound it loses its oldest idle place; when
//! all places are taken, the client that holds the most loses its oldest idle one. So an excess costs the one that
//! causes it, and a client with a few places keeps them. A place that is about to be free goes before all others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// How many places there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// For all clients together.
    pub all: usize,
    /// For each client.
    pub each: usize,
}

/// A place that was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(u64);

/// Who holds which places. `T` is what stands for a place: it is handed back when the place is taken away.
#[derive(Debug)]
pub struct Crowd<K, T> {
    bounds: Bounds,
    members: HashMap<Place, Member<K, T>>,
    clients: HashMap<K, Client>,
    /// Clients with an idle place: who holds the most comes last, among equals the one whose idle place is oldest; behind
    /// them those with a place that is about to be free.
    ranks: BTreeMap<Rank, K>,
    clock: u64,
}

type Rank = (bool, usize, Reverse<Since>);

/// Since when a place can be taken away, in the order in which a client loses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Since {
    Leaving(u64),
    Idle(u64),
}

#[derive(Debug)]
struct Member<K, T> {
    client: K,
    /// Since when it is idle; a busy one can't be taken away.
    idle: Option<Since>,
    stands: T,
}

#[derive(Debug, Default)]
struct Client {
    count: usize,
    idle: BTreeMap<Since, Place>,
}

impl Client {
    fn rank(&self) -> Option<Rank> {
        let oldest = *self.idle.keys().next()?;
        Some((matches!(oldest, Since::Leaving(_)), self.count, Reverse(oldest)))
    }
}

impl<K: Clone + Eq + Hash, T> Crowd<K, T> {
    /// An empty one.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, members: HashMap::new(), clients: HashMap::new(), ranks: BTreeMap::new(), clock: 0 }
    }

    /// How many places are taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether no place is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Gives a client a place, idle from now on, and returns what had to go for it. `None`: there is none to be had.
    pub fn admit(&mut self, client: &K, stands: T) -> Option<(Place, Option<T>)> {
        let own = self.clients.get(client).map_or(0, |client| client.count);
        let victim = if own >= self.bounds.each {
            Some(self.clients.get(client).and_then(|client| client.idle.values().next().copied())?)
        } else if self.members.len() >= self.bounds.all {
            Some(self.heaviest()?)
        } else {
            None
        };
        let gone = victim.and_then(|place| self.remove(place));
        let place = Place(self.tick());
        self.members.insert(place, Member { client: client.clone(), idle: None, stands });
        self.change(client, |client| client.count += 1);
        self.idle(place);
        Some((place, gone))
    }

    /// Gives a client a place that nobody has to give up, if there is one.
    pub fn admit_free(&mut self, client: &K, stands: T) -> Option<Place> {
        let own = self.clients.get(client).map_or(0, |client| client.count);
        if own >= self.bounds.each || self.members.len() >= self.bounds.all {
            return None;
        }
        self.admit(client, stands).map(|(place, _)| place)
    }

    /// The place is in use: it can't be taken away.
    pub fn busy(&mut self, place: Place) {
        let Some(member) = self.members.get_mut(&place) else { return };
        let Some(since) = member.idle.take() else { return };
        let client = member.client.clone();
        self.change(&client, |client| {
            client.idle.remove(&since);
        });
    }

    /// The place is idle, from now on.
    pub fn idle(&mut self, place: Place) {
        let now = self.tick();
        self.can_go(place, Since::Idle(now));
    }

    /// The place is about to be free: it is the first to be taken away.
    pub fn leaves(&mut self, place: Place) {
        let now = self.tick();
        self.can_go(place, Since::Leaving(now));
    }

    fn can_go(&mut self, place: Place, since: Since) {
        let Some(member) = self.members.get_mut(&place) else { return };
        let before = member.idle.replace(since);
        let client = member.client.clone();
        self.change(&client, |client| {
            if let Some(before) = before {
                client.idle.remove(&before);
            }
            client.idle.insert(since, place);
        });
    }

    /// The place is free again.
    pub fn remove(&mut self, place: Place) -> Option<T> {
        let member = self.members.remove(&place)?;
        self.change(&member.client, |client| {
            client.count -= 1;
            if let Some(since) = member.idle {
                client.idle.remove(&since);
            }
        });
        Some(member.stands)
    }

    /// Takes a place that is about to be free, or the oldest idle one of whoever holds the most.
    pub fn shed(&mut self) -> Option<T> {
        let place = self.heaviest()?;
        self.remove(place)
    }

    fn heaviest(&self) -> Option<Place> {
        let (_, client) = self.ranks.last_key_value()?;
        self.clients.get(client)?.idle.values().next().copied()
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn change(&mut self, key: &K, change: impl FnOnce(&mut Client)) {
        let client = self.clients.entry(key.clone()).or_default();
        let before = client.rank();
        change(client);
        let (after, gone) = (client.rank(), client.count == 0);
        if gone {
            self.clients.remove(key);
        }
        if before != after {
            before.map(|rank| self.ranks.remove(&rank));
            after.map(|rank| self.ranks.insert(rank, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
