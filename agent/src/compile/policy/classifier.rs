//! Classes of addresses: what the policies in force tell of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use fairlead_objects::{Labels, Node, Pod};
use ipnetwork::IpNetwork;

use super::atom::shortened;
use super::{Atom, Met, Numbers, Signature, World};

/// Finds the classes of addresses.
pub(crate) struct Classifier<'a> {
    /// Those that ask about labels, with their numbers.
    labels: Vec<(usize, &'a Atom)>,
    /// By number, the hash of the first of the atoms that have it.
    hashes: Vec<u64>,
    namespaces: HashMap<&'a str, &'a Labels>,
    /// Those that ask about a prefix, by that, and about a port's name.
    blocks: HashMap<IpNetwork, Vec<(usize, &'a Atom)>>,
    /// The lengths of these prefixes: there are thousands of them, and of lengths a few.
    lengths: BTreeSet<u8>,
    ports: Vec<(usize, &'a Atom)>,
    /// Those that ask about nodes.
    nodes: Vec<(usize, &'a Atom)>,
    /// That of pods that are not known.
    unknown: Option<usize>,
    by_labels: HashMap<(&'a str, &'a Labels), Signature>,
    numbers: &'a Numbers,
    /// The classes by what they mean, and all signatures that were found of each.
    classes: BTreeMap<BTreeSet<(usize, usize, bool)>, usize>,
    signatures: Vec<Vec<Signature>>,
    known: HashMap<Signature, usize>,
}

impl<'a> Classifier<'a> {
    pub(crate) fn new(world: &World<'a>, numbers: &'a Numbers) -> Self {
        let (mut labels, mut ports, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
        let mut blocks: HashMap<_, Vec<_>> = HashMap::new();
        let (mut first, mut unknown) = (BTreeMap::new(), None);
        for (atom, number) in numbers.atoms() {
            first.entry(number).or_insert(atom);
            match atom {
                Atom::Block { cidr, .. } => {
                    let network = shortened(*cidr, cidr.prefix()).unwrap_or(*cidr);
                    blocks.entry(network).or_default().push((number, atom));
                }
                Atom::Port { .. } => ports.push((number, atom)),
                Atom::Nodes(_) => nodes.push((number, atom)),
                Atom::UnknownPod => unknown = Some(number),
                Atom::PodsOf { .. } | Atom::Pods { .. } => labels.push((number, atom)),
                // Who was told what is looked up by address.
                Atom::Told { .. } => {}
            }
        }
        Self {
            lengths: blocks.keys().map(IpNetwork::prefix).collect(),
            blocks,
            ports,
            nodes,
            unknown,
            labels,
            hashes: first.into_values().map(super::content_hash).collect(),
            namespaces: world.namespaces.iter().map(|ns| (ns.name.as_str(), &ns.labels)).collect(),
            by_labels: HashMap::new(),
            numbers,
            classes: BTreeMap::from([(BTreeSet::new(), 0)]),
            signatures: vec![vec![Signature::new()]],
            known: HashMap::new(),
        }
    }

    /// The class of a pod's address.
    pub(crate) fn of_pod(&mut self, pod: &'a Pod, ip: IpAddr) -> usize {
        let mut signature = self.of_labels(pod);
        for (index, atom) in &self.ports {
            if atom.meets_ports(&pod.container_ports) {
                signature.insert(*index);
            }
        }
        if !self.namespaces.contains_key(pod.key.namespace.as_str()) {
            signature.extend(self.unknown);
        }
        self.with_blocks(signature, ip)
    }

    /// The class of the address of a pod of which nothing else is known.
    pub(crate) fn of_unknown(&mut self, ip: IpAddr) -> usize {
        self.with_blocks(self.unknown.into_iter().collect(), ip)
    }

    /// The class of an address that these nodes have.
    pub(crate) fn of_nodes(&mut self, nodes: &[&Node], ip: IpAddr) -> usize {
        let met = self.nodes.iter().filter(|(_, atom)| nodes.iter().any(|node| atom.meets_node(node)));
        let signature = met.map(|(number, _)| *number).collect();
        self.with_blocks(signature, ip)
    }

    /// The class of an address outside that pods were told: that of new connections, and that of those that are open.
    pub(crate) fn of_told(&mut self, told: &Met, ip: IpAddr) -> (usize, usize) {
        (self.with_blocks(told.live.clone(), ip), self.with_blocks(told.known(), ip))
    }

    fn with_blocks(&mut self, mut signature: Signature, ip: IpAddr) -> usize {
        signature
            .extend(self.blocks_around(IpNetwork::from(ip)).filter(|(_, atom)| atom.meets_address(ip)).map(|(n, _)| n));
        self.class(signature)
    }

    /// The class of the addresses of a prefix that are in no longer one. `of_pods`: they are of pods, if anybody's.
    pub(crate) fn of_prefix(&mut self, prefix: IpNetwork, of_pods: bool) -> usize {
        let around = self.blocks_around(prefix);
        let blocks = around.filter(|(_, atom)| atom.meets_prefix(prefix)).map(|(index, _)| index);
        let signature = blocks.chain(self.unknown.filter(|_| of_pods)).collect();
        self.class(signature)
    }

    fn class(&mut self, signature: Signature) -> usize {
        if let Some(class) = self.known.get(&signature) {
            return *class;
        }
        let next = self.classes.len();
        let class = *self.classes.entry(self.numbers.meaning(&signature)).or_insert(next);
        if class == next {
            self.signatures.push(Vec::new());
        }
        if let Some(signatures) = self.signatures.get_mut(class) {
            signatures.push(signature.clone());
        }
        self.known.insert(signature, class);
        class
    }

    /// The blocks whose prefix holds all of this one.
    fn blocks_around(&self, prefix: IpNetwork) -> impl Iterator<Item = (usize, &'a Atom)> + use<'a, '_> {
        let shorter = self.lengths.range(..=prefix.prefix()).filter_map(move |len| shortened(prefix, *len));
        shorter.filter_map(|outer| self.blocks.get(&outer)).flatten().copied()
    }

    fn of_labels(&mut self, pod: &'a Pod) -> Signature {
        let (namespace, labels) = (pod.key.namespace.as_str(), &pod.labels);
        let namespace_labels = self.namespaces.get(namespace).copied();
        let signature = self.by_labels.entry((namespace, labels)).or_insert_with(|| {
            let meets = |atom: &Atom| atom.meets_labels(namespace, namespace_labels, labels);
            self.labels.iter().filter(|(_, atom)| meets(atom)).map(|(number, _)| *number).collect()
        });
        signature.clone()
    }

    /// The classes that were found, in the order of their indices, and what their hashes are made from.
    pub(crate) fn finish(self) -> (Vec<(Signature, u64)>, Hashes) {
        let hashes = Hashes(self.hashes);
        // Of several signatures the same one each time, so that a class keeps its id.
        let first = |signatures: &Vec<Signature>| signatures.iter().map(|s| (hashes.sorted(s), s.clone())).min();
        let found = self.signatures.iter().filter_map(first);
        let classes = found.map(|(sorted, signature)| (signature, super::content_hash(&sorted))).collect();
        (classes, hashes)
    }
}

/// By number, the hash of the first of the atoms that have it.
#[derive(Debug, Clone, Default)]
pub struct Hashes(Vec<u64>);

impl Hashes {
    fn sorted(&self, signature: &Signature) -> Vec<u64> {
        let mut atoms: Vec<u64> = signature.iter().filter_map(|number| self.0.get(*number)).copied().collect();
        atoms.sort_unstable();
        atoms
    }

    /// The hash of a class.
    #[must_use]
    pub fn of(&self, signature: &Signature) -> u64 {
        super::content_hash(&self.sorted(signature))
    }
}
