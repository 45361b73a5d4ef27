//! Between two plans, and while one is being made or carried out: addresses that pods are told by DNS, and that end.
//!
//! Such an address changes nothing for any other, so it needs no plan of everything: it is what the prefix around it is, and meets
//! besides what its pods ask. Rows of its class come first, where nothing leads to them, then its entry; that is one operation
//! where the class is there, as it is for all addresses of a name but the first. What it opens is only ever accepted, so no flow
//! that is known is judged otherwise when it comes, and none when it ends ([`PeerFlags::LINGERS`]): epochs stay. The next plan
//! finds the addresses as it would have written them, and takes out the rows that nothing leads to any more; where these
//! become many, or their room is needed, they go before ([`Teller::retire`]). So without a plan no more room is taken than what pods
//! were told takes ([`ToldRoom`]).
//!
//! [`ToldRoom`]: crate::compile::policy::ToldRoom
//!
//! A plan is made of what pods had been told when it began ([`Teller::mark`]). Who is told an address later does not wait for it:
//! the address is brought into force by the plan before. Such addresses are remembered. When the plan is to be carried out
//! ([`Teller::begin`]) each gets a class of its own kind, whose rows say in the sets of the plan before what that plan says, and in
//! those of the new plan what the new one says; so does what is told until it is in force ([`Teller::finish`]). A pod has the old
//! answer until its word leads to its new sets, and the new one from then on: a name that no rule has any more opens nothing there.
//! What the plan itself says of these addresses is old, and left out ([`Teller::keeps`]).
//!
//! Where a plan has to stop pods on its way, or no rule has names before or after it, such addresses are closed meanwhile, and
//! nothing is told.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_datapath::Addr;
use fairlead_datapath::peer::{NO_NODE, NO_SLOT, Peer, PeerFlags};
use fairlead_datapath::policy::{PeerKey, Row};
use fairlead_objects::ObjectKey;

use super::Capacity;
use super::ids::{MEANWHILE, ids_from, pair_ids};
use super::told::{Pair, View};
use crate::compile::peers::is_told;
use crate::compile::policy::{MOST_TOLD_ROWS, Met, Signature, content_hash};
use crate::names::{Names, is_outside};
use crate::plan::Op;

/// Rows of classes that no entry has, before they are removed: that takes a barrier.
const MOST_IDLE: usize = MOST_TOLD_ROWS / 8;

/// What it takes to bring addresses into force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Tell {
    /// The operations, in order.
    pub ops: Vec<Op>,
    /// Addresses that names do not open: those of pods and nodes.
    pub inside: BTreeSet<IpAddr>,
    /// Addresses for which there is no room before the next plan, if then.
    pub left_out: BTreeSet<IpAddr>,
    /// One of them opens what it opened before, though that has ended, or nothing: everything is to be planned at once.
    pub late: bool,
}

/// Classes that no entry has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retired {
    classes: Vec<(u32, bool)>,
    rows: Vec<PeerKey>,
}

impl Retired {
    /// What removes their rows, behind a barrier: a packet may have read an entry before it was changed.
    pub fn ops(&self) -> impl Iterator<Item = Op> {
        self.rows.iter().map(|key| Op::PolicyPeers { key: *key, value: None })
    }
}

/// How far plans are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// Nobody knows what the tables say: before the first plan, and after one that failed.
    #[default]
    Closed,
    /// One plan is in force.
    InForce,
    /// The second is being carried out, and both can say what an address is.
    Both,
    /// The second is being carried out, and nothing is told until it is in force.
    Waits,
}

/// Who tells.
#[derive(Debug, Default)]
pub struct Teller {
    stage: Stage,
    /// The plan in force, and the one that is being carried out.
    views: Vec<View>,
    capacity: Capacity,
    /// Addresses that were told since the last plan began to be made.
    since: BTreeSet<IpAddr>,
    /// A plan is being made or carried out.
    meanwhile: bool,
    /// By the plan that is being carried out every pod is judged by now.
    judged: bool,
    /// There was no room for rows, and some are of no use.
    lacks: bool,
    /// Classes for both plans.
    between: HashMap<Vec<Pair>, (u32, bool)>,
}

impl Teller {
    /// One for tables of this size, that knows nothing of them yet.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// Whether a set in force asks what a pod was told for this name. Nothing where that can't be said.
    #[must_use]
    pub fn asks(&self, pod: &ObjectKey, name: &str) -> Option<bool> {
        let mut asks = self.views.iter().map(|view| view.told.covers(pod, name));
        match self.stage {
            Stage::Closed => None,
            Stage::InForce => Some(asks.any(|asks| asks)),
            Stage::Both if self.judged => self.views.last().map(|view| view.told.covers(pod, name)),
            // One that only the next plan has is in force when that is.
            Stage::Both => {
                (asks.next() == Some(true)).then_some(true).or_else(|| asks.all(|asks| !asks).then_some(false))
            }
            Stage::Waits => asks.all(|asks| !asks).then_some(false),
        }
    }

    /// Whether names may open an address, by what is in force and what comes.
    #[must_use]
    pub fn is_outside(&self, ip: IpAddr) -> bool {
        is_outside(ip, |_| false) && self.views.iter().all(|view| view.is_outside(ip))
    }

    /// Whether sets ask about names.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.views.iter().any(|view| !view.is_empty())
    }

    /// Whether nothing is told at present, and nothing has been while a plan was made.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        match self.stage {
            Stage::Closed => true,
            Stage::InForce | Stage::Both => self.views.iter().all(View::is_empty),
            Stage::Waits => self.since.is_empty(),
        }
    }

    /// Whether it is known what the tables say.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.stage != Stage::Closed
    }

    /// A plan begins to be made of what was told so far.
    pub fn mark(&mut self) {
        self.since.clear();
        self.meanwhile = true;
    }

    /// No plan is being made.
    pub fn rest(&mut self) {
        self.meanwhile = false;
    }

    /// A plan is to be carried out. Gives the addresses to be told again ([`Teller::tell_again`]) before it is.
    pub fn begin(&mut self, next: View) -> BTreeSet<IpAddr> {
        self.views.truncate(1);
        self.judged = false;
        self.capacity.clone_from(&next.capacity);
        let is_beside = self.stage == Stage::InForce
            && self.views.iter().all(|view| !view.is_empty())
            && next.is_direct
            && !next.is_empty();
        self.stage = if is_beside { Stage::Both } else { Stage::Waits };
        self.views.push(next);
        self.since.clone()
    }

    /// Every pod is judged by the plan that is being carried out: what is left of it takes away what nobody needs.
    pub fn judged(&mut self) {
        self.judged = true;
    }

    /// Whether an operation of the plan is to be carried out: it knows nothing of what was told since it began to be made.
    #[must_use]
    pub fn keeps(&self, op: &Op) -> bool {
        let Op::Peer { addr, value } = op else { return true };
        !(value.is_none_or(|peer| is_told(peer.flags)) && self.since.contains(&IpAddr::from(*addr)))
    }

    /// The plan is in force. Gives the addresses to be told again ([`Teller::tell`]).
    pub fn finish(&mut self) -> BTreeSet<IpAddr> {
        let between = std::mem::take(&mut self.between);
        self.judged = false;
        let Some(mut view) = self.views.pop() else { return BTreeSet::new() };
        for (mut pairs, class) in between {
            if let Some(pair) = pairs.pop() {
                view.classes.entry(pair).or_insert(class);
            }
        }
        let again = if self.stage == Stage::Waits { self.since.clone() } else { BTreeSet::new() };
        (self.stage, self.views) = (Stage::InForce, vec![view]);
        again
    }

    /// Whether nothing is told until a plan is in force.
    #[cfg(test)]
    pub(super) fn waits(&self) -> bool {
        self.stage == Stage::Waits
    }

    /// What the plan in force makes of such addresses.
    #[cfg(test)]
    pub(super) fn into_view(mut self) -> View {
        self.views.pop().unwrap_or_default()
    }

    /// Nobody knows any more what the tables say.
    pub fn close(&mut self) {
        *self = Self { meanwhile: self.meanwhile, ..Self::new(self.capacity.clone()) };
    }

    /// Whether rows of classes that no entry has are many, or their room is needed.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        let idle = self.views.iter().map(View::idle).sum::<usize>();
        self.stage == Stage::InForce && (idle > MOST_IDLE || self.lacks && idle > 0)
    }

    /// Takes classes that no entry has out of use. Their rows may be removed behind a barrier, and their ids are taken until that
    /// is done ([`Teller::retired`]).
    pub fn retire(&mut self) -> Retired {
        self.lacks = false;
        let retired = self.views.first_mut().filter(|_| self.stage == Stage::InForce).map(View::retire);
        retired.map(|(classes, rows)| Retired { classes, rows }).unwrap_or_default()
    }

    /// Their rows are gone.
    pub fn retired(&mut self, retired: &Retired) {
        self.views.iter_mut().for_each(|view| view.retired(&retired.classes, retired.rows.len()));
    }

    /// The same at once, where no packet reads the tables while they are changed, or whoever changes them waits: the operations.
    pub fn reclaim(&mut self) -> Vec<Op> {
        if !self.is_crowded() {
            return Vec::new();
        }
        let retired = self.retire();
        self.retired(&retired);
        std::iter::once(Op::Barrier).chain(retired.ops()).collect()
    }

    /// The operations after which these addresses are what pods were told of them. An address for which there is no room keeps
    /// what it opens.
    pub fn tell(&mut self, names: &Names, addresses: &BTreeSet<IpAddr>, adds: bool) -> Tell {
        self.tell_of(names, addresses, adds, false)
    }

    /// The same of addresses that the plan which is to be carried out knows nothing of. One for which there is no room opens
    /// nothing.
    pub fn tell_again(&mut self, names: &Names, addresses: &BTreeSet<IpAddr>) -> Tell {
        self.tell_of(names, addresses, false, true)
    }

    fn tell_of(&mut self, names: &Names, addresses: &BTreeSet<IpAddr>, adds: bool, again: bool) -> Tell {
        let mut tell = Tell::default();
        if self.stage == Stage::Closed || self.stage == Stage::Waits && !again {
            tell.left_out.clone_from(addresses);
            return tell;
        }
        let mut room = Room::of(&self.views, &self.capacity);
        for ip in addresses {
            let addr = Addr::from(*ip);
            let stored = self.views.first().and_then(|view| view.peer.peers.get(&addr)).copied();
            let around: Vec<Peer> = self.views.iter().map(|view| view.around(addr)).collect();
            let is_inside = !self.views.iter().all(|view| view.is_outside(*ip));
            if self.stage == Stage::Waits || is_inside {
                if self.stage != Stage::Waits {
                    tell.inside.insert(*ip);
                }
                if again && stored.is_some_and(|peer| is_told(peer.flags)) {
                    self.put(&mut tell.ops, *ip, None);
                }
                continue;
            }
            let met: Vec<Arc<Met>> = self.views.iter().map(|view| Arc::new(view.told.met(names, *ip))).collect();
            let before: Vec<Option<Arc<Met>>> = self.views.iter().map(|view| view.met.get(&addr).cloned()).collect();
            self.views.iter_mut().for_each(|view| view.meets(addr, None));
            let made = if met.iter().all(|met| met.is_empty()) {
                Some(None)
            } else if stored.is_none() && room.peers == 0 {
                None
            } else {
                self.peer(&met, &around, &mut room, &mut tell.ops).map(Some)
            };
            let Some(value) = made else {
                tell.left_out.insert(*ip);
                tell.late |= again || !adds && stored.is_some();
                if again {
                    self.put(&mut tell.ops, *ip, None);
                } else {
                    self.views.iter_mut().zip(before).for_each(|(view, met)| view.meets(addr, met));
                }
                continue;
            };
            self.views.iter_mut().zip(met).for_each(|(view, met)| view.meets(addr, Some(met)));
            let value = value.map(|peer| peer.sealed(addr.tag()));
            // What a plan that is being carried out has written of it by now is not known.
            if value != stored || self.stage == Stage::Both {
                room.peers = (room.peers + usize::from(stored.is_some())).saturating_sub(usize::from(value.is_some()));
                self.put(&mut tell.ops, *ip, value);
            }
        }
        tell
    }

    fn put(&mut self, ops: &mut Vec<Op>, ip: IpAddr, value: Option<Peer>) {
        let addr = Addr::from(ip);
        for view in &mut self.views {
            view.note(addr, value);
            if value.is_none() {
                view.meets(addr, None);
            }
        }
        self.since.insert(ip);
        ops.push(Op::Peer { addr, value });
    }

    /// The entry of an address that meets this by each plan, in prefixes that each plan has around it. Nothing where there is no
    /// room.
    fn peer(&mut self, met: &[Arc<Met>], around: &[Peer], room: &mut Room, ops: &mut Vec<Op>) -> Option<Peer> {
        if !self.views.iter().zip(met).all(|(view, met)| met.is_empty() || view.room.admits(met)) {
            return None;
        }
        let mut pairs: Vec<Pair> = Vec::new();
        for ((view, met), around) in self.views.iter().zip(met).zip(around) {
            let base = view.prefixes.get(&around.class)?;
            let new: Signature = base.union(&met.live).copied().collect();
            let known: Signature = new.union(&met.lingering).copied().collect();
            pairs.push((new, known));
        }
        let (class, lingers) = match self.class_of(&pairs) {
            Some(class) => class,
            None => {
                // A class takes no more than a row for each page of each set, and a pair twice that.
                let pages = self.views.iter().flat_map(|view| &view.sets).map(|(_, set)| set.pages()).sum::<usize>();
                if 2 * pages > room.rows {
                    self.lacks = true;
                    return None;
                }
                let before = ops.len();
                let class = self.make_class(pairs, ops)?;
                room.rows = room.rows.saturating_sub(ops.len() - before);
                class
            }
        };
        let flags = around.last()?.flags | if lingers { PeerFlags::LINGERS } else { 0 };
        Some(Peer { tag: 0, class, slot: NO_SLOT, node: NO_NODE, flags })
    }

    fn class_of(&self, pairs: &[Pair]) -> Option<(u32, bool)> {
        match (self.views.as_slice(), pairs) {
            ([view], [pair]) => view.classes.get(pair).copied(),
            _ => self.between.get(pairs).copied(),
        }
    }

    /// Makes a class of addresses that meet this by each plan.
    fn make_class(&mut self, pairs: Vec<Pair>, ops: &mut Vec<Op>) -> Option<(u32, bool)> {
        let differs =
            |(view, (new, known)): (&View, &Pair)| view.sets.iter().any(|(_, set)| set.peers(new) != set.peers(known));
        let lingers = self.views.iter().zip(&pairs).any(differs);
        let twin = |id: u32| if lingers { id ^ PeerFlags::LINGERS } else { id };
        let is_taken = |id: u32| self.views.iter().any(|view| view.taken.contains(&id));
        let is_free = |id: &u32| !is_taken(*id) && !is_taken(twin(*id));
        let hashes: Vec<(u64, u64)> = (self.views.iter().zip(&pairs))
            .map(|(view, (new, known))| (view.hashes.of(new), view.hashes.of(known)))
            .collect();
        // With 2^31 ids of each kind there is always one.
        let id = match hashes.as_slice() {
            [(new, known)] if !self.meanwhile && lingers => pair_ids(*new, *known).find(is_free),
            [(new, _)] if !self.meanwhile => ids_from(*new as u32).find(is_free),
            _ => ids_from(content_hash(&hashes) as u32).map(|id| id | MEANWHILE).find(is_free),
        }?;
        // Of a set that goes on the next plan says how it judges.
        let mut said = HashSet::new();
        for (view, (new, known)) in self.views.iter_mut().zip(&pairs).rev() {
            view.taken.extend([id, twin(id)]);
            let before = ops.len();
            for (class, signature) in [(id, new), (twin(id), known)].into_iter().take(1 + usize::from(lingers)) {
                for (set, rows) in view.sets.iter().filter(|(set, _)| !said.contains(set)) {
                    for (page, bits) in (0..).zip(rows.peers(signature).pages()) {
                        if view.everybody.get(&(*set, page)) != Some(bits) {
                            let key = PeerKey { set: *set, class, page };
                            ops.push(Op::PolicyPeers { key, value: Some(Row::new(*bits).sealed(key.tag())) });
                        }
                    }
                }
            }
            let made = ops.iter().skip(before);
            view.made(id, made.filter_map(|op| if let Op::PolicyPeers { key, .. } = op { Some(*key) } else { None }));
            said.extend(view.sets.iter().map(|(set, _)| *set));
        }
        match (self.views.as_mut_slice(), pairs) {
            ([view], mut pairs) => drop(pairs.pop().and_then(|pair| view.classes.insert(pair, (id, lingers)))),
            (_, pairs) => drop(self.between.insert(pairs, (id, lingers))),
        }
        Some((id, lingers))
    }
}

/// Elements that there is room for.
struct Room {
    peers: usize,
    rows: usize,
}

impl Room {
    fn of(views: &[View], capacity: &Capacity) -> Self {
        let peers = views.iter().map(|view| view.peer.peers.len()).max().unwrap_or_default();
        let rows = views.iter().map(|view| view.rows).sum::<usize>();
        Self { peers: capacity.peers.saturating_sub(peers), rows: capacity.peer_rows.saturating_sub(rows) }
    }
}
