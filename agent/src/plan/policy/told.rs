//! Between two plans: addresses that pods are told by DNS, and that end.
//!
//! Such an address changes nothing for any other, so it needs no plan of everything: it is what the prefix around it is, and meets
//! besides what its pods ask. Rows of its class come first, where nothing leads to them, then its entry; that is one operation
//! where the class is there, as it is for all addresses of a name but the first. What it opens is only ever accepted, so no flow
//! that is known is judged otherwise when it comes, and none when it ends ([`PeerFlags::LINGERS`]): epochs stay. The next plan
//! finds the addresses as it would have written them, and takes out the rows that nothing leads to any more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use fairlead_datapath::Addr;
use fairlead_datapath::peer::{self, CidrKey, NO_NODE, NO_SLOT, Peer, PeerFlags};
use fairlead_datapath::policy::{PeerKey, Row};
use fairlead_objects::ObjectKey;

use super::ids::{classes_spoken_of, pair_ids};
use super::{Capacity, Content, State};
use crate::compile::peers::told_rows;
use crate::compile::policy::{Hashes, MOST_TOLD_ROWS, Met, PolicySet, Signature, ToldAtoms, Wanted};
use crate::names::Names;
use crate::plan::Op;

/// What the last plan makes of addresses that pods are told.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    told: ToldAtoms,
    hashes: Hashes,
    /// The sets in force, with their ids.
    sets: Vec<(u32, PolicySet)>,
    /// What classes of prefixes meet, by id.
    prefixes: HashMap<u32, Signature>,
    /// Ids of classes, by what their addresses meet for new flows and for known ones, and whether these are a pair.
    classes: HashMap<(Signature, Signature), (u32, bool)>,
    /// Ids that are taken, once somebody has asked.
    taken: Option<HashSet<u32>>,
    met: HashSet<Met>,
    rows: usize,
}

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
}

impl Known {
    /// Of what a plan wants, with the ids of its sets and what the tables hold after it. Without names there is nothing to know.
    pub(super) fn of(wanted: Wanted, sets: &[u32], target: &Content) -> Self {
        if wanted.told.is_empty() {
            return Self::default();
        }
        let signature =
            |class: usize| wanted.classes.get(class).map(|(signature, _)| signature.clone()).unwrap_or_default();
        let mut known = Self { rows: wanted.told_rows, ..Self::default() };
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
        known.sets = sets.iter().copied().zip(wanted.sets).collect();
        (known.told, known.hashes) = (wanted.told, wanted.hashes);
        known
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

/// Whether an entry with these flags is of an address that a pod was told.
fn is_told(flags: u32) -> bool {
    flags & (PeerFlags::POD | PeerFlags::NODE) == 0
}

impl State {
    /// Whether a set in force asks what a pod was told for this name.
    #[must_use]
    pub fn asks(&self, pod: &ObjectKey, name: &str) -> bool {
        self.known.told.covers(pod, name)
    }

    /// The operations after which these addresses are what pods were told of them. An address for which there is no room keeps
    /// what it opens if this only adds to it, and else opens nothing.
    pub fn tell(&mut self, names: &Names, addresses: &BTreeSet<IpAddr>, adds: bool) -> Tell {
        let Self { content, known, capacity, .. } = self;
        let mut tell = Tell::default();
        let mut room = Room::of(content, capacity);
        for ip in addresses {
            let addr = Addr::from(*ip);
            let stored = content.peer.peers.get(&addr).copied();
            let around = peer::Tables::cidr(&content.peer, &CidrKey::lookup(addr)).unwrap_or(Peer::WORLD);
            if stored.is_some_and(|peer| !is_told(peer.flags)) || !is_told(around.flags) {
                tell.inside.insert(*ip);
                continue;
            }
            let met = known.told.met(names, *ip);
            let value = if met.is_empty() {
                None
            } else {
                let before = tell.ops.len();
                let made = known.peer(content, &met, &around, &mut room, &mut tell.ops);
                if made.is_none() {
                    tell.ops.truncate(before);
                    tell.left_out.insert(*ip);
                    if adds {
                        continue;
                    }
                }
                made.map(|peer| peer.sealed(addr.tag()))
            };
            if value != stored {
                room.peers += usize::from(stored.is_some());
                if value.is_some() && room.peers == 0 {
                    tell.left_out.insert(*ip);
                } else {
                    room.peers -= usize::from(value.is_some());
                    tell.ops.push(Op::Peer { addr, value });
                }
            }
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
        let rows = self.rows + if self.met.contains(met) { 0 } else { told_rows(met) };
        // A class takes no more than a row for each page of each set, and a pair twice that.
        let most = 2 * self.sets.iter().map(|(_, set)| set.pages()).sum::<usize>();
        let new: Signature = base.union(&met.live).copied().collect();
        let known: Signature = new.union(&met.lingering).copied().collect();
        let is_there = self.classes.contains_key(&(new.clone(), known.clone()));
        if !is_there && (rows > MOST_TOLD_ROWS || most > room.rows) {
            return None;
        }
        let before = ops.len();
        let (class, lingers) = self.class(content, (new, known), ops);
        room.rows = room.rows.saturating_sub(ops.len() - before);
        if self.met.insert(met.clone()) {
            self.rows = rows;
        }
        let flags = around.flags | if lingers { PeerFlags::LINGERS } else { 0 };
        Some(Peer { tag: 0, class, slot: NO_SLOT, node: NO_NODE, flags })
    }
}
