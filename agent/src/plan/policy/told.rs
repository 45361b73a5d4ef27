//! What a plan makes of addresses that pods are told by DNS, for who brings them into force between plans.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_datapath::Addr;
use fairlead_datapath::peer::{self, CidrKey, Peer, PeerFlags};
use fairlead_datapath::policy::PeerKey;

use super::ids::classes_spoken_of;
use super::{Capacity, Content};
use crate::compile::peers::{Lookup, is_told};
use crate::compile::policy::{Hashes, MOST_TOLD_ROWS, Met, PolicySet, Signature, ToldAtoms, ToldRoom, Wanted};
use crate::plan::Op;

/// What addresses of a class meet: for new flows, and for known ones.
pub(super) type Pair = (Signature, Signature);

/// A plan as far as it concerns such addresses.
#[derive(Debug, Default)]
pub struct View {
    pub(super) told: ToldAtoms,
    /// Which addresses names open.
    lookup: Lookup,
    pub(super) hashes: Hashes,
    /// The sets that judge, with their ids.
    pub(super) sets: Vec<(u32, PolicySet)>,
    /// What classes of prefixes meet, by id.
    pub(super) prefixes: HashMap<u32, Signature>,
    /// Ids of classes, by what their addresses meet, and whether known flows have one of their own.
    pub(super) classes: HashMap<Pair, (u32, bool)>,
    /// Ids that are taken, also while the plan is being carried out.
    pub(super) taken: HashSet<u32>,
    /// What each address meets, and the rows that this takes.
    pub(super) met: HashMap<Addr, Arc<Met>>,
    pub(super) room: ToldRoom,
    /// How many entries have each of these classes.
    users: HashMap<u32, usize>,
    /// The rows of classes of such addresses, and how many are of classes that no entry has.
    rows_of: HashMap<u32, Vec<PeerKey>>,
    idle: HashMap<u32, usize>,
    /// The tables of addresses and prefixes, as they are when the plan is in force.
    pub(super) peer: peer::HostTables,
    /// What everybody meets, by set and page.
    pub(super) everybody: HashMap<(u32, u32), [u64; 4]>,
    /// Elements of `POLICY_PEERS`.
    pub(super) rows: usize,
    /// What there is room for.
    pub(super) capacity: Capacity,
    /// Whether the plan leads from one answer to the other, and stops nobody on the way.
    pub(super) is_direct: bool,
}

/// What leads to a plan's content.
pub(super) struct Way<'a> {
    pub(super) old: &'a Content,
    pub(super) ops: &'a [Op],
    pub(super) is_direct: bool,
    pub(super) capacity: &'a Capacity,
}

impl View {
    /// Of what a plan wants, with the ids of its sets and what the tables hold after it. Without names there is nothing to know.
    pub(super) fn of(wanted: Wanted, sets: &[u32], target: Content, way: &Way<'_>) -> Self {
        if wanted.told.is_empty() {
            return Self::default();
        }
        let signature =
            |class: usize| wanted.classes.get(class).map(|(signature, _)| signature.clone()).unwrap_or_default();
        let room = ToldRoom::new(&wanted.told, MOST_TOLD_ROWS);
        let mut view = Self { room, is_direct: way.is_direct, capacity: way.capacity.clone(), ..Self::default() };
        for (key, peer) in &wanted.cidrs {
            if let Some(stored) = target.peer.cidrs.get(key) {
                view.prefixes.insert(stored.class, signature(peer.class));
            }
        }
        view.prefixes.insert(0, Signature::new());
        for (addr, peer) in wanted.peers.iter().filter(|(_, peer)| is_told(peer.flags)) {
            let Some(stored) = target.peer.peers.get(addr) else { continue };
            let (new, of_known) =
                peer.pair.and_then(|pair| wanted.pairs.get(pair)).copied().unwrap_or((peer.class, peer.class));
            view.classes.insert((signature(new), signature(of_known)), (stored.class, peer.pair.is_some()));
        }
        for (addr, met) in wanted.met.iter().filter(|(addr, _)| target.peer.peers.contains_key(addr)) {
            view.room.add(met);
            view.met.insert(*addr, Arc::clone(met));
        }
        let entries = target.peer.peers.values().chain(target.peer.cidrs.values());
        entries.for_each(|entry| *view.users.entry(entry.class).or_default() += 1);
        let twin = |(id, lingers): (u32, bool)| if lingers { id ^ PeerFlags::LINGERS } else { id };
        let of_class: HashMap<u32, u32> =
            view.classes.values().flat_map(|class| [(class.0, class.0), (twin(*class), class.0)]).collect();
        for key in target.policy.peers.keys() {
            if let Some(class) = of_class.get(&key.class) {
                view.rows_of.entry(*class).or_default().push(*key);
            }
        }
        view.taken = classes_spoken_of(way.old).union(&classes_spoken_of(&target)).copied().collect();
        for op in way.ops {
            match op {
                Op::PolicyPeers { key, .. } => drop(view.taken.insert(key.class)),
                Op::Peer { value: Some(peer), .. } | Op::Cidr { value: Some(peer), .. } => {
                    view.taken.extend([peer.class, peer.known_class()]);
                }
                _ => {}
            }
        }
        view.rows = target.policy.peers.len();
        let everybody = target.policy.peers.iter().filter(|(key, _)| key.class == 0);
        view.everybody = everybody.map(|(key, row)| ((key.set, key.page), row.bits)).collect();
        view.sets = sets.iter().copied().zip(wanted.sets).collect();
        (view.told, view.hashes, view.lookup) = (wanted.told, wanted.hashes, wanted.lookup);
        let peer::HostTables { peers, cidrs, .. } = target.peer;
        view.peer = peer::HostTables { peers, cidrs, ..peer::HostTables::default() };
        view
    }

    /// Whether nothing that pods are told concerns it.
    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// What is known of the addresses around one.
    pub(super) fn around(&self, addr: Addr) -> Peer {
        peer::Tables::cidr(&self.peer, &CidrKey::lookup(addr)).unwrap_or(Peer::WORLD)
    }

    /// Whether names may open an address.
    pub(super) fn is_outside(&self, ip: IpAddr) -> bool {
        let has = |ip: IpAddr| self.peer.peers.get(&Addr::from(ip)).is_some_and(|peer| !is_told(peer.flags));
        self.lookup.is_outside(ip, has)
    }

    /// Takes note of what an address that pods are told has now.
    pub(super) fn note(&mut self, addr: Addr, value: Option<Peer>) {
        let before = self.peer.peers.get(&addr).copied();
        if value.is_none() && before.is_some_and(|peer| !is_told(peer.flags)) {
            return;
        }
        match value {
            Some(peer) => drop(self.peer.peers.insert(addr, peer)),
            None => drop(self.peer.peers.remove(&addr)),
        }
        if let Some(peer) = value {
            *self.users.entry(peer.class).or_default() += 1;
            self.idle.remove(&peer.class);
        }
        if let Some(peer) = before {
            self.leave(peer.class);
        }
    }

    /// An address meets this from now on, or nothing any more.
    pub(super) fn meets(&mut self, addr: Addr, met: Option<Arc<Met>>) {
        if let Some(before) = self.met.remove(&addr) {
            self.room.remove(&before);
        }
        if let Some(met) = met.filter(|met| !met.is_empty()) {
            self.room.add(&met);
            self.met.insert(addr, met);
        }
    }

    /// A class was made, with these rows.
    pub(super) fn made(&mut self, class: u32, rows: impl IntoIterator<Item = PeerKey>) {
        let before = self.rows_of.entry(class).or_default();
        let count = before.len();
        before.extend(rows);
        self.rows += before.len() - count;
    }

    /// An entry that was there has it no more.
    fn leave(&mut self, class: u32) {
        let Some(users) = self.users.get_mut(&class) else { return };
        *users = users.saturating_sub(1);
        if *users == 0 {
            self.users.remove(&class);
            self.idle.insert(class, self.rows_of.get(&class).map_or(0, Vec::len));
        }
    }

    /// Rows of classes that no entry has.
    pub(super) fn idle(&self) -> usize {
        self.idle.values().sum()
    }

    /// Gives out classes no more that no entry has. Gives them, and their rows.
    pub(super) fn retire(&mut self) -> (Vec<(u32, bool)>, Vec<PeerKey>) {
        let idle = std::mem::take(&mut self.idle);
        let gone: Vec<(u32, bool)> =
            self.classes.extract_if(|_, (class, _)| idle.contains_key(class)).map(|(_, class)| class).collect();
        let rows = gone.iter().filter_map(|(class, _)| self.rows_of.remove(class)).flatten().collect();
        (gone, rows)
    }

    /// The rows of these classes are gone.
    pub(super) fn retired(&mut self, classes: &[(u32, bool)], rows: usize) {
        self.rows = self.rows.saturating_sub(rows);
        for (class, lingers) in classes {
            self.taken.remove(class);
            self.taken.remove(&if *lingers { class ^ PeerFlags::LINGERS } else { *class });
        }
    }
}
