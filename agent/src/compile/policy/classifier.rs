//! Classes of addresses: what the policies in force tell of them.

use std::collections::{BTreeMap, HashMap};

use fairlead_objects::{Labels, Pod};

use super::{Atom, Signature, World};

/// Finds the classes of addresses.
pub(crate) struct Classifier<'a> {
    atoms: Vec<(&'a Atom, u64)>,
    namespaces: HashMap<&'a str, &'a Labels>,
    by_labels: HashMap<(&'a str, &'a Labels), Signature>,
    classes: BTreeMap<Signature, usize>,
}

impl<'a> Classifier<'a> {
    pub(crate) fn new(world: &World<'a>, atoms: &'a BTreeMap<Atom, usize>) -> Self {
        let mut ordered: Vec<_> = atoms.iter().collect();
        ordered.sort_by_key(|(_, index)| **index);
        Self {
            atoms: ordered.into_iter().map(|(atom, _)| (atom, super::content_hash(atom))).collect(),
            namespaces: world.namespaces.iter().map(|ns| (ns.name.as_str(), &ns.labels)).collect(),
            by_labels: HashMap::new(),
            classes: BTreeMap::from([(Signature::new(), 0)]),
        }
    }

    /// The class of what meets the atoms that a test says. `pod`: what else its labels and ports make it meet.
    pub(crate) fn class(&mut self, pod: Option<&'a Pod>, meets: impl Fn(&Atom) -> bool) -> usize {
        let mut signature = pod.map(|pod| self.of_labels(pod)).unwrap_or_default();
        for (index, (atom, _)) in self.atoms.iter().enumerate() {
            if meets(atom) || pod.is_some_and(|pod| atom.meets_ports(&pod.container_ports)) {
                signature.insert(index);
            }
        }
        let next = self.classes.len();
        *self.classes.entry(signature).or_insert(next)
    }

    fn of_labels(&mut self, pod: &'a Pod) -> Signature {
        let (namespace, labels) = (pod.key.namespace.as_str(), &pod.labels);
        let namespace_labels = self.namespaces.get(namespace).copied();
        let signature = self.by_labels.entry((namespace, labels)).or_insert_with(|| {
            let meets = |(atom, _): &(&Atom, u64)| atom.meets_labels(namespace, namespace_labels, labels);
            self.atoms.iter().enumerate().filter(|(_, atom)| meets(atom)).map(|(index, _)| index).collect()
        });
        signature.clone()
    }

    /// The classes that were found, in the order of their indices.
    pub(crate) fn finish(self) -> Vec<(Signature, u64)> {
        let mut classes: Vec<_> = self.classes.into_iter().collect();
        classes.sort_by_key(|(_, index)| *index);
        let hash = |signature: &Signature| {
            let mut atoms: Vec<_> = signature.iter().filter_map(|i| self.atoms.get(*i)).map(|(_, hash)| hash).collect();
            atoms.sort();
            super::content_hash(&atoms)
        };
        classes.into_iter().map(|(signature, _)| (signature.clone(), hash(&signature))).collect()
    }
}
