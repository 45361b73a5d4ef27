//! Between two plans: addresses that pods are told by DNS, and that end.
//!
//! Such an address changes nothing for any other, so it needs no plan of everything: it is what the prefix around it is, and meets
//! besides what its pods ask. Rows of its class come first, where nothing leads to them, then its entry; that is one operation
//! where the class is there, as it is for all addresses of a name but the first. What it opens is only ever accepted, so no flow
//! that is known is judged otherwise when it comes, and none when it ends ([`PeerFlags::LINGERS`]): epochs stay. The next plan
//! finds the addresses as it would have written them, and takes out the rows that nothing leads to any more; where these become many,
//! or their room is needed, they go before. So without a plan no more room is taken than what pods were told takes ([`ToldRoom`]).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_datapath::Addr;
use fairlead_datapath::peer::{self, CidrKey, NO_NODE, NO_SLOT, Peer, PeerFlags};
use fairlead_datapath::policy::{PeerKey, Row};
use fairlead_objects::ObjectKey;

use super::ids::{classes_spoken_of, pair_ids};
use super::{Capacity, Content, State};
use crate::compile::peers::{Lookup, is_told};
use crate::compile::policy::{Hashes, MOST_TOLD_ROWS, Met, PolicySet, Signature, ToldAtoms, ToldRoom, Wanted};
use crate::names::Names;
use crate::plan::Op;

/// What the last plan makes of addresses that pods are told.
#[derive(Debug, Default)]
pub(super) struct Known {
    told: ToldAtoms,
    /// Which addresses names open.
    lookup: Lookup,
    hashes: Hashes,
    /// The sets in force, with their ids.
    sets: Vec<(u32, PolicySet)>,
    /// What classes of prefixes meet, by id.
    prefixes: HashMap<u32, Signature>,
    /// Ids of classes, by what their addresses meet for new flows and for known ones, and whether these are a pair.
    classes: HashMap<(Signature, Signature), (u32, bool)>,
    /// Ids that are taken, once somebody has asked.
    taken: Option<HashSet<u32>>,
    /// What each address meets, and the rows that this takes.
    met: HashMap<Addr, Arc<Met>>,
    room: ToldRoom,
    /// How many entries have each of these classes, and the rows of those that none has.
    users: HashMap<u32, usize>,
    idle: HashMap<u32, usize>,
}

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
    /// One of them opens what it opened before, though that has ended: everything is to be planned at once.
    pub late: bool,
}

impl Known {
    /// Of what a plan wants, with the ids of its sets and what the tables hold after it. Without names there is nothing to know.
    pub(super) fn of(wanted: Wanted, sets: &[u32], target: &Content) -> Self {
        if wanted.told.is_empty() {
            return Self::default();
        }
        let signature =
            |class: usize| wanted.classes.get(class).map(|(signature, _)| signature.clone()).unwrap_or_default();
        let mut known = Self { room: ToldRoom::new(&wanted.told, MOST_TOLD_ROWS), ..Self::default() };
        for (key, peer) in &wanted.cidrs {
            if let Some(stored) = target.peer.cidrs.get(key) {
                known.prefixes.insert(stored.class, signature(peer.class));
            }
        }
        known.prefixes.insert(0, Signature::new());
        for (addr, peer) in wanted.peers.iter().filter(|(_, peer)| is_told(peer.flags)) {
            let Some(stored) = target.peer.peers.get(addr) else { continue };
            let (new, of_known) =
                peer.pair.and_then(|pair| wanted.pairs.get(pair)).copied().unwrap_or((peer.class, peer.class));
            known.classes.insert((signature(new), signature(of_known)), (stored.class, peer.pair.is_some()));
        }
        for (addr, met) in wanted.met.iter().filter(|(addr, _)| target.peer.peers.contains_key(addr)) {
            known.room.add(met);
            known.met.insert(*addr, Arc::clone(met));
        }
        let entries = target.peer.peers.values().chain(target.peer.cidrs.values());
        entries.for_each(|entry| *known.users.entry(entry.class).or_default() += 1);
        known.sets = sets.iter().copied().zip(wanted.sets).collect();
        (known.told, known.hashes, known.lookup) = (wanted.told, wanted.hashes, wanted.lookup);
        known
    }

    /// Whether names may open an address.
    fn is_outside(&self, content: &Content, ip: IpAddr) -> bool {
        let has = |ip: IpAddr| content.peer.peers.get(&Addr::from(ip)).is_some_and(|peer| !is_told(peer.flags));
        self.lookup.is_outside(ip, has)
    }

    /// The class of addresses that meet this, and the operations that make it.
    fn class(&mut self, content: &Content, (new, known): (Signature, Signature), ops: &mut Vec<Op>) -> (u32, bool) {
        if let Some(class) = self.classes.get(&(new.clone(), known.clone())) {
            return *class;
        }
        let lingers = self.sets.iter().any(|(_, set)| set.peers(&new) != set.peers(&known));
        let twin = |id: u32| if lingers { id ^ PeerFlags::LINGERS } else { id };
        let taken = self.taken.get_or_insert_with(|| classes_spoken_of(content).into_iter().collect());
        let (of_new, of_known) = (self.hashes.of(&new), self.hashes.of(&known));
        let is_free = |id: &u32| !taken.contains(id) && !taken.contains(&twin(*id));
        let id = if lingers {
            pair_ids(of_new, of_known).find(is_free)
        } else {
            (0..=u32::MAX).map(|n| (of_new as u32).wrapping_add(n)).find(is_free)
        };
        // With 2^32 ids there is always one.
        let id = id.unwrap_or_default();
        taken.extend([id, twin(id)]);
        for (class, signature) in [(id, &new), (twin(id), &known)].into_iter().take(1 + usize::from(lingers)) {
            for (set, rows) in &self.sets {
                for (page, bits) in (0..).zip(rows.peers(signature).pages()) {
                    let everybody = PeerKey { set: *set, class: 0, page };
                    if content.policy.peers.get(&everybody).map(|row| row.bits) != Some(*bits) {
                        let key = PeerKey { set: *set, class, page };
                        ops.push(Op::PolicyPeers { key, value: Some(Row::new(*bits).sealed(key.tag())) });
                    }
                }
            }
        }
        self.classes.insert((new, known), (id, lingers));
        (id, lingers)
    }
}

impl State {
    /// Whether a set in force asks what a pod was told for this name.
    #[must_use]
    pub fn asks(&self, pod: &ObjectKey, name: &str) -> bool {
        self.known.told.covers(pod, name)
    }

    /// Whether names may open an address, as the last plan has it.
    #[must_use]
    pub fn is_outside(&self, ip: IpAddr) -> bool {
        self.known.is_outside(&self.content, ip)
    }

    /// Whether sets in force ask about names.
    #[must_use]
    pub fn has_names(&self) -> bool {
        !self.known.told.is_empty()
    }

    /// The operations after which these addresses are what pods were told of them. An address for which there is no room keeps
    /// what it opens.
    pub fn tell(&mut self, names: &Names, addresses: &BTreeSet<IpAddr>, adds: bool) -> Tell {
        let Self { content, known, capacity, .. } = self;
        let mut tell = Tell::default();
        let mut room = Room::of(content, capacity);
        for ip in addresses {
            let addr = Addr::from(*ip);
            let stored = content.peer.peers.get(&addr).copied();
            let around = peer::Tables::cidr(&content.peer, &CidrKey::lookup(addr)).unwrap_or(Peer::WORLD);
            if !known.is_outside(content, *ip) {
                tell.inside.insert(*ip);
                continue;
            }
            let before = known.met.remove(&addr);
            before.iter().for_each(|met| known.room.remove(met));
            let met = Arc::new(known.told.met(names, *ip));
            let has_room = met.is_empty() || stored.is_some() || room.peers > 0;
            let made = match met.is_empty() {
                true => Some(None),
                false if !has_room => None,
                false => known.peer(content, &met, &around, &mut room, &mut tell.ops).map(Some),
            };
            let Some(value) = made else {
                if let Some(met) = before {
                    known.room.add(&met);
                    known.met.insert(addr, met);
                }
                tell.left_out.insert(*ip);
                tell.late |= !adds && stored.is_some();
                continue;
            };
            if !met.is_empty() {
                known.room.add(&met);
                known.met.insert(addr, met);
            }
            let value = value.map(|peer| peer.sealed(addr.tag()));
            if value != stored {
                room.peers = room.peers + usize::from(stored.is_some()) - usize::from(value.is_some());
                value.iter().for_each(|peer| known.enter(peer.class));
                stored.iter().for_each(|peer| known.leave(content, peer.class));
                tell.ops.push(Op::Peer { addr, value });
            }
        }
        if known.idle.values().sum::<usize>() > MOST_IDLE {
            known.reclaim(content, &mut room, &mut tell.ops);
        }
        if !tell.ops.is_empty() {
            self.in_force = None;
        }
        tell
    }
}

/// Elements that there is room for.
struct Room {
    peers: usize,
    rows: usize,
}

impl Room {
    fn of(content: &Content, capacity: &Capacity) -> Self {
        Self {
            peers: capacity.peers.saturating_sub(content.peer.peers.len()),
            rows: capacity.peer_rows.saturating_sub(content.policy.peers.len()),
        }
    }
}

impl Known {
    /// The entry of an address that meets this in a prefix. Nothing where there is no room.
    fn peer(
        &mut self,
        content: &Content,
        met: &Met,
        around: &Peer,
        room: &mut Room,
        ops: &mut Vec<Op>,
    ) -> Option<Peer> {
        let base = self.prefixes.get(&around.class)?.clone();
        if !self.room.admits(met) {
            return None;
        }
        // A class takes no more than a row for each page of each set, and a pair twice that.
        let most = 2 * self.sets.iter().map(|(_, set)| set.pages()).sum::<usize>();
        let new: Signature = base.union(&met.live).copied().collect();
        let known: Signature = new.union(&met.lingering).copied().collect();
        let is_there = self.classes.contains_key(&(new.clone(), known.clone()));
        if !is_there && most > room.rows {
            self.reclaim(content, room, ops);
            if most > room.rows {
                return None;
            }
        }
        let before = ops.len();
        let (class, lingers) = self.class(content, (new, known), ops);
        room.rows = room.rows.saturating_sub(ops.len() - before);
        let flags = around.flags | if lingers { PeerFlags::LINGERS } else { 0 };
        Some(Peer { tag: 0, class, slot: NO_SLOT, node: NO_NODE, flags })
    }

    /// An entry has a class.
    fn enter(&mut self, class: u32) {
        *self.users.entry(class).or_default() += 1;
        self.idle.remove(&class);
    }

    /// An entry that is there has it no more.
    fn leave(&mut self, content: &Content, class: u32) {
        let Some(users) = self.users.get_mut(&class) else { return };
        *users = users.saturating_sub(1);
        if *users == 0 {
            self.users.remove(&class);
            let rows = self.rows_of(content, class).count();
            self.idle.insert(class, rows);
        }
    }

    /// The rows that the tables have of a class, and of the one of known flows that goes with it.
    fn rows_of<'a>(&'a self, content: &'a Content, class: u32) -> impl Iterator<Item = PeerKey> + 'a {
        let keys = self.sets.iter().flat_map(move |(set, rows)| {
            let classes = [class, class ^ PeerFlags::LINGERS].into_iter();
            classes.flat_map(move |class| (0..).take(rows.pages()).map(move |page| PeerKey { set: *set, class, page }))
        });
        keys.filter(|key| content.policy.peers.contains_key(key))
    }

    /// Removes the rows of classes that no entry has, behind a barrier: a packet may have read an entry before it was changed.
    fn reclaim(&mut self, content: &Content, room: &mut Room, ops: &mut Vec<Op>) {
        let idle = std::mem::take(&mut self.idle);
        let gone: Vec<(u32, bool)> =
            self.classes.extract_if(|_, (class, _)| idle.contains_key(class)).map(|(_, class)| class).collect();
        let mut keys = BTreeSet::new();
        for (class, lingers) in gone {
            keys.extend(self.rows_of(content, class).filter(|key| key.class == class || lingers));
            if let Some(taken) = &mut self.taken {
                taken.remove(&class);
                taken.remove(&if lingers { class ^ PeerFlags::LINGERS } else { class });
            }
        }
        if !keys.is_empty() {
            room.rows += keys.len();
            ops.push(Op::Barrier);
            ops.extend(keys.into_iter().map(|key| Op::PolicyPeers { key, value: None }));
        }
    }
}
