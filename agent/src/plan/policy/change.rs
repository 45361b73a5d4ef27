//! From one content to another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use fairlead_datapath::Addr;
use fairlead_datapath::catalog::TableId;
use fairlead_datapath::peer::{self, CidrKey, NO_NODE, NO_SLOT, NodeHop, Peer, PeerFlags, Pod, PodWord};
use fairlead_datapath::policy::{ALLOW_ALL, CUT_OFF, DENY_ALL, PeerKey, PolicySet, Row};

use super::ids::{Ids, Rows, classes_spoken_of, ids_from};
use super::nodes::Former;
use super::{Capacity, Content, PlanError};
use crate::compile::policy::{Judge, Wanted, WantedPeer, content_hash};
use crate::plan::Op;

/// What the tables shall hold, and the ids of what is wanted. Words carry the epoch that is in force now.
pub(super) fn target(
    old: &Content,
    wanted: &Wanted,
    capacity: &Capacity,
    former: &Former,
) -> Result<(Content, Ids), PlanError> {
    let mut banned = BTreeSet::new();
    loop {
        let ids = Ids::assign(old, wanted, &banned, (capacity, former))?;
        let target = with_ids(old, wanted, &ids);
        let contested = contested(old, &target);
        if contested.is_empty() {
            return Ok((target, ids));
        }
        banned.extend(contested);
    }
}

/// Sets that would go on, and judge an address otherwise than before, while a pod leaves them: that pod must see
/// the old answers until it has gone over, those that stay the new ones. So nobody stays: the set gets another id.
fn contested(old: &Content, target: &Content) -> BTreeSet<u32> {
    let mut left = BTreeSet::new();
    for (slot, pod) in &old.peer.pods {
        // A pod that is gone has been stopped before anything else changes.
        let Some(goes_on) = target.peer.pods.get(slot).filter(|new| is_same(pod, new)) else { continue };
        let (old, new) = (PodWord(pod.word), PodWord(goes_on.word));
        for (old, new) in [(old.ingress(), new.ingress()), (old.egress(), new.egress())] {
            if old != new {
                left.insert(old);
            }
        }
    }
    let kept: BTreeSet<_> = target.sets().intersection(&left).copied().collect();
    if kept.is_empty() {
        return kept;
    }
    let moves = class_moves(&flips(old, target));
    kept.into_iter().filter(|set| judges_otherwise(old, target, *set, &moves)).collect()
}

fn judges_otherwise(old: &Content, target: &Content, set: u32, moves: &BTreeSet<Move>) -> bool {
    let mut steps = moves.iter().flat_map(Move::steps);
    steps.any(|(from, to)| old.rules(set, from) != target.rules(set, to))
}

/// From the classes of an address to those that it is to have: each for new flows and for those that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Move {
    from: (u32, u32),
    to: (u32, u32),
}

impl Move {
    fn of(before: &Peer, after: &Peer) -> Self {
        let classes = |peer: &Peer| (peer.class, peer.known_class());
        Self { from: classes(before), to: classes(after) }
    }

    /// For each kind of flow, from one class to the other.
    fn steps(&self) -> [(u32, u32); 2] {
        [(self.from.0, self.to.0), (self.from.1, self.to.1)]
    }

    /// Whether flows that are known have a class of their own before or after.
    fn lingers(&self) -> bool {
        self.from.0 != self.from.1 || self.to.0 != self.to.1
    }
}

fn with_ids(old: &Content, wanted: &Wanted, ids: &Ids) -> Content {
    let mut content = Content::default();
    for (set, id) in wanted.sets.iter().zip(&ids.sets) {
        let rows = Rows::of(set, *id);
        content.policy.sets.insert(PolicySet::index(*id), rows.meta);
        content.policy.ports.extend(rows.ports);
        content.policy.ranges.extend(rows.ranges);
        put_rules(&mut content, *id, 0, &rows.everybody);
        for ((signature, _), class) in wanted.classes.iter().zip(&ids.classes) {
            put_rules(&mut content, *id, *class, set.peers(signature).pages());
        }
        for (pair, id_of_pair) in wanted.pairs.iter().zip(&ids.pairs) {
            for (class, place) in [(*id_of_pair, pair.0), (id_of_pair ^ PeerFlags::LINGERS, pair.1)] {
                if let Some((signature, _)) = wanted.classes.get(place) {
                    put_rules(&mut content, *id, class, set.peers(signature).pages());
                }
            }
        }
    }
    let peer = |peer: &WantedPeer| Peer {
        tag: 0,
        class: match peer.pair {
            Some(pair) => ids.pairs.get(pair).copied().unwrap_or_default(),
            None => ids.classes.get(peer.class).copied().unwrap_or_default(),
        },
        slot: peer.slot.unwrap_or(NO_SLOT),
        node: peer.node.and_then(|node| ids.nodes.get(node)).copied().flatten().unwrap_or(NO_NODE),
        flags: peer.flags,
    };
    content.peer.peers = wanted.peers.iter().map(|(addr, p)| (*addr, peer(p).sealed(addr.tag()))).collect();
    content.peer.cidrs = wanted.cidrs.iter().map(|(key, p)| (*key, peer(p))).collect();
    let nodes = ids.nodes.iter().zip(&wanted.nodes);
    content.peer.nodes = nodes.filter_map(|(index, hop)| Some(((*index)?, *hop))).collect();
    let judge = |judge| match judge {
        Judge::Pending => DENY_ALL,
        Judge::CutOff => CUT_OFF,
        Judge::Nobody => ALLOW_ALL,
        Judge::Set(index) => ids.sets.get(index).copied().unwrap_or(DENY_ALL),
    };
    for (slot, pod) in &wanted.pods {
        let epoch = old.peer.pods.get(slot).map_or(0, |pod| PodWord(pod.word).epoch());
        let word = PodWord::new(judge(pod.ingress), judge(pod.egress), epoch);
        content.peer.pods.insert(*slot, Pod { word: word.0, ..pod.record });
    }
    // A slot keeps counting epochs when its pod is gone: flows of that pod may still be remembered.
    for (slot, pod) in &old.peer.pods {
        let word = PodWord::new(DENY_ALL, DENY_ALL, PodWord(pod.word).epoch());
        content.peer.pods.entry(*slot).or_insert(Pod { word: word.0, ..Pod::default() });
    }
    content
}

/// Writes the rows of a class, those that class 0 has as well left out.
fn put_rules(content: &mut Content, set: u32, class: u32, rules: &[[u64; 4]]) {
    for (page, bits) in (0..).zip(rules) {
        let everybody = content.policy.peers.get(&PeerKey { set, class: 0, page }).map(|row| row.bits);
        if class == 0 || everybody != Some(*bits) {
            let key = PeerKey { set, class, page };
            content.policy.peers.insert(key, Row::new(*bits).sealed(key.tag()));
        }
    }
}

/// Where an address' or a prefix' entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Peer(Addr),
    /// Ordered by falling length: an address must not fall through to a shorter prefix before its own is there.
    Cidr(std::cmp::Reverse<u32>, CidrKey),
}

/// An entry that changes, and what it says for its addresses before and after: its own value or that of the prefix
/// that they fall to.
#[derive(Debug, Clone, Copy)]
struct Flip {
    place: Place,
    before: Peer,
    after: Peer,
    stored: Option<Peer>,
    wanted: Option<Peer>,
}

fn cidr(content: &Content, key: &CidrKey) -> Peer {
    peer::Tables::cidr(&content.peer, key).unwrap_or(Peer::WORLD)
}

fn flips(old: &Content, target: &Content) -> Vec<Flip> {
    let mut flips = Vec::new();
    let addrs: BTreeSet<_> = old.peer.peers.keys().chain(target.peer.peers.keys()).copied().collect();
    for addr in addrs {
        let (stored, wanted) = (old.peer.peers.get(&addr).copied(), target.peer.peers.get(&addr).copied());
        if stored != wanted {
            let key = CidrKey::lookup(addr);
            let fall = |entry: Option<Peer>, content| entry.unwrap_or_else(|| cidr(content, &key)).sealed(addr.tag());
            let (before, after) = (fall(stored, old), fall(wanted, target));
            flips.push(Flip { place: Place::Peer(addr), before, after, stored, wanted });
        }
    }
    let keys: BTreeSet<_> = old.peer.cidrs.keys().chain(target.peer.cidrs.keys()).copied().collect();
    for key in keys {
        let (stored, wanted) = (old.peer.cidrs.get(&key).copied(), target.peer.cidrs.get(&key).copied());
        if stored != wanted {
            let (before, after) = (cidr(old, &key), cidr(target, &key));
            let place = Place::Cidr(std::cmp::Reverse(key.prefix_len), key);
            flips.push(Flip { place, before, after, stored, wanted });
        }
    }
    flips.sort_by_key(|flip| flip.place);
    flips
}

impl Flip {
    fn class_move(&self) -> Move {
        Move::of(&self.before, &self.after)
    }
}

fn class_moves(flips: &[Flip]) -> BTreeSet<Move> {
    flips.iter().map(Flip::class_move).filter(|each| each.from != each.to).collect()
}

impl Place {
    fn set(self, value: Option<Peer>) -> Op {
        match self {
            Self::Peer(addr) => Op::Peer { addr, value: value.map(|peer| peer.sealed(addr.tag())) },
            Self::Cidr(_, key) => Op::Cidr { key, value },
        }
    }
}

/// Classes in between, and the rows that the change needs besides those of the target. Where a move lingers, that of known flows
/// differs in [`PeerFlags::LINGERS`].
struct Between {
    classes: BTreeMap<Move, u32>,
    rows: Content,
}

fn between(old: &Content, target: &Content, moves: &BTreeSet<Move>) -> Between {
    let mut out = Between { classes: BTreeMap::new(), rows: Content::default() };
    let dying: Vec<_> = old.sets().difference(&target.sets()).copied().collect();
    let mut known = classes_spoken_of(old);
    let mut taken: BTreeSet<u32> = known.union(&classes_spoken_of(target)).copied().collect();
    let mut put = |set, class, rules: Vec<[u64; 4]>, content: &Content| {
        for (page, bits) in (0..).zip(rules) {
            let everybody = content.policy.peers.get(&PeerKey { set, class: 0, page }).map(|row| row.bits);
            if everybody != Some(bits) {
                let key = PeerKey { set, class, page };
                out.rows.policy.peers.insert(key, Row::new(bits).sealed(key.tag()));
            }
        }
    };
    let mut stand_in: BTreeMap<u32, u32> = BTreeMap::new();
    for each in moves {
        // What a dying set says of the new class: its rows, or those of the class that it is the first to follow.
        for (from, to) in each.steps() {
            if known.insert(to) {
                stand_in.insert(to, from);
                for set in &dying {
                    put(*set, to, old.rules(*set, from), old);
                }
            }
        }
        let stays = |(from, to): (u32, u32)| {
            let speaks_as = stand_in.get(&to).copied().unwrap_or(to);
            dying.iter().all(|set| old.rules(*set, from) == old.rules(*set, speaks_as))
        };
        if each.steps().into_iter().all(stays) {
            continue;
        }
        let start = content_hash(&(each.from, each.to)) as u32;
        let twin = |id: u32| if each.lingers() { id ^ PeerFlags::LINGERS } else { id };
        let is_free = |id: &u32| !taken.contains(id) && !taken.contains(&twin(*id));
        let Some(class) = ids_from(start).find(is_free) else { continue };
        taken.extend([class, twin(class)]);
        for ((from, to), class) in each.steps().into_iter().zip([class, twin(class)]) {
            for set in &dying {
                put(*set, class, old.rules(*set, from), old);
            }
            for set in target.sets() {
                put(set, class, target.rules(set, to), target);
            }
        }
        out.classes.insert(*each, class);
    }
    out
}

/// The operations, in the order that the module describes.
pub(super) fn operations(old: &Content, target: &Content, capacity: &Capacity) -> Result<Vec<Op>, PlanError> {
    let flips = flips(old, target);
    let moves = class_moves(&flips);
    let between = between(old, target, &moves);
    let mut rows = target.policy.peers.clone();
    rows.extend(&between.rows.policy.peers);
    room(TableId::PolicyPeers, &old.policy.peers, &rows, capacity.peer_rows)?;
    room(TableId::PolicyPorts, &old.policy.ports, &target.policy.ports, capacity.port_rows)?;
    room(TableId::PolicyRanges, &old.policy.ranges, &target.policy.ranges, capacity.range_rows)?;
    room(TableId::Peers, &old.peer.peers, &target.peer.peers, capacity.peers)?;
    room(TableId::Cidrs, &old.peer.cidrs, &target.peer.cidrs, capacity.cidrs)?;

    let mut ops = Vec::new();
    let leaving = stop_pods(old, target, &mut ops);
    write_rows(old, target, &rows, &mut ops);
    for flip in &flips {
        let value = match between.classes.get(&flip.class_move()) {
            Some(class) => {
                let lingers = (flip.before.flags | flip.after.flags) & PeerFlags::LINGERS;
                Peer { class: *class, flags: flip.after.flags | lingers, ..flip.after }
            }
            None => flip.after,
        };
        if flip.stored != Some(value) {
            ops.push(flip.place.set(Some(value)));
        }
    }
    start_pods(old, target, &moves, &leaving, &mut ops);

    let mut last = Vec::new();
    for flip in &flips {
        if flip.wanted.is_none() {
            last.push(flip.place.set(None));
        } else if between.classes.contains_key(&flip.class_move()) {
            last.push(flip.place.set(Some(flip.after)));
        }
    }
    let mut dead = Vec::new();
    delete_rows(old, target, &rows, &mut dead);
    for (slot, pod) in old.peer.pods.iter().filter(|(slot, _)| target.peer.pods.get(slot).is_none_or(is_empty)) {
        if !is_empty(pod) {
            let word = PodWord::new(DENY_ALL, DENY_ALL, next_epoch(pod));
            dead.push(Op::Pod { slot: *slot, value: Pod { word: word.0, ..Pod::default() } });
        }
    }
    if !last.is_empty() || !dead.is_empty() {
        ops.push(Op::Barrier);
    }
    ops.extend(last);
    if !between.classes.is_empty() {
        ops.push(Op::Barrier);
    }
    ops.extend(dead);
    Ok(ops)
}

/// Whether the old elements and the new ones fit side by side. Where nothing is added they do, however full it is.
fn room<K: Hash + Eq, V>(
    table: TableId,
    old: &HashMap<K, V>,
    target: &HashMap<K, V>,
    size: usize,
) -> Result<(), PlanError> {
    let added = target.keys().filter(|key| !old.contains_key(key)).count();
    let needed = old.len() + added;
    if added > 0 && needed > size { Err(PlanError::Full { table, needed, size }) } else { Ok(()) }
}

/// Whether two records are the same pod's, whatever their words.
pub(super) fn is_same(a: &Pod, b: &Pod) -> bool {
    Pod { word: a.word, ..*b } == *a
}

fn is_empty(pod: &Pod) -> bool {
    Pod { word: 0, ..*pod } == Pod::default()
}

pub(super) fn next_epoch(pod: &Pod) -> u32 {
    PodWord(pod.word).epoch().wrapping_add(1) % PodWord::EPOCHS
}

/// Stops the pods that are gone or whose slot is another pod's now. Returns those slots.
fn stop_pods(old: &Content, target: &Content, ops: &mut Vec<Op>) -> BTreeSet<u16> {
    let mut leaving = BTreeSet::new();
    for (slot, pod) in &old.peer.pods {
        let same = target.peer.pods.get(slot).is_some_and(|new| is_same(pod, new));
        let word = PodWord(pod.word);
        if !same && (word.ingress(), word.egress()) != (DENY_ALL, DENY_ALL) {
            leaving.insert(*slot);
            let word = PodWord::new(DENY_ALL, DENY_ALL, next_epoch(pod));
            ops.push(Op::PodWord { slot: *slot, word: word.0 });
        }
    }
    leaving
}

/// Writes what nothing leads to yet.
fn write_rows(old: &Content, target: &Content, peers: &HashMap<PeerKey, Row>, ops: &mut Vec<Op>) {
    for (index, hop) in &target.peer.nodes {
        if old.peer.nodes.get(index) != Some(hop) {
            ops.push(Op::Node { index: *index, value: *hop });
        }
    }
    ops.extend(
        new(&old.policy.ports, &target.policy.ports).map(|(key, row)| Op::PolicyPorts { key, value: Some(row) }),
    );
    ops.extend(
        new(&old.policy.ranges, &target.policy.ranges).map(|(key, row)| Op::PolicyRange { key, value: Some(row) }),
    );
    ops.extend(new(&old.policy.peers, peers).map(|(key, row)| Op::PolicyPeers { key, value: Some(row) }));
    for (index, set) in &target.policy.sets {
        if old.policy.sets.get(index) != Some(set) {
            ops.push(Op::PolicySet { index: *index, value: *set });
        }
    }
}

/// What is in the second map and not in the first, in the order of its keys.
fn new<K: Hash + Ord + Copy, V: PartialEq + Copy>(
    old: &HashMap<K, V>,
    target: &HashMap<K, V>,
) -> impl Iterator<Item = (K, V)> {
    let added: BTreeMap<K, V> =
        target.iter().filter(|(key, value)| old.get(key) != Some(value)).map(|(key, value)| (*key, *value)).collect();
    added.into_iter()
}

/// Publishes records of new pods and the words of those that are judged otherwise now.
fn start_pods(old: &Content, target: &Content, moves: &BTreeSet<Move>, leaving: &BTreeSet<u16>, ops: &mut Vec<Op>) {
    let changed: BTreeSet<u32> = target
        .sets()
        .intersection(&old.sets())
        .copied()
        .filter(|set| judges_otherwise(old, target, *set, moves))
        .collect();
    let taken_over =
        |slot: &u16| leaving.contains(slot) && target.peer.pods.get(slot).is_some_and(|pod| !is_empty(pod));
    if target.peer.pods.keys().any(taken_over) {
        ops.push(Op::Barrier);
    }
    for (slot, pod) in target.peer.pods.iter().filter(|(_, pod)| !is_empty(pod)) {
        let before = old.peer.pods.get(slot).copied().unwrap_or_default();
        let stopped =
            PodWord::new(DENY_ALL, DENY_ALL, PodWord(before.word).epoch() + u32::from(leaving.contains(slot)));
        let another = !is_same(&before, pod);
        if another {
            ops.push(Op::Pod { slot: *slot, value: Pod { word: stopped.0, ..*pod } });
        }
        let now = if another { stopped } else { PodWord(before.word) };
        let word = PodWord(pod.word);
        let sets = [word.ingress(), word.egress()];
        if [now.ingress(), now.egress()] != sets || sets.iter().any(|set| changed.contains(set)) {
            let epoch = now.epoch().wrapping_add(1) % PodWord::EPOCHS;
            ops.push(Op::PodWord { slot: *slot, word: PodWord::new(sets[0], sets[1], epoch).0 });
        }
    }
}

/// Deletes what nothing leads to any more: what the tables have had or got, and the target has not.
pub(super) fn delete_rows(old: &Content, target: &Content, peers: &HashMap<PeerKey, Row>, ops: &mut Vec<Op>) {
    for index in old.policy.sets.keys().filter(|index| !target.policy.sets.contains_key(index)) {
        ops.push(Op::PolicySet { index: *index, value: PolicySet::default() });
    }
    let gone: BTreeSet<_> =
        old.policy.peers.keys().chain(peers.keys()).filter(|key| !target.policy.peers.contains_key(key)).collect();
    ops.extend(gone.into_iter().map(|key| Op::PolicyPeers { key: *key, value: None }));
    let gone: BTreeSet<_> = old.policy.ports.keys().filter(|key| !target.policy.ports.contains_key(key)).collect();
    ops.extend(gone.into_iter().map(|key| Op::PolicyPorts { key: *key, value: None }));
    let gone: BTreeSet<_> = old.policy.ranges.keys().filter(|key| !target.policy.ranges.contains_key(key)).collect();
    ops.extend(gone.into_iter().map(|key| Op::PolicyRange { key: *key, value: None }));
    for index in old.peer.nodes.keys().filter(|index| !target.peer.nodes.contains_key(index)) {
        ops.push(Op::Node { index: *index, value: NodeHop::default() });
    }
}
