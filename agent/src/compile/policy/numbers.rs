//! Numbers of atoms, by what they mean to the sets in force.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::rules::Body;
use super::{Atom, Signature};

/// What a set makes of an atom: the set, one of its rules, and whether a peer must meet the atom besides others.
type Use = (usize, usize, bool);

/// The atoms of the sets in force, numbered: those that the same rules name have one number, so a rule with thousands of
/// blocks has one class, not thousands.
#[derive(Debug)]
pub(crate) struct Numbers {
    of: BTreeMap<Atom, usize>,
    uses: Vec<Vec<Use>>,
}

impl Numbers {
    pub(super) fn new(bodies: &[&Body]) -> Self {
        let mut uses: BTreeMap<&Atom, Vec<Use>> = BTreeMap::new();
        for (set, body) in bodies.iter().enumerate() {
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
        let number = |(atom, uses): (&Atom, Vec<Use>)| {
            let next = numbers.len();
            (atom.clone(), *numbers.entry(uses).or_insert(next))
        };
        let of = uses.into_iter().map(number).collect();
        let mut uses: Vec<_> = numbers.into_iter().collect();
        uses.sort_by_key(|(_, number)| *number);
        Self { of, uses: uses.into_iter().map(|(uses, _)| uses).collect() }
    }

    /// The number of an atom.
    pub(super) fn of(&self, atom: &Atom) -> Option<usize> {
        self.of.get(atom).copied()
    }

    /// The atoms in their order, with their numbers.
    pub(crate) fn atoms(&self) -> impl Iterator<Item = (&Atom, usize)> {
        self.of.iter().map(|(atom, number)| (atom, *number))
    }

    /// What who meets these is to the sets: the same of all addresses of a class.
    pub(super) fn meaning(&self, signature: &Signature) -> BTreeSet<Use> {
        signature.iter().filter_map(|number| self.uses.get(*number)).flatten().copied().collect()
    }
}
