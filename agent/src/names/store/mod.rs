//! What pods were told. A state machine without a clock: whoever calls says what time it is, in milliseconds since boot.
//!
//! An entry is an address that a pod was told for a name. It is *live* until its answer ends, and opens new connections. Then it
//! *lingers*: what is open goes on. Nobody needs it once no flow is left ([`Names::keep`]).
//!
//! Entries are bounded, for a name, for a pod and in all. Where there are too many, those that linger go before those that are
//! live, each the longest known first, and of several pods that of the most entries gives way: a pod that has less than its part
//! loses nothing to others.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_objects::ObjectKey;

/// How many entries there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Of a name of a pod.
    pub name: usize,
    /// Of a pod.
    pub pod: usize,
    /// In all.
    pub all: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        let name = fairlead_objects::names::MOST_ADDRESSES;
        // A hundred addresses for each of 1024 names, and as many as `PEERS` has room for beside those of a cluster.
        Self { name, pod: 100 * 1024, all: 100 * 1024 }
    }
}

/// An answer that a pod gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The pod.
    pub pod: &'a ObjectKey,
    /// Its uid, as the runtime told it.
    pub uid: &'a str,
    /// The name that it asked for, in small letters.
    pub name: &'a str,
    /// The addresses.
    pub addresses: &'a [IpAddr],
    /// When they end.
    pub until: u64,
}

/// What happens to what pods were told. Whoever takes in the same changes in the same order knows the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A pod gets an answer: pod, uid, name and addresses as [`Answer`] has them, when they end, and what time it is.
    Learn(ObjectKey, String, String, Vec<IpAddr>, u64, u64),
    /// What ends until then has ended.
    Expire(u64),
    /// Nobody uses what lingers of these.
    Forget(Vec<(ObjectKey, IpAddr)>),
    /// A pod begins, with this uid.
    Begin(ObjectKey, String),
    /// A pod is gone.
    End(ObjectKey),
}

/// What all pods were told.
#[derive(Debug, Clone, Default)]
pub struct Names {
    bounds: Bounds,
    pods: BTreeMap<ObjectKey, Pod>,
    /// The pods that were told an address.
    by_address: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
    count: usize,
    /// Ascends with every entry that is told.
    next: u64,
    evicted: u64,
    /// Addresses of which something changed since somebody has asked, unless nobody has, or they are too many.
    changes: Option<BTreeSet<IpAddr>>,
}

/// A name and one of its addresses.
type Key = (Arc<str>, IpAddr);

#[derive(Debug, Clone, Default)]
struct Pod {
    uid: String,
    addresses: BTreeMap<IpAddr, BTreeMap<Arc<str>, Entry>>,
    count: usize,
    /// The entries of each name, the longest known first, with those that linger before others.
    names: BTreeMap<Arc<str>, BTreeSet<(bool, u64, IpAddr)>>,
    /// All entries in this order.
    order: BTreeMap<(bool, u64), Key>,
    /// Those that are live, by their ends.
    ends: BTreeSet<(u64, Key)>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    until: u64,
    order: u64,
    live: bool,
}

impl Pod {
    fn insert(&mut self, key: Key, entry: Entry) -> bool {
        let (name, address) = &key;
        let before = self.remove(name, *address);
        self.addresses.entry(*address).or_default().insert(Arc::clone(name), entry);
        self.names.entry(Arc::clone(name)).or_default().insert((entry.live, entry.order, *address));
        self.order.insert((entry.live, entry.order), key.clone());
        if entry.live {
            self.ends.insert((entry.until, key));
        }
        self.count += 1;
        before.is_none()
    }

    fn remove(&mut self, name: &Arc<str>, address: IpAddr) -> Option<Entry> {
        let of_address = self.addresses.get_mut(&address)?;
        let entry = of_address.remove(name)?;
        if of_address.is_empty() {
            self.addresses.remove(&address);
        }
        if let Some(of_name) = self.names.get_mut(name) {
            of_name.remove(&(entry.live, entry.order, address));
            if of_name.is_empty() {
                self.names.remove(name);
            }
        }
        self.order.remove(&(entry.live, entry.order));
        self.ends.remove(&(entry.until, (Arc::clone(name), address)));
        self.count -= 1;
        Some(entry)
    }

    fn entry(&self, name: &str, address: IpAddr) -> Option<Entry> {
        self.addresses.get(&address)?.get(name).copied()
    }
}

impl Names {
    /// None yet, with room for so many.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Takes in a change, and gives the addresses of which something changed.
    pub fn take(&mut self, change: &Change) -> BTreeSet<IpAddr> {
        match change {
            Change::Learn(pod, uid, name, addresses, until, now) => {
                self.learn(&Answer { pod, uid, name, addresses, until: *until }, *now)
            }
            Change::Expire(now) => self.expire(*now),
            Change::Forget(unused) => self.forget(unused),
            Change::Begin(pod, uid) => self.begin(pod, uid),
            Change::End(pod) => self.end(pod),
        }
    }

    /// Takes in an answer, and gives the addresses of which something changed: its own, and those that had to go.
    pub fn learn(&mut self, answer: &Answer<'_>, now: u64) -> BTreeSet<IpAddr> {
        let Answer { pod, uid, name, addresses, until } = answer;
        let mut changed = self.begin(pod, uid);
        if addresses.is_empty() {
            return changed;
        }
        let name: Arc<str> = Arc::from(*name);
        let of_pod = self.pods.entry((*pod).clone()).or_default();
        of_pod.uid = (*uid).to_owned();
        for address in *addresses {
            let before = of_pod.entry(&name, *address).filter(|entry| entry.live);
            let until = before.map_or(*until, |entry| entry.until.max(*until));
            let entry = Entry { until, order: self.next, live: until > now };
            self.next += 1;
            if of_pod.insert((Arc::clone(&name), *address), entry) {
                self.count += 1;
                self.by_address.entry(*address).or_default().insert((*pod).clone());
            }
            changed.insert(*address);
        }
        self.make_room(pod, &name, &mut changed);
        self.changed(changed)
    }

    /// Takes note of what changed.
    fn changed(&mut self, changed: BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        if let Some(changes) = &mut self.changes {
            changes.extend(&changed);
            if changes.len() > self.bounds.all {
                self.changes = None;
            }
        }
        changed
    }

    /// Nobody asks what changes any more.
    pub fn forget_changes(&mut self) {
        self.changes = None;
    }

    /// The addresses of which something changed since this was last asked. Nothing if it may be any.
    pub fn take_changes(&mut self) -> Option<BTreeSet<IpAddr>> {
        self.changes.replace(BTreeSet::new())
    }

    /// Lets the oldest go where there are too many.
    fn make_room(&mut self, pod: &ObjectKey, name: &Arc<str>, changed: &mut BTreeSet<IpAddr>) {
        let Bounds { name: of_name, pod: of_pod, all } = self.bounds;
        let first_of = |pods: &BTreeMap<ObjectKey, Pod>, pod: &ObjectKey| {
            pods.get(pod).and_then(|pod| pod.order.first_key_value()).map(|(_, key)| key.clone())
        };
        loop {
            let Some(told) = self.pods.get(pod) else { return };
            let first = told.names.get(name).filter(|entries| entries.len() > of_name);
            let first = first.and_then(BTreeSet::first).map(|(.., address)| (Arc::clone(name), *address));
            let (whose, gone) = if let Some(gone) = first {
                (pod.clone(), Some(gone))
            } else if told.count > of_pod {
                (pod.clone(), first_of(&self.pods, pod))
            } else if self.count > all {
                let Some((most, _)) = self.pods.iter().max_by_key(|(_, pod)| pod.count) else { return };
                (most.clone(), first_of(&self.pods, most))
            } else {
                return;
            };
            let Some((name, address)) = gone else { return };
            self.remove(&whose, &name, address);
            self.evicted += 1;
            changed.insert(address);
        }
    }

    fn remove(&mut self, pod: &ObjectKey, name: &Arc<str>, address: IpAddr) {
        let Some(told) = self.pods.get_mut(pod) else { return };
        if told.remove(name, address).is_none() {
            return;
        }
        self.count -= 1;
        if !told.addresses.contains_key(&address)
            && let Some(pods) = self.by_address.get_mut(&address)
        {
            pods.remove(pod);
            if pods.is_empty() {
                self.by_address.remove(&address);
            }
        }
        if told.count == 0 {
            self.pods.remove(pod);
        }
    }

    /// What ends has ended: from now on it lingers. Gives the addresses of which something changed.
    pub fn expire(&mut self, now: u64) -> BTreeSet<IpAddr> {
        let mut changed = BTreeSet::new();
        for pod in self.pods.values_mut() {
            while let Some((until, (name, address))) = pod.ends.first().filter(|(until, _)| *until <= now).cloned() {
                let Some(entry) = pod.entry(&name, address) else { break };
                pod.insert((name, address), Entry { until, live: false, ..entry });
                changed.insert(address);
            }
        }
        self.changed(changed)
    }

    /// When the next answer ends.
    #[must_use]
    pub fn next_end(&self) -> Option<u64> {
        self.pods.values().filter_map(|pod| pod.ends.first()).map(|(until, _)| *until).min()
    }

    /// Forgets what lingers and nobody uses. Gives the addresses of which something changed.
    pub fn keep(&mut self, is_used: impl Fn(&ObjectKey, IpAddr) -> bool) -> BTreeSet<IpAddr> {
        let lingering = self.lingering().filter(|(pod, address)| !is_used(pod, *address));
        let unused: Vec<_> = lingering.map(|(pod, address)| (pod.clone(), address)).collect();
        self.forget(&unused)
    }

    /// Forgets what lingers of these. Gives the addresses.
    fn forget(&mut self, unused: &[(ObjectKey, IpAddr)]) -> BTreeSet<IpAddr> {
        for (pod, address) in unused {
            let of_address = self.pods.get(pod).and_then(|pod| pod.addresses.get(address));
            let gone: Vec<_> = of_address.into_iter().flatten().filter(|(_, entry)| !entry.live).collect();
            let gone: Vec<_> = gone.into_iter().map(|(name, _)| Arc::clone(name)).collect();
            gone.iter().for_each(|name| self.remove(pod, name, *address));
        }
        self.changed(unused.iter().map(|(_, address)| *address).collect())
    }

    /// The pods and addresses of which an entry lingers.
    pub fn lingering(&self) -> impl Iterator<Item = (&ObjectKey, IpAddr)> {
        self.pods.iter().flat_map(|(key, pod)| {
            let lingering = pod.order.range(..(true, 0)).map(|(_, (_, address))| *address);
            lingering.collect::<BTreeSet<_>>().into_iter().map(move |address| (key, address))
        })
    }

    /// A pod begins: what another of its name was told is nothing to it. Gives the addresses of which something changed.
    pub fn begin(&mut self, pod: &ObjectKey, uid: &str) -> BTreeSet<IpAddr> {
        if self.pods.get(pod).is_some_and(|told| told.uid != uid) { self.end(pod) } else { BTreeSet::new() }
    }

    /// A pod is gone. Gives the addresses of which something changed.
    pub fn end(&mut self, pod: &ObjectKey) -> BTreeSet<IpAddr> {
        let Some(told) = self.pods.remove(pod) else { return BTreeSet::new() };
        self.count -= told.count;
        for address in told.addresses.keys() {
            if let Some(pods) = self.by_address.get_mut(address) {
                pods.remove(pod);
                if pods.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
        self.changed(told.addresses.into_keys().collect())
    }

    /// Every address that a pod was told.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.by_address.keys().copied()
    }

    /// Who was told an address, for which names, and whether that is live.
    pub fn told(&self, address: IpAddr) -> impl Iterator<Item = (&ObjectKey, &str, bool)> {
        self.told_to(address).flat_map(|(key, told)| told.map(move |(name, live)| (key, name, live)))
    }

    /// The same by pod.
    pub fn told_to(&self, address: IpAddr) -> impl Iterator<Item = (&ObjectKey, impl Iterator<Item = (&str, bool)>)> {
        self.by_address.get(&address).into_iter().flatten().map(move |key| {
            let entries = self.pods.get(key).and_then(|pod| pod.addresses.get(&address)).into_iter().flatten();
            (key, entries.map(|(name, entry)| (&**name, entry.live)))
        })
    }

    /// What all pods were told, an answer for each pod, name and end, with those that are over.
    pub fn answers(&self) -> impl Iterator<Item = (&ObjectKey, &str, &str, u64, Vec<IpAddr>)> {
        self.pods.iter().flat_map(|(key, pod)| {
            pod.names.iter().flat_map(move |(name, entries)| {
                let mut by_end: BTreeMap<u64, Vec<IpAddr>> = BTreeMap::new();
                for (.., address) in entries {
                    if let Some(entry) = pod.entry(name, *address) {
                        by_end.entry(entry.until).or_default().push(*address);
                    }
                }
                by_end.into_iter().map(move |(until, addresses)| (key, pod.uid.as_str(), &**name, until, addresses))
            })
        })
    }

    /// Entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Entries that had to go, since there were too many.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}
