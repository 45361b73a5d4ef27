//! What pods were told by DNS, as atoms.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fairlead_objects::{DomainNames, ObjectKey};

use super::{Atom, Numbers, Signature};
use crate::names::Names;

/// The names that the sets in force ask about, by pod, with the numbers of their atoms.
#[derive(Debug, Clone, Default)]
pub struct ToldAtoms {
    of: BTreeMap<ObjectKey, Vec<(usize, DomainNames)>>,
}

/// What an address meets by what pods were told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Met {
    /// For new connections.
    pub live: Signature,
    /// For those that are open, and not for new ones.
    pub lingering: Signature,
}

impl Met {
    /// Whether it is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.lingering.is_empty()
    }

    /// For connections that are open.
    #[must_use]
    pub fn known(&self) -> Signature {
        self.live.union(&self.lingering).copied().collect()
    }
}

impl ToldAtoms {
    /// Of sets that were added at once.
    pub(crate) fn new(numbers: &Numbers) -> Self {
        let mut told = Self::default();
        for (atom, number) in numbers.last().into_iter().flatten() {
            if let Atom::Told { pod, names } = &**atom {
                told.of.entry(pod.clone()).or_default().push((*number, names.iter().collect()));
            }
        }
        told
    }

    /// The numbers that are about each pod.
    pub(super) fn numbers(&self) -> impl Iterator<Item = impl Iterator<Item = usize>> {
        self.of.values().map(|of_pod| of_pod.iter().map(|(number, _)| *number))
    }

    /// Whether no set asks about names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Whether a set asks what a pod was told for this name.
    #[must_use]
    pub fn covers(&self, pod: &ObjectKey, name: &str) -> bool {
        self.of.get(pod).into_iter().flatten().any(|(_, names)| names.matches(name))
    }

    /// What an address meets.
    #[must_use]
    pub fn met(&self, names: &Names, ip: IpAddr) -> Met {
        let mut met = Met::default();
        for (pod, told) in names.told_to(ip) {
            let of_pod = self.of.get(pod).map(Vec::as_slice).unwrap_or_default();
            for (name, live) in told {
                // A pod may be told an address for thousands of names.
                if of_pod.iter().all(|(number, _)| met.live.contains(number)) {
                    break;
                }
                for (number, patterns) in of_pod {
                    let part = if live { &mut met.live } else { &mut met.lingering };
                    if !part.contains(number) && patterns.matches(name) {
                        part.insert(*number);
                    }
                }
            }
        }
        met.lingering = met.lingering.difference(&met.live).copied().collect();
        met
    }
}
