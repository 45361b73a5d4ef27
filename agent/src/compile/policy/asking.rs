//! What policies ask about the labels of the pods of a namespace, by the label that a selector wants: a pod is compared with the
//! selectors that its own labels lead to, not with all.

use std::collections::HashMap;
use std::sync::Arc;

use fairlead_objects::{Labels, Operator, Requirement, Selector};

use super::Atom;

/// An atom and its number.
pub(super) type Numbered = (usize, Arc<Atom>);

/// The selectors that want a label of a key, by their places.
#[derive(Debug, Default)]
struct OfKey {
    /// With any value.
    exists: Vec<usize>,
    /// With one of some values, by each of these.
    values: HashMap<String, Vec<usize>>,
}

/// Selectors of pods.
#[derive(Debug, Default)]
pub(super) struct Asking {
    atoms: Vec<Numbered>,
    by_key: HashMap<String, OfKey>,
    /// Those that want no label, by their places: every pod is compared with them.
    others: Vec<usize>,
}

fn requirements(atom: &Atom) -> impl Iterator<Item = &Requirement> {
    let requirements = match atom.pods() {
        Some(Selector::All(requirements)) => Some(requirements),
        Some(Selector::Invalid) | None => None,
    };
    requirements.into_iter().flatten()
}

impl Asking {
    /// Of atoms that ask about labels, and which pods of the namespace may meet.
    pub(super) fn new(atoms: Vec<Numbered>) -> Self {
        let mut wanted: HashMap<(&str, Option<&str>), usize> = HashMap::new();
        for requirement in atoms.iter().flat_map(|(_, atom)| requirements(atom)) {
            for want in wants(requirement) {
                *wanted.entry(want).or_default() += 1;
            }
        }
        let mut by_key: HashMap<String, OfKey> = HashMap::new();
        let mut others = Vec::new();
        for (place, (_, atom)) in atoms.iter().enumerate() {
            // By the label that the fewest others want.
            let count = |requirement: &&Requirement| {
                let counts = wants(requirement).filter_map(|want| wanted.get(&want)).copied();
                counts.max().unwrap_or(usize::MAX)
            };
            let positive = requirements(atom).filter(|r| matches!(r.operator, Operator::In | Operator::Exists));
            let Some(chosen) = positive.min_by_key(count) else {
                others.push(place);
                continue;
            };
            let of_key = by_key.entry(chosen.key.clone()).or_default();
            match chosen.operator {
                Operator::In => {
                    for value in &chosen.values {
                        of_key.values.entry(value.clone()).or_default().push(place);
                    }
                }
                _ => of_key.exists.push(place),
            }
        }
        Self { by_key, others, atoms }
    }

    /// Whether nothing is asked.
    pub(super) fn is_empty(&self) -> bool {
        self.atoms.is_empty()
    }

    /// The numbers of those that a pod with these labels meets.
    pub(super) fn met(&self, labels: &Labels) -> impl Iterator<Item = usize> {
        let of_label = |(key, value): (&String, &String)| {
            let of_key = self.by_key.get(key)?;
            Some(of_key.values.get(value).into_iter().flatten().chain(&of_key.exists))
        };
        let few = (!self.by_key.is_empty()).then_some(labels).into_iter().flatten().filter_map(of_label).flatten();
        let atoms = few.chain(&self.others).filter_map(|place| self.atoms.get(*place));
        let selects = |atom: &Atom| atom.pods().is_some_and(|pods| pods.matches(labels));
        atoms.filter(move |(_, atom)| selects(atom)).map(|(number, _)| *number)
    }
}

/// The labels of which a pod must have one.
fn wants(requirement: &Requirement) -> impl Iterator<Item = (&str, Option<&str>)> {
    let Requirement { key, operator, values } = requirement;
    let (any, some) = match operator {
        Operator::In => (None, Some(values)),
        Operator::Exists => (Some(()), None),
        Operator::NotIn | Operator::DoesNotExist => (None, None),
    };
    let any = any.map(|()| (key.as_str(), None));
    any.into_iter().chain(some.into_iter().flatten().map(|value| (key.as_str(), Some(value.as_str()))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fairlead_objects::Peer;
    use proptest::prelude::*;

    use super::*;
    use crate::compile::policy::testing::{any_labels, any_selector};

    proptest! {
        #[test]
        fn selectors_are_met_as_each_of_them_says(
            selectors in prop::collection::vec(any_selector(), 0..24), asked in prop::collection::vec(any_labels(), 8),
        ) {
            let atoms = selectors.iter().filter_map(|pods| Atom::of(&Peer::Pods { namespaces: None, pods: pods.clone() }, "x"));
            let asking = Asking::new((0..).zip(atoms.map(Arc::new)).collect());
            for labels in asked {
                let expected: BTreeSet<usize> =
                    (0..).zip(&selectors).filter(|(_, pods)| pods.matches(&labels)).map(|(n, _)| n).collect();
                let met: Vec<usize> = asking.met(&labels).collect();
                prop_assert_eq!(met.len(), expected.len(), "each once");
                prop_assert_eq!(met.into_iter().collect::<BTreeSet<_>>(), expected, "{:?}", labels);
            }
        }
    }
}
