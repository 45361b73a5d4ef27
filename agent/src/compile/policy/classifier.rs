//! Classes of addresses: what the policies in force tell of them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use fairlead_objects::{Labels, Pod};
use ipnetwork::IpNetwork;

use super::atom::shortened;
use super::{Atom, Signature, World};

/// Finds the classes of addresses.
pub(crate) struct Classifier<'a> {
    atoms: Vec<(&'a Atom, u64)>,
    namespaces: HashMap<&'a str, &'a Labels>,
    /// Those that ask about a prefix, by that, and about a port's name.
    blocks: HashMap<IpNetwork, Vec<(usize, &'a Atom)>>,
    ports: Vec<(usize, &'a Atom)>,
    by_labels: HashMap<(&'a str, &'a Labels), Signature>,
    classes: BTreeMap<Signature, usize>,
}

impl<'a> Classifier<'a> {
    pub(crate) fn new(world: &World<'a>, atoms: &'a BTreeMap<Atom, usize>) -> Self {
        let mut ordered: Vec<_> = atoms.iter().collect();
        ordered.sort_by_key(|(_, index)| **index);
        let mut blocks: HashMap<_, Vec<_>> = HashMap::new();
        for (atom, index) in &ordered {
            if let Atom::Block { cidr, .. } = atom
                && let Some(network) = shortened(*cidr, cidr.prefix())
            {
                blocks.entry(network).or_default().push((**index, *atom));
            }
        }
        let ports = ordered.iter().filter(|(atom, _)| matches!(atom, Atom::Port { .. }));
        let ports = ports.map(|(atom, index)| (**index, *atom)).collect();
        Self {
            blocks,
            ports,
            atoms: ordered.into_iter().map(|(atom, _)| (atom, super::content_hash(atom))).collect(),
            namespaces: world.namespaces.iter().map(|ns| (ns.name.as_str(), &ns.labels)).collect(),
            by_labels: HashMap::new(),
            classes: BTreeMap::from([(Signature::new(), 0)]),
        }
    }

    /// The class of an address, which may be a pod's.
    pub(crate) fn of_address(&mut self, pod: Option<&'a Pod>, ip: IpAddr) -> usize {
        let mut signature = pod.map(|pod| self.of_labels(pod)).unwrap_or_default();
        let ports = pod.filter(|pod| !pod.container_ports.is_empty());
        for (index, atom) in ports.iter().flat_map(|_| &self.ports) {
            if pod.is_some_and(|pod| atom.meets_ports(&pod.container_ports)) {
                signature.insert(*index);
            }
        }
        signature
            .extend(self.blocks_around(IpNetwork::from(ip)).filter(|(_, atom)| atom.meets_address(ip)).map(|(n, _)| n));
        self.class(signature)
    }

    /// The class of the addresses of a prefix that are in no longer one.
    pub(crate) fn of_prefix(&mut self, prefix: IpNetwork) -> usize {
        let around = self.blocks_around(prefix);
        let signature = around.filter(|(_, atom)| atom.meets_prefix(prefix)).map(|(index, _)| index).collect();
        self.class(signature)
    }

    fn class(&mut self, signature: Signature) -> usize {
        let next = self.classes.len();
        *self.classes.entry(signature).or_insert(next)
    }

    /// The blocks whose prefix holds all of this one.
    fn blocks_around(&self, prefix: IpNetwork) -> impl Iterator<Item = (usize, &'a Atom)> + use<'a, '_> {
        let shorter = (0..=prefix.prefix()).filter_map(move |len| shortened(prefix, len));
        shorter.filter_map(|outer| self.blocks.get(&outer)).flatten().copied()
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
