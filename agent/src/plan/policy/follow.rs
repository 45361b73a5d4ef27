//! From one content to the next where nothing changes but pods, and what judges those of this node is there: in time that grows
//! with what changes, whatever else is there.
//!
//! A pod of this node that is judged already keeps its sets. So there are no classes in between, and an address that leaves the
//! table needs no entry that says first what its prefix does: who looks it up finds the old entry or none, the old answer or the
//! new one. A set that judges nobody any more stays until everything is planned the next time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::peer::{self, CidrKey, NO_NODE, NO_SLOT, Peer, PeerFlags, Pod, PodWord};
use fairlead_datapath::policy::{
    ALLOW_ALL, CUT_OFF, DENY_ALL, HostTables, MAX_SETS, PeerKey, PolicySet as SetRow, Row,
};

use super::change::{is_same, next_epoch};
use super::ids::{Ids, Rows, ids_from};
use super::{Capacity, Content, Plan, Why};
use crate::compile::policy::{
    Change, Draft, InTables, Index, Judge, NewSet, PolicySet, SetInfo, Signature, Stored, Wanted, WantedPeer,
};
use crate::model::{Dirty, Model};
use crate::plan::Op;
use fairlead_datapath::Addr;

/// What was compiled last, with the ids that it has in the tables.
#[derive(Debug)]
pub(super) struct InForce {
    index: Index,
    sets: Vec<(u32, PolicySet)>,
    classes: BTreeMap<usize, Class>,
    /// The classes by their ids.
    by_id: HashMap<u32, usize>,
    nodes: Vec<Option<u16>>,
    /// Rows of `POLICY_PORTS` and of `POLICY_RANGES` that the sets need at most.
    rows: [usize; 2],
}

/// What the tables have, for who knows classes by their index.
struct View<'a> {
    content: &'a Content,
    by_id: &'a HashMap<u32, usize>,
}

impl InTables for View<'_> {
    fn address(&self, addr: Addr) -> Option<Stored> {
        let Some(peer) = self.content.peer.peers.get(&addr) else { return Some(Stored::Nothing) };
        let is_taken = peer.slot != NO_SLOT || peer.flags & PeerFlags::NODE != 0;
        self.by_id.get(&peer.class).copied().map(if is_taken { Stored::Taken } else { Stored::Pod })
    }

    fn addresses(&self) -> impl Iterator<Item = Addr> {
        self.content.peer.peers.keys().copied()
    }

    fn prefix(&self, key: &CidrKey) -> Option<Option<usize>> {
        let Some(peer) = self.content.peer.cidrs.get(key) else { return Some(None) };
        self.by_id.get(&peer.class).copied().map(Some)
    }
}

#[derive(Debug)]
struct Class {
    id: u32,
    signature: Signature,
}

impl InForce {
    /// Of what was planned, if all of it depends on pods elsewhere by their addresses alone. `refused` are sets that have no place.
    pub(super) fn new<'a, I: IntoIterator<Item = &'a Why>>(
        draft: &Draft<'_>,
        kept: &[usize],
        mut wanted: Wanted,
        ids: Ids,
        refused: I,
    ) -> Option<Self> {
        let depends = |why: &Why| match why {
            Why::TooManyRules { .. } | Why::TooManyPeers { .. } => false,
            Why::Full { table, .. } => *table == TableId::PolicyPeers,
            Why::Exposed { .. } => true,
        };
        if refused.into_iter().any(depends) {
            return None;
        }
        let index = Index::new(draft, kept, &mut wanted);
        let signatures = wanted.classes.into_iter().map(|(signature, _)| signature);
        let classes = ids.classes.iter().zip(signatures).map(|(id, signature)| Class { id: *id, signature });
        let rows = kept.iter().map(|set| draft.rows(*set)).fold([0; 2], sum);
        Some(Self {
            index,
            rows,
            sets: ids.sets.into_iter().zip(wanted.sets).collect(),
            by_id: ids.classes.iter().enumerate().map(|(class, id)| (*id, class)).collect(),
            classes: classes.enumerate().collect(),
            nodes: ids.nodes,
        })
    }

    /// The operations that bring into force what has changed. Nothing if everything has to be planned.
    pub(super) fn follow(&mut self, old: &Content, model: &Model, dirty: &Dirty, capacity: &Capacity) -> Option<Plan> {
        let Self { index, by_id, .. } = self;
        let mut change = index.follow(model, dirty, &View { content: old, by_id })?;
        let new = self.take_in(old, &mut change, capacity)?;
        let added = change.peers.iter().filter(|(addr, peer)| peer.is_some() && !old.peer.peers.contains_key(addr));
        let prefixes = change.cidrs.keys().filter(|key| !old.peer.cidrs.contains_key(key));
        let has_room = old.policy.peers.len() + new.peers.len() <= capacity.peer_rows
            && old.policy.ports.len() + new.ports.len() <= capacity.port_rows
            && old.policy.ranges.len() + new.ranges.len() <= capacity.range_rows
            && old.policy.sets.len() + new.sets.len() <= capacity.sets
            && old.peer.peers.len() + added.count() <= capacity.peers
            && old.peer.cidrs.len() + prefixes.count() <= capacity.cidrs;
        if !has_room {
            return None;
        }
        let stopped = stopped(old, &change);
        let mut ops: Vec<Op> = stopped.iter().map(|(slot, word)| Op::PodWord { slot: *slot, word: word.0 }).collect();
        ops.extend(new.ports.iter().map(|(key, row)| Op::PolicyPorts { key: *key, value: Some(*row) }));
        ops.extend(new.ranges.iter().map(|(key, row)| Op::PolicyRange { key: *key, value: Some(*row) }));
        ops.extend(new.peers.iter().map(|(key, row)| Op::PolicyPeers { key: *key, value: Some(*row) }));
        ops.extend(new.sets.iter().map(|(index, set)| Op::PolicySet { index: *index, value: *set }));
        let mut moves = BTreeSet::new();
        let fall = |key: &CidrKey| peer::Tables::cidr(&old.peer, key).unwrap_or(Peer::WORLD).class;
        let moved = change.moves.iter().filter_map(|(addr, class)| {
            let stored = *old.peer.peers.get(addr)?;
            Some((*addr, Some(Peer { class: self.class(*class), ..stored })))
        });
        let changed = change.peers.iter().map(|(addr, peer)| (*addr, peer.as_ref().map(|peer| self.peer(peer))));
        for (addr, wanted) in changed.chain(moved).collect::<BTreeMap<_, _>>() {
            let (stored, wanted) = (old.peer.peers.get(&addr), wanted.map(|peer| peer.sealed(addr.tag())));
            if stored != wanted.as_ref() {
                let class = |peer: Option<&Peer>| peer.map_or_else(|| fall(&CidrKey::lookup(addr)), |peer| peer.class);
                moves.insert((class(stored), class(wanted.as_ref())));
                ops.push(Op::Peer { addr, value: wanted });
            }
        }
        // An address must not fall through to a shorter prefix before its own is there.
        let mut cidrs: Vec<_> = change.cidrs.iter().collect();
        cidrs.sort_by_key(|(key, _)| (Reverse(key.prefix_len), **key));
        for (key, wanted) in cidrs {
            let wanted = self.peer(wanted);
            if old.peer.cidrs.get(key) != Some(&wanted) {
                moves.insert((fall(key), wanted.class));
                ops.push(Op::Cidr { key: *key, value: Some(wanted) });
            }
        }
        self.start_pods(old, &change, &self.judging_otherwise(&moves)?, &mut ops)?;
        let gone = self.forget(old, &change.gone);
        let empty =
            stopped.iter().map(|(slot, word)| Op::Pod { slot: *slot, value: Pod { word: word.0, ..Pod::default() } });
        if !gone.is_empty() || !stopped.is_empty() {
            ops.push(Op::Barrier);
        }
        ops.extend(gone.into_iter().map(|key| Op::PolicyPeers { key, value: None }));
        ops.extend(empty);
        Some(Plan { ops, ..Plan::default() })
    }

    /// Whether the tables have a set that judges no pod.
    pub(super) fn has_unused_sets(&self) -> bool {
        self.index.has_unused_sets()
    }

    /// Gives ids to sets and classes that come. Returns their rows.
    fn take_in(&mut self, old: &Content, change: &mut Change, capacity: &Capacity) -> Option<HostTables> {
        let mut new = HostTables::default();
        for NewSet { set, rows } in std::mem::take(&mut change.sets) {
            self.rows = sum(self.rows, rows);
            let [ports, ranges] = self.rows;
            let fits = set.info.rules.len() <= capacity.rules
                && ports <= capacity.port_rows
                && ranges <= capacity.range_rows
                && self.index.atoms() <= capacity.atoms;
            let id = self.free_id(old, &set).filter(|_| fits)?;
            let Rows { meta, ports, ranges, everybody } = Rows::of(&set, id);
            new.sets.insert(SetRow::index(id), meta);
            new.ports.extend(ports);
            new.ranges.extend(ranges);
            for (page, bits) in (0..).zip(everybody) {
                let key = PeerKey { set: id, class: 0, page };
                new.peers.insert(key, Row::new(bits).sealed(key.tag()));
            }
            self.sets.push((id, set));
        }
        for (class, (signature, hash)) in &change.new {
            if self.classes.contains_key(class) {
                continue;
            }
            let is_free = |id: &u32| *id != 0 && !self.by_id.contains_key(id);
            let id = ids_from(*hash as u32).find(is_free)?;
            for (set, compiled) in &self.sets {
                if compiled.met(signature).iter().all(BTreeSet::is_empty) {
                    continue;
                }
                for (page, bits) in (0..).zip(compiled.peers(signature).pages()) {
                    let everybody = PeerKey { set: *set, class: 0, page };
                    let everybody = new.peers.get(&everybody).or_else(|| old.policy.peers.get(&everybody));
                    if everybody.map(|row| row.bits) != Some(*bits) {
                        let key = PeerKey { set: *set, class: id, page };
                        new.peers.insert(key, Row::new(*bits).sealed(key.tag()));
                    }
                }
            }
            self.by_id.insert(id, *class);
            self.classes.insert(*class, Class { id, signature: signature.clone() });
        }
        Some(new)
    }

    /// An id for a set that comes, of an index that nothing speaks of.
    fn free_id(&self, old: &Content, set: &PolicySet) -> Option<u32> {
        let is_taken =
            |index| old.policy.sets.contains_key(&index) || self.sets.iter().any(|(id, _)| SetRow::index(*id) == index);
        let start = set.content as u32;
        let mut tries = (0..MAX_SETS).map(|n| start.wrapping_add(n) & PodWord::MAX_SET);
        tries.find(|id| *id > CUT_OFF && !is_taken(SetRow::index(*id)))
    }

    /// What a set stands for.
    pub(super) fn info(&self, set: u32) -> Option<&SetInfo> {
        self.sets.iter().find(|(id, _)| *id == set).map(|(_, set)| &set.info)
    }

    /// Forgets classes. Returns the keys of their rows.
    fn forget(&mut self, old: &Content, gone: &BTreeSet<usize>) -> BTreeSet<PeerKey> {
        let mut keys = BTreeSet::new();
        for class in gone {
            let Some(Class { id, signature: _ }) = self.classes.remove(class) else { continue };
            self.by_id.remove(&id);
            for (set, compiled) in &self.sets {
                let of_set = (0..).take(compiled.pages()).map(|page| PeerKey { set: *set, class: id, page });
                keys.extend(of_set.filter(|key| old.policy.peers.contains_key(key)));
            }
        }
        keys
    }

    /// The sets that judge otherwise an address that goes from one class to another.
    fn judging_otherwise(&self, moves: &BTreeSet<(u32, u32)>) -> Option<BTreeSet<u32>> {
        let mut changed = BTreeSet::new();
        for (from, to) in moves.iter().filter(|(from, to)| from != to) {
            let class = |id| self.classes.get(self.by_id.get(id)?);
            let (from, to) = (&class(from)?.signature, &class(to)?.signature);
            let differs = |set: &PolicySet| set.met(from) != set.met(to) && set.peers(from) != set.peers(to);
            changed.extend(self.sets.iter().filter(|(_, set)| differs(set)).map(|(id, _)| *id));
        }
        Some(changed)
    }

    /// Publishes records of new pods, and the words of those that are judged otherwise now. A pod that is judged already keeps its
    /// sets: else everything has to be planned.
    fn start_pods(&self, old: &Content, change: &Change, changed: &BTreeSet<u32>, ops: &mut Vec<Op>) -> Option<()> {
        let goes_on = |slot: &u16| !change.pods.contains_key(slot);
        let stay = old.peer.pods.iter().filter(|(slot, _)| !changed.is_empty() && goes_on(slot));
        let stay = stay.map(|(slot, pod)| (*slot, None, *pod));
        let others =
            change.pods.iter().filter_map(|(slot, pod)| Some((*slot, pod.as_ref())).filter(|(_, pod)| pod.is_some()));
        let others = others.map(|(slot, pod)| (slot, pod, old.peer.pods.get(&slot).copied().unwrap_or_default()));
        let all: BTreeMap<u16, _> = stay.chain(others).map(|(slot, pod, before)| (slot, (pod, before))).collect();
        for (slot, (pod, before)) in all {
            let mut now = PodWord(before.word);
            let mut sets = [now.ingress(), now.egress()];
            if let Some(pod) = pod {
                let wanted = [self.judge(pod.ingress)?, self.judge(pod.egress)?];
                let is_another = !is_same(&before, &pod.record);
                let keeps = |(set, wanted): (&u32, &u32)| *set == DENY_ALL || set == wanted && !is_another;
                if !sets.iter().zip(&wanted).all(keeps) {
                    return None;
                }
                if is_another {
                    now = PodWord::new(DENY_ALL, DENY_ALL, now.epoch());
                    ops.push(Op::Pod { slot, value: Pod { word: now.0, ..pod.record } });
                }
                sets = wanted;
            }
            if [now.ingress(), now.egress()] != sets || sets.iter().any(|set| changed.contains(set)) {
                let epoch = now.epoch().wrapping_add(1) % PodWord::EPOCHS;
                ops.push(Op::PodWord { slot, word: PodWord::new(sets[0], sets[1], epoch).0 });
            }
        }
        Some(())
    }

    fn judge(&self, judge: Judge) -> Option<u32> {
        match judge {
            Judge::Pending => Some(DENY_ALL),
            Judge::CutOff => None,
            Judge::Nobody => Some(ALLOW_ALL),
            Judge::Set(place) => self.sets.get(place).map(|(id, _)| *id),
        }
    }

    fn class(&self, class: usize) -> u32 {
        self.classes.get(&class).map(|class| class.id).unwrap_or_default()
    }

    fn peer(&self, peer: &WantedPeer) -> Peer {
        Peer {
            tag: 0,
            class: self.class(peer.class),
            slot: peer.slot.unwrap_or(NO_SLOT),
            node: peer.node.and_then(|node| self.nodes.get(node)).copied().flatten().unwrap_or(NO_NODE),
            flags: peer.flags,
        }
    }
}

/// The pods that are gone, with the words that stop them.
fn stopped(old: &Content, change: &Change) -> Vec<(u16, PodWord)> {
    let gone = change.pods.iter().filter(|(_, pod)| pod.is_none());
    let gone = gone.filter_map(|(slot, _)| Some((*slot, old.peer.pods.get(slot)?)));
    gone.map(|(slot, pod)| (slot, PodWord::new(DENY_ALL, DENY_ALL, next_epoch(pod)))).collect()
}

fn sum(a: [usize; 2], b: [usize; 2]) -> [usize; 2] {
    [a[0] + b[0], a[1] + b[1]]
}
