//! The changes to what pods may send and receive: each element says something by itself, so it is written by itself.

use std::collections::BTreeMap;

use fairlead_datapath::bandwidth::Bandwidth;

use super::Op;

/// What the table holds; what is absent is zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    limits: BTreeMap<u16, Bandwidth>,
}

impl State {
    /// Takes over what the table holds.
    #[must_use]
    pub fn adopt(mut limits: BTreeMap<u16, Bandwidth>) -> Self {
        limits.retain(|_, limit| *limit != Bandwidth::NONE);
        Self { limits }
    }

    /// What the table holds, by slot.
    #[must_use]
    pub fn limits(&self) -> &BTreeMap<u16, Bandwidth> {
        &self.limits
    }

    /// The operations that lead from what the table holds to what it should hold.
    #[must_use]
    pub fn plan(&self, wanted: &BTreeMap<u16, Bandwidth>) -> Vec<Op> {
        let gone = self.limits.keys().filter(|slot| !wanted.contains_key(slot)).map(|slot| (*slot, Bandwidth::NONE));
        let changed = wanted.iter().filter(|(slot, value)| self.limits.get(slot) != Some(value));
        let changed = changed.map(|(slot, value)| (*slot, *value));
        gone.chain(changed).map(|(slot, value)| Op::Bandwidth { slot, value }).collect()
    }

    /// Takes note of an operation that was applied.
    pub fn applied(&mut self, op: &Op) {
        match op {
            Op::Bandwidth { slot, value } if *value == Bandwidth::NONE => drop(self.limits.remove(slot)),
            Op::Bandwidth { slot, value } => drop(self.limits.insert(*slot, *value)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use fairlead_datapath::bandwidth::Limit;
    use proptest::prelude::*;

    use super::*;

    fn bandwidth(rate: u64) -> Bandwidth {
        Bandwidth { egress: Limit { rate, ahead: 1, paced: 0 }, ingress: Limit::NONE }
    }

    proptest! {
        #[test]
        fn a_plan_ends_as_wanted_and_the_next_is_empty(steps in prop::collection::vec(prop::collection::btree_map(0..9_u16, 1..4_u64, 0..6), 1..6)) {
            let mut state = State::default();
            for wanted in steps {
                let wanted: BTreeMap<_, _> = wanted.into_iter().map(|(slot, rate)| (slot, bandwidth(rate))).collect();
                let plan = state.plan(&wanted);
                let same = |slot: &u16| state.limits().get(slot) == wanted.get(slot);
                let untouched = |op: &Op| matches!(op, Op::Bandwidth { slot, .. } if same(slot));
                prop_assert!(!plan.iter().any(untouched), "what is in force is not written again");
                plan.iter().for_each(|op| state.applied(op));
                prop_assert_eq!(state.limits(), &wanted);
                prop_assert!(state.plan(&wanted).is_empty());
            }
        }
    }
}
