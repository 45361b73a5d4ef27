//! Numbers of atoms, by what they mean to the sets in force.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::rules::Body;
use super::{Atom, Signature, content_hash};

/// What a set makes of an atom: the set, one of its rules, and whether a peer must meet the atom besides others.
pub(super) type Use = (usize, usize, bool);

/// Atoms with their numbers.
pub(super) type Group = BTreeMap<Arc<Atom>, usize>;

/// The atoms of the sets in force, numbered: those that the same rules name have one number, so a rule with thousands of
/// blocks has one class, not thousands. Sets that are added later have numbers of their own, also for atoms that others name.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    groups: Vec<Group>,
    uses: Vec<Vec<Use>>,
    hashes: Hashes,
}

/// By number, the hash of the first of the atoms that have it.
#[derive(Debug, Clone, Default)]
pub struct Hashes(Vec<u64>);

impl Hashes {
    pub(super) fn sorted(&self, signature: &Signature) -> Vec<u64> {
        let mut atoms: Vec<u64> = signature.iter().filter_map(|number| self.0.get(*number)).copied().collect();
        atoms.sort_unstable();
        // Of an atom that several groups name one is enough, as if all had been added at once.
        atoms.dedup();
        atoms
    }

    /// The hash of a class.
    #[must_use]
    pub fn of(&self, signature: &Signature) -> u64 {
        content_hash(&self.sorted(signature))
    }
}

impl Numbers {
    pub(super) fn new(bodies: &[&Body]) -> Self {
        let mut numbers = Self::default();
        numbers.add(bodies.iter().copied().enumerate());
        numbers
    }

    /// Adds sets, each with its place.
    pub(super) fn add<'a, I: IntoIterator<Item = (usize, &'a Body)>>(&mut self, bodies: I) {
        let mut uses: BTreeMap<&Atom, Vec<Use>> = BTreeMap::new();
        for (set, body) in bodies {
            for (rule, clause) in body.clauses.iter().enumerate() {
                for atom in clause.peers.iter().flatten() {
                    uses.entry(atom).or_default().push((set, rule, false));
                }
                if let Some(atom) = &clause.and {
                    uses.entry(atom).or_default().push((set, rule, true));
                }
            }
        }
        let mut numbers: HashMap<Vec<Use>, usize> = HashMap::new();
        let mut group = Group::new();
        for (atom, uses) in uses {
            let number = *numbers.entry(uses).or_insert_with_key(|uses| {
                self.uses.push(uses.clone());
                self.hashes.0.push(content_hash(atom));
                self.uses.len() - 1
            });
            group.insert(Arc::new(atom.clone()), number);
        }
        self.groups.push(group);
    }

    /// The number of an atom of the sets that were added last.
    pub(super) fn of(&self, atom: &Atom) -> Option<usize> {
        self.last()?.get(atom).copied()
    }

    /// The atoms of the sets that were added last, in their order.
    pub(super) fn last(&self) -> Option<&Group> {
        self.groups.last()
    }

    /// The atoms of groups from this one on; those of several are repeated.
    pub(super) fn atoms(&self, since: usize) -> impl Iterator<Item = &Atom> {
        self.groups.get(since..).unwrap_or_default().iter().flat_map(Group::keys).map(|atom| &**atom)
    }

    /// What the hashes of classes are made from.
    pub(super) fn hashes(&self) -> &Hashes {
        &self.hashes
    }

    /// What who meets these is to the sets: the same of all addresses of a class.
    pub(super) fn meaning(&self, signature: &Signature) -> BTreeSet<Use> {
        signature.iter().filter_map(|number| self.uses.get(*number)).flatten().copied().collect()
    }
}
