//! Ids of policy sets, classes and nodes: those that the tables have already where they stand for the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fairlead_datapath::WirePort;
use fairlead_datapath::catalog::TableId;
use fairlead_datapath::peer::{PeerFlags, PodWord};
use fairlead_datapath::policy::{CUT_OFF, MAX_SETS, PeerKey, PolicySet, PortKey, RangeKey, Row, SetFlags};

use super::nodes::{self, Former};
use super::{Capacity, Content, PlanError};
use crate::compile::policy::{Bits, PolicySet as Compiled, Signature, Wanted, content_hash};

/// The bit of ids of classes that are given out while a plan is being made ([`super::Teller`]). Plans give out none of them, so that
/// neither takes what is the other's.
pub(super) const MEANWHILE: u32 = 1 << 31;

/// The ids that a class may have by a plan, in the order in which they are tried.
pub(super) fn ids_from(start: u32) -> impl Iterator<Item = u32> {
    (0..=u32::MAX).map(move |n| start.wrapping_add(n) & !MEANWHILE)
}

/// The ids of what [`Wanted`] has by index.
#[derive(Debug, Clone, Default)]
pub(super) struct Ids {
    pub(super) sets: Vec<u32>,
    pub(super) classes: Vec<u32>,
    /// Those of the first class of each pair; that of the second differs in [`PeerFlags::LINGERS`].
    pub(super) pairs: Vec<u32>,
    /// Nothing for a node that has no place.
    pub(super) nodes: Vec<Option<u16>>,
}

/// The rows of a set under an id, without those of classes but class 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rows {
    pub(super) meta: PolicySet,
    pub(super) ports: BTreeMap<PortKey, Row>,
    pub(super) ranges: BTreeMap<RangeKey, Row>,
    pub(super) everybody: Vec<[u64; 4]>,
}

/// A set's pages of bits with their numbers.
fn pages(bits: &Bits) -> impl Iterator<Item = (u8, [u64; 4])> {
    (0_u8..).zip(bits.pages().iter().copied())
}

impl Rows {
    pub(super) fn of(set: &Compiled, id: u32) -> Self {
        let mut rows = Self { everybody: set.peers(&Signature::new()).pages().to_vec(), ..Self::default() };
        let every = |proto| set.ports.get(&(proto, 0)).map_or(&[][..], Bits::pages);
        for ((proto, port), bits) in &set.ports {
            for (page, bits) in pages(bits) {
                if *port == 0 || every(*proto).get(usize::from(page)) != Some(&bits) {
                    let key = PortKey { set: id, port: WirePort::new(*port), proto: *proto, page };
                    rows.ports.insert(key, Row::new(bits).sealed(key.tag()));
                }
            }
        }
        for ((proto, port, len), bits) in &set.ranges {
            for (page, bits) in pages(bits) {
                if every(*proto).get(usize::from(page)) != Some(&bits) {
                    let key = RangeKey {
                        prefix_len: 48 + u32::from(*len),
                        set: id,
                        page,
                        proto: *proto,
                        port: WirePort::new(*port),
                    };
                    rows.ranges.insert(key, Row::new(bits).sealed(key.tag()));
                }
            }
        }
        rows.meta = PolicySet {
            id,
            pages: set.pages() as u16,
            flags: if rows.ranges.is_empty() { 0 } else { SetFlags::RANGES }
                | if set.is_open { SetFlags::OPEN } else { 0 },
            admin_pages: set.admin_pages as u16,
            content: set.content,
            ..PolicySet::default()
        };
        rows
    }

    /// The same set as it stands in the tables.
    fn stored(old: &Content, id: u32, grouped: &Grouped) -> Option<Self> {
        let meta = *old.policy.sets.get(&PolicySet::index(id)).filter(|meta| meta.id == id)?;
        let row = |page| old.policy.peers.get(&PeerKey { set: id, class: 0, page: u32::from(page) });
        Some(Self {
            meta,
            ports: grouped.ports.get(&id).cloned().unwrap_or_default(),
            ranges: grouped.ranges.get(&id).cloned().unwrap_or_default(),
            everybody: (0..meta.pages).map(|page| row(page).map(|row| row.bits)).collect::<Option<_>>()?,
        })
    }
}

#[derive(Default)]
struct Grouped {
    ports: HashMap<u32, BTreeMap<PortKey, Row>>,
    ranges: HashMap<u32, BTreeMap<RangeKey, Row>>,
}

impl Ids {
    /// Gives out ids. `banned`: sets whose id must not go on though they stand for something wanted.
    pub(super) fn assign(
        old: &Content,
        wanted: &Wanted,
        banned: &BTreeSet<u32>,
        (capacity, former): (&Capacity, &Former),
    ) -> Result<Self, PlanError> {
        let mut ids = Self::default();
        let kept = ids.assign_sets(old, wanted, banned)?;
        ids.assign_classes(old, wanted, &kept);
        ids.nodes = nodes::assign(&old.peer.nodes, former, &wanted.nodes, capacity.nodes);
        Ok(ids)
    }

    /// Returns the sets that go on: (index in `wanted`, id).
    fn assign_sets(
        &mut self,
        old: &Content,
        wanted: &Wanted,
        banned: &BTreeSet<u32>,
    ) -> Result<Vec<(usize, u32)>, PlanError> {
        let mut grouped = Grouped::default();
        for (key, row) in &old.policy.ports {
            grouped.ports.entry(key.set).or_default().insert(*key, *row);
        }
        for (key, row) in &old.policy.ranges {
            grouped.ranges.entry(key.set).or_default().insert(*key, *row);
        }
        let live = old.sets();
        let mut known: HashMap<u64, Vec<u32>> = HashMap::new();
        for meta in old.policy.sets.values().filter(|meta| live.contains(&meta.id) && !banned.contains(&meta.id)) {
            known.entry(meta.content).or_default().push(meta.id);
        }
        // An index is taken as long as anything at all speaks of a set that lives there.
        let spoken_of = old.policy.peers.keys().map(|key| key.set).chain(grouped.ports.keys().copied());
        let spoken_of = spoken_of.chain(grouped.ranges.keys().copied()).chain(live.iter().copied());
        let mut taken: BTreeSet<u32> = spoken_of.map(PolicySet::index).collect();
        taken.extend(old.policy.sets.keys());

        let mut kept = Vec::new();
        let mut used = BTreeSet::new();
        let mut fresh = Vec::new();
        self.sets = vec![0; wanted.sets.len()];
        for (index, set) in wanted.sets.iter().enumerate() {
            let candidates = known.get(&set.content).into_iter().flatten().copied();
            let same = |id: &u32| Rows::stored(old, *id, &grouped).is_some_and(|rows| rows == Rows::of(set, *id));
            match candidates.filter(|id| !used.contains(id)).find(same) {
                Some(id) => {
                    used.insert(id);
                    kept.push((index, id));
                    if let Some(place) = self.sets.get_mut(index) {
                        *place = id;
                    }
                }
                None => fresh.push(index),
            }
        }
        for index in fresh {
            let start = wanted.sets.get(index).map_or(0, |set| set.content as u32);
            let free = |id: &u32| *id > CUT_OFF && !taken.contains(&PolicySet::index(*id));
            let mut tries = (0..MAX_SETS).map(|n| start.wrapping_add(n) & PodWord::MAX_SET);
            let Some(id) = tries.find(free) else {
                let needed = taken.len() + 1;
                return Err(PlanError::Full { table: TableId::PolicySets, needed, size: MAX_SETS as usize });
            };
            taken.insert(PolicySet::index(id));
            if let Some(place) = self.sets.get_mut(index) {
                *place = id;
            }
        }
        Ok(kept)
    }

    fn assign_classes(&mut self, old: &Content, wanted: &Wanted, kept: &[(usize, u32)]) {
        let live = classes_spoken_of(old);
        let mut used = BTreeSet::from([0]);
        self.classes = vec![0; wanted.classes.len()];
        // A class that addresses have may be taken if sets that go on say of it what is wanted.
        let fits = |id: u32, signature: &Signature| {
            !live.contains(&id)
                || kept.iter().all(|(set, set_id)| {
                    let rules = wanted.sets.get(*set).map(|set| set.peers(signature));
                    rules.is_some_and(|rules| old.rules(*set_id, id) == rules.pages())
                })
        };
        for (index, (signature, hash)) in wanted.classes.iter().enumerate().filter(|(_, (s, _))| !s.is_empty()) {
            let id = ids_from(*hash as u32).find(|id| !used.contains(id) && fits(*id, signature));
            // With 2^32 ids there is always one.
            let id = id.unwrap_or_default();
            used.insert(id);
            if let Some(place) = self.classes.get_mut(index) {
                *place = id;
            }
        }
        for (new, known) in &wanted.pairs {
            let (Some((new, of_new)), Some((known, of_known))) = (wanted.classes.get(*new), wanted.classes.get(*known))
            else {
                continue;
            };
            let mut tries = pair_ids(*of_new, *of_known);
            let is_free = |id: &u32| !used.contains(id) && !used.contains(&(id ^ PeerFlags::LINGERS));
            let id = tries.find(|id| is_free(id) && fits(*id, new) && fits(id ^ PeerFlags::LINGERS, known));
            let id = id.unwrap_or_default();
            used.extend([id, id ^ PeerFlags::LINGERS]);
            self.pairs.push(id);
        }
    }
}

/// The ids that a pair of classes may have, by their hashes, in the order in which they are tried.
pub(super) fn pair_ids(new: u64, known: u64) -> impl Iterator<Item = u32> {
    ids_from(content_hash(&(new, known)) as u32)
}

/// Classes that the tables know in any way.
pub(super) fn classes_spoken_of(content: &Content) -> BTreeSet<u32> {
    let mut classes = content.classes();
    classes.extend(content.policy.peers.keys().map(|key| key.class));
    classes
}
