//! Classes of addresses: what the policies in force tell of them.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use fairlead_objects::{Labels, Node, Pod};
use ipnetwork::IpNetwork;

use super::numbers::{Hashes, Use};
use super::questions::Questions;
use super::rules::Body;
use super::{Atom, Met, Numbers, PolicySet, Signature};

/// Finds the classes of addresses. It outlives what it was made of, so that one address can be looked at again.
#[derive(Debug, Default)]
pub(crate) struct Classifier {
    /// What is asked: of sets that were added at once together.
    groups: Vec<Questions>,
    numbers: Numbers,
    /// The classes by what they mean, and all signatures that were found of each.
    classes: HashMap<BTreeSet<Use>, usize>,
    signatures: Vec<Vec<Signature>>,
    known: HashMap<Signature, usize>,
    /// Places of classes that are forgotten.
    free: Vec<usize>,
}

impl Classifier {
    pub(crate) fn new(numbers: Numbers) -> Self {
        Self {
            groups: numbers.last().map(Questions::new).into_iter().collect(),
            numbers,
            classes: HashMap::from([(BTreeSet::new(), 0)]),
            signatures: vec![vec![Signature::new()]],
            known: HashMap::from([(Signature::new(), 0)]),
            free: Vec::new(),
        }
    }

    /// Adds a set with its place. Of addresses that meet what it asks the class is to be found again.
    pub(super) fn add(&mut self, place: usize, body: &Body) -> PolicySet {
        self.numbers.add([(place, body)]);
        self.groups.extend(self.numbers.last().map(Questions::new));
        PolicySet::new(body, &self.numbers)
    }

    /// How many times sets were added.
    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// What is asked by sets that were added since there were so many groups.
    pub(super) fn since(&mut self, groups: usize) -> &mut [Questions] {
        self.groups.get_mut(groups..).unwrap_or_default()
    }

    /// How many atoms there are. Those that several groups have are counted several times.
    pub(super) fn atoms(&self) -> usize {
        self.numbers.atoms(0).count()
    }

    /// The prefixes that policies name, of sets that were added since there were so many groups. Some are repeated.
    pub(crate) fn prefixes(&self, since: usize) -> impl Iterator<Item = IpNetwork> {
        self.numbers.atoms(since).flat_map(Atom::prefixes)
    }

    /// Whether sets that were added since there were so many groups ask about the addresses of a prefix.
    pub(crate) fn asks(&self, since: usize, prefix: IpNetwork, of_pods: impl Fn() -> bool) -> bool {
        let groups = self.groups.get(since..).unwrap_or_default();
        groups.iter().any(|group| group.blocks.met(prefix).next().is_some() || group.unknown.is_some() && of_pods())
    }

    /// What a pod meets by its labels and ports. `namespace`: the labels of its namespace, if that is known. They stay what they
    /// were when this was first asked, until [`Classifier::forget_namespace`].
    pub(crate) fn met_by_pod(&mut self, pod: &Pod, namespace: Option<&Labels>) -> Signature {
        let mut met = Signature::new();
        self.groups.iter_mut().for_each(|group| group.met_by_pod(pod, namespace, &mut met));
        met
    }

    /// A namespace has other labels now.
    pub(crate) fn forget_namespace(&mut self, name: &str) {
        self.groups.iter_mut().for_each(|group| group.forget_namespace(name));
    }

    /// What a pod meets of which nothing is known.
    pub(crate) fn met_by_unknown(&self) -> Signature {
        self.groups.iter().filter_map(|group| group.unknown).collect()
    }

    /// What these nodes meet.
    pub(crate) fn met_by_nodes(&self, nodes: &[&Node]) -> Signature {
        self.groups.iter().flat_map(|group| group.met_by_nodes(nodes)).collect()
    }

    /// The class of an address whose owner meets these.
    pub(crate) fn of_address(&mut self, owner: &Signature, ip: IpAddr) -> usize {
        let blocks = self.groups.iter().flat_map(|group| group.blocks.met(ip.into()));
        self.class(owner.iter().copied().chain(blocks).collect())
    }

    /// The class of an address outside that pods were told: that of new connections, and that of those that are open.
    pub(crate) fn of_told(&mut self, told: &Met, ip: IpAddr) -> (usize, usize) {
        (self.of_address(&told.live, ip), self.of_address(&told.known(), ip))
    }

    /// The class of the addresses of a prefix that are in no longer one. `of_pods`: they are of pods, if anybody's.
    pub(crate) fn of_prefix(&mut self, prefix: IpNetwork, of_pods: bool) -> usize {
        let blocks = self.groups.iter().flat_map(|group| group.blocks.met(prefix));
        let unknown = self.groups.iter().filter_map(|group| group.unknown).filter(|_| of_pods);
        self.class(blocks.chain(unknown).collect())
    }

    /// The class of addresses of a class that meet these besides.
    pub(super) fn with(&mut self, class: usize, met: &Signature) -> Option<usize> {
        let signature = self.signatures.get(class)?.first()?;
        Some(self.class(signature.union(met).copied().collect()))
    }

    fn class(&mut self, signature: Signature) -> usize {
        if let Some(class) = self.known.get(&signature) {
            return *class;
        }
        let next = self.free.last().copied().unwrap_or(self.signatures.len());
        let class = *self.classes.entry(self.numbers.meaning(&signature)).or_insert(next);
        if class == self.signatures.len() {
            self.signatures.push(Vec::new());
        } else if class == next {
            self.free.pop();
        }
        if let Some(signatures) = self.signatures.get_mut(class) {
            signatures.push(signature.clone());
        }
        self.known.insert(signature, class);
        class
    }

    /// Forgets a class that no address has any more. Its index may become another's.
    pub(crate) fn forget(&mut self, class: usize) {
        let signatures = self.signatures.get_mut(class).map(std::mem::take).unwrap_or_default();
        if let Some(first) = signatures.first() {
            self.classes.remove(&self.numbers.meaning(first));
            self.free.push(class);
        }
        for signature in &signatures {
            self.known.remove(signature);
        }
    }

    /// A class: what its addresses meet, and the hash that its id is made from. Of several signatures it is the same one each
    /// time, so that a class keeps its id.
    pub(crate) fn describe(&self, class: usize) -> Option<(Signature, u64)> {
        let hashes = self.numbers.hashes();
        let signature = match self.signatures.get(class)?.as_slice() {
            [only] => only,
            several => several.iter().map(|s| (hashes.sorted(s), s)).min()?.1,
        };
        Some((signature.clone(), hashes.of(signature)))
    }

    /// What the hashes of classes are made from.
    pub(crate) fn hashes(&self) -> &Hashes {
        self.numbers.hashes()
    }

    /// The classes that were found, in the order of their indices.
    pub(crate) fn classes(&self) -> Vec<(Signature, u64)> {
        (0..self.signatures.len()).filter_map(|class| self.describe(class)).collect()
    }
}
