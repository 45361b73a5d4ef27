//! Who has the rows for addresses that pods were told.
//!
//! Addresses that meet the same ([`Met`]) need their rows once, so that is what is counted. An eighth of all rows is for pods that
//! need little: once the others are taken, an address comes in only if one of its pods has no more than its part of that eighth. So a
//! pod within its part finds room, whatever others were told, and where not everything fits all pods take turns.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use super::{Met, ToldAtoms};

/// What of the rows is for pods that need little: one in so many.
const RESERVE: usize = 8;

/// The rows for addresses that pods were told.
#[derive(Debug, Clone, Default)]
pub struct ToldRoom {
    most: usize,
    /// The pod that each number is of.
    owners: HashMap<usize, usize>,
    /// Pods that were told something may need some.
    pods: usize,
    used: usize,
    /// Rows of what a pod is among the owners of.
    of_pod: HashMap<usize, usize>,
    /// How many addresses meet it.
    met: HashMap<Arc<Met>, usize>,
}

impl ToldRoom {
    /// Room for so many rows, none of which is taken.
    #[must_use]
    pub fn new(told: &ToldAtoms, most: usize) -> Self {
        let numbers = told.numbers().enumerate();
        let owners: HashMap<usize, usize> =
            numbers.flat_map(|(pod, numbers)| numbers.map(move |number| (number, pod))).collect();
        let pods = owners.values().collect::<BTreeSet<_>>().len();
        Self { most, owners, pods, ..Self::default() }
    }

    /// The pods that it is about.
    fn pods(&self, met: &Met) -> BTreeSet<usize> {
        met.live.union(&met.lingering).filter_map(|number| self.owners.get(number)).copied().collect()
    }

    /// Whether there is room for another address that meets this.
    #[must_use]
    pub fn admits(&self, met: &Met) -> bool {
        if self.met.contains_key(met) {
            return true;
        }
        let rows = rows(met);
        let reserve = self.most / RESERVE;
        let part = reserve / self.pods.max(1);
        let has_little = |pod: &usize| self.of_pod.get(pod).copied().unwrap_or_default() + rows <= part;
        let used = self.used + rows;
        used <= self.most - reserve || used <= self.most && self.pods(met).iter().any(has_little)
    }

    /// An address meets this from now on.
    pub fn add(&mut self, met: &Arc<Met>) {
        *self.met.entry(Arc::clone(met)).or_insert(0) += 1;
        if self.met.get(met) == Some(&1) {
            self.count(met, |all, rows| all + rows);
        }
    }

    /// An address met this until now.
    pub fn remove(&mut self, met: &Met) {
        let Some(addresses) = self.met.get_mut(met) else { return };
        *addresses -= 1;
        if *addresses == 0 {
            self.met.remove(met);
            self.count(met, usize::saturating_sub);
        }
    }

    fn count(&mut self, met: &Met, count: impl Fn(usize, usize) -> usize) {
        let rows = rows(met);
        self.used = count(self.used, rows);
        for pod in self.pods(met) {
            let of_pod = self.of_pod.entry(pod).or_default();
            *of_pod = count(*of_pod, rows);
        }
    }

    /// Which of these have room together, one address each: the pod with the fewest rows comes next, with what takes the fewest.
    #[must_use]
    pub fn choose(mut self, all: &BTreeSet<Arc<Met>>) -> BTreeSet<Arc<Met>> {
        if all.iter().map(|met| rows(met)).sum::<usize>() <= self.most - self.most / RESERVE {
            return all.clone();
        }
        let mut waiting: BTreeMap<usize, Vec<&Arc<Met>>> = BTreeMap::new();
        for met in all {
            self.pods(met).into_iter().for_each(|pod| waiting.entry(pod).or_default().push(met));
        }
        // The next one is the last.
        waiting.values_mut().for_each(|of_pod| of_pod.sort_by_key(|met| Reverse((rows(met), *met))));
        let mut turns: BinaryHeap<Reverse<(usize, usize)>> = waiting.keys().map(|pod| Reverse((0, *pod))).collect();
        let mut chosen = BTreeSet::new();
        while let Some(Reverse((before, pod))) = turns.pop() {
            let now = self.of_pod.get(&pod).copied().unwrap_or_default();
            if now == before {
                let Some(met) = waiting.get_mut(&pod).and_then(Vec::pop) else { continue };
                if !chosen.contains(met) && self.admits(met) {
                    self.add(met);
                    chosen.insert(Arc::clone(met));
                }
            }
            turns.push(Reverse((self.of_pod.get(&pod).copied().unwrap_or_default(), pod)));
        }
        chosen
    }
}

/// Rows that addresses take which meet this, at most, as far as they are counted.
fn rows(met: &Met) -> usize {
    met.live.len() + if met.lingering.is_empty() { 0 } else { met.live.len() + met.lingering.len() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn room(most: usize, pods: usize) -> ToldRoom {
        ToldRoom { most, pods, owners: (0..pods).map(|pod| (pod, pod)).collect(), ..ToldRoom::default() }
    }

    fn met(live: &[usize], lingering: &[usize]) -> Arc<Met> {
        Arc::new(Met { live: live.iter().copied().collect(), lingering: lingering.iter().copied().collect() })
    }

    #[test]
    fn p79_p85_a_pod_within_its_part_finds_room_whatever_others_were_told() {
        // Of 800 rows 100 are for who needs little: 10 for each of 10 pods.
        let mut room = room(800, 10);
        let others: BTreeSet<Arc<Met>> = (1..1_usize << 9)
            .map(|bits| met(&(0..9).filter(|n| bits >> n & 1 == 1).collect::<Vec<_>>(), &[]))
            .collect();
        for met in &others {
            if room.admits(met) {
                room.add(met);
            }
        }
        assert!(room.used > 600);
        let empty = ToldRoom { used: 0, of_pod: HashMap::new(), met: HashMap::new(), ..room.clone() };
        assert!(room.admits(&met(&[9], &[])) && room.admits(&met(&[9, 0, 1, 2, 3, 4, 5, 6, 7], &[])));
        let own = [met(&[9], &[]), met(&[9], &[0])];
        let all: BTreeSet<_> = others.iter().chain(&own).cloned().collect();
        let chosen = empty.choose(&all);
        assert!(own.iter().all(|met| chosen.contains(met)) && chosen.len() < all.len());
    }

    proptest! {
        #[test]
        fn no_more_rows_are_taken_than_there_are_and_what_goes_leaves_its_own(
            steps in prop::collection::vec((any::<bool>(), 1..255_u8, any::<u8>()), 0..200), most in 8..200_usize,
        ) {
            let mut room = room(most, 8);
            let mut held: Vec<Arc<Met>> = Vec::new();
            for (comes, live, lingering) in steps {
                let of = |bits: u8| (0..8).filter(|n| bits >> n & 1 == 1).collect::<Vec<_>>();
                let met = met(&of(live), &of(lingering & !live));
                if comes {
                    if room.admits(&met) {
                        room.add(&met);
                        held.push(met);
                    }
                } else if !held.is_empty() {
                    room.remove(&held.swap_remove(usize::from(live) % held.len()));
                }
                let different: BTreeSet<_> = held.iter().cloned().collect();
                prop_assert_eq!(room.used, different.iter().map(|met| rows(met)).sum::<usize>());
                prop_assert!(room.used <= most);
            }
            held.iter().for_each(|met| room.remove(met));
            prop_assert!(room.used == 0 && room.of_pod.values().all(|rows| *rows == 0));
        }

        #[test]
        fn what_is_chosen_fits_and_everything_is_where_it_does(
            all in prop::collection::btree_set(1..255_u8, 0..100), most in 8..400_usize,
        ) {
            let of = |bits: u8| (0..8).filter(|n| bits >> n & 1 == 1).collect::<Vec<_>>();
            let all: BTreeSet<Arc<Met>> = all.into_iter().map(|bits| met(&of(bits), &[])).collect();
            let chosen = room(most, 8).choose(&all);
            let rows = |mets: &BTreeSet<Arc<Met>>| mets.iter().map(|met| rows(met)).sum::<usize>();
            prop_assert!(rows(&chosen) <= most && chosen.is_subset(&all));
            if rows(&all) <= most - most / RESERVE {
                prop_assert_eq!(chosen, all);
            }
        }
    }
}
