//! Rows of `POLICY_PEERS`, counted for sets that get their places one after the other.

use std::collections::{BTreeMap, HashMap};

use crate::compile::policy::{PolicySet, Wanted};

/// Rows of the sets that have a place.
///
/// Rows depend on all sets: what one asks about peers splits the classes of every other.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    wanted: &'a Wanted,
    /// The group of each class: classes of one group look alike to the sets that have a place.
    groups: Vec<usize>,
    /// A class of each group, but of the one of those that meet nothing.
    of_group: Vec<usize>,
    /// The sets, with the rows that they have for a class, as far as that was asked.
    sets: Vec<(&'a PolicySet, BTreeMap<usize, usize>)>,
    count: usize,
}

/// Rows of a set for a class: the pages in which it differs from what everybody meets.
fn rows(wanted: &Wanted, set: &PolicySet, class: usize) -> usize {
    let (Some((everybody, _)), Some((signature, _))) = (wanted.classes.first(), wanted.classes.get(class)) else {
        return 0;
    };
    let (everybody, own) = (set.peers(everybody), set.peers(signature));
    own.pages().iter().zip(everybody.pages()).filter(|(own, everybody)| own != everybody).count()
}

/// Rows of all sets together.
pub(super) fn count(wanted: &Wanted) -> usize {
    let of = |set| (1..wanted.classes.len()).map(|class| rows(wanted, set, class)).sum::<usize>();
    wanted.sets.iter().map(|set| set.pages() + of(set)).sum::<usize>() + of_pairs(wanted)
}

/// Rows of pairs of classes, which no set can be charged for: there are few ([`MOST_TOLD_ROWS`]).
///
/// [`MOST_TOLD_ROWS`]: crate::compile::policy::MOST_TOLD_ROWS
pub(super) fn of_pairs(wanted: &Wanted) -> usize {
    let of = |set| {
        wanted.pairs.iter().map(|(new, known)| rows(wanted, set, *new) + rows(wanted, set, *known)).sum::<usize>()
    };
    wanted.sets.iter().map(of).sum()
}

impl<'a> Rows<'a> {
    pub(super) fn new(wanted: &'a Wanted) -> Self {
        let groups = vec![0; wanted.classes.len()];
        Self { wanted, groups, of_group: Vec::new(), sets: Vec::new(), count: 0 }
    }

    /// The rows that these sets, by their place, have by themselves.
    pub(super) fn of(wanted: &'a Wanted, places: &[usize]) -> Self {
        let mut rows = Self::new(wanted);
        for place in places {
            rows.add(*place, usize::MAX);
        }
        rows
    }

    /// Rows that the sets have.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Classes that they tell apart, besides the one that meets nothing.
    pub(super) fn classes(&self) -> usize {
        self.of_group.len()
    }

    /// Adds a set, by its place, if all of them have no more rows than `room` then.
    pub(super) fn add(&mut self, place: usize, room: usize) -> bool {
        let wanted = self.wanted;
        let Some(set) = wanted.sets.get(place) else { return false };
        let mut next = HashMap::new();
        let groups: Vec<usize> = (wanted.classes.iter().zip(&self.groups))
            .map(|((signature, _), group)| {
                let new = next.len();
                *next.entry((*group, set.met(signature))).or_insert(new)
            })
            .collect();
        let mut of_group: BTreeMap<usize, usize> = BTreeMap::new();
        for (class, group) in groups.iter().enumerate() {
            of_group.entry(*group).or_insert(class);
        }
        of_group.remove(&groups.first().copied().unwrap_or_default());
        let of_group: Vec<usize> = of_group.into_values().collect();
        self.sets.push((set, BTreeMap::new()));
        let needed = self
            .sets
            .iter_mut()
            .map(|(set, known)| {
                let of_class = |class: &usize| *known.entry(*class).or_insert_with(|| rows(wanted, set, *class));
                set.pages() + of_group.iter().map(of_class).sum::<usize>()
            })
            .sum();
        let fits = needed <= room;
        if fits {
            (self.groups, self.of_group, self.count) = (groups, of_group, needed);
        } else {
            self.sets.pop();
        }
        fits
    }
}
