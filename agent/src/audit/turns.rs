//! Of more than can be told of, some of each pod.

use std::collections::{BTreeMap, VecDeque};

/// Takes so many, one of each pod in turn, by its slot, and says how many are left.
#[must_use]
pub fn in_turns<T>(all: Vec<(u16, T)>, most: usize) -> (Vec<T>, usize) {
    let left = all.len().saturating_sub(most);
    let mut waiting: BTreeMap<u16, VecDeque<T>> = BTreeMap::new();
    for (slot, item) in all {
        waiting.entry(slot).or_default().push_back(item);
    }
    let mut taken = Vec::new();
    while taken.len() < most && !waiting.is_empty() {
        let room = most - taken.len();
        taken.extend(waiting.values_mut().filter_map(VecDeque::pop_front).take(room));
        waiting.retain(|_, of_pod| !of_pod.is_empty());
    }
    (taken, left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p86_a_pod_with_very_much_hides_nothing_of_others() {
        let loud = (0..5000).map(|n| (7, (7, n)));
        let all: Vec<_> = loud.chain([(9, (9, 0)), (200, (200, 0)), (200, (200, 1))]).collect();
        let (taken, left) = in_turns(all, 2048);
        assert_eq!((taken.len(), left), (2048, 5003 - 2048));
        assert!([(9, 0), (200, 0), (200, 1), (7, 0)].iter().all(|each| taken.contains(each)));
        let (taken, left) = in_turns(vec![(1, 'a'), (1, 'b')], 2048);
        assert_eq!((taken, left), (vec!['a', 'b'], 0));
    }
}
