//! Names of ports that rules in force ask for, with how many pods give them to which number: a number that comes or goes is
//! another rule.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use fairlead_objects::{Labels, Pod, Protocol};

use super::Atom;
use super::port_names::{MOST, Numbered};

/// A name that rules ask for among some peers.
#[derive(Debug, Clone)]
pub(super) struct AskedName {
    name: String,
    protocol: Protocol,
    /// `None` are all pods.
    peers: Option<BTreeSet<Atom>>,
    /// How many ports of pods have the name, by number.
    numbers: BTreeMap<u16, usize>,
}

/// What names that were asked for stand for, and whether one was asked for that was not.
#[derive(Debug)]
pub(super) struct Answers<'a> {
    names: &'a AskedNames,
    is_missing: Cell<bool>,
}

/// What rules ask for.
#[derive(Debug, Default)]
pub(super) struct AskedNames {
    asked: Vec<AskedName>,
    /// Numbers that have changed, by the place of the name, and whether they were there before.
    changed: BTreeMap<(usize, u16), bool>,
}

impl AskedName {
    /// One that nobody has.
    pub(super) fn new(name: &str, protocol: Protocol, peers: Option<&BTreeSet<Atom>>) -> Self {
        Self { name: name.to_owned(), protocol, peers: peers.cloned(), numbers: BTreeMap::new() }
    }

    /// Whether a pod may be one of the peers. Its address is not looked at.
    fn concerns(&self, pod: &Pod, namespace: Option<&Labels>) -> bool {
        self.peers.as_ref().is_none_or(|peers| {
            peers.iter().any(|atom| {
                matches!(atom, Atom::Block { .. }) || atom.meets_labels(&pod.key.namespace, namespace, &pod.labels)
            })
        })
    }
}

impl AskedNames {
    pub(super) fn new(asked: Vec<AskedName>) -> Self {
        Self { asked, changed: BTreeMap::new() }
    }

    /// What they stand for.
    pub(super) fn answers(&self) -> Answers<'_> {
        Answers { names: self, is_missing: Cell::new(false) }
    }

    /// Whether nobody asks for any.
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// A pod that has an address came, or went. `namespace`: the labels of its namespace, if that is known.
    pub(super) fn count(&mut self, pod: &Pod, namespace: Option<&Labels>, comes: bool) {
        if pod.host_network {
            return;
        }
        for (place, asked) in self.asked.iter_mut().enumerate() {
            let is_asked = |name: Option<&String>, protocol| name == Some(&asked.name) && protocol == asked.protocol;
            let ports = pod.container_ports.iter().filter(|port| is_asked(port.name.as_ref(), port.protocol));
            let ports: Vec<u16> = ports.map(|port| port.port).collect();
            if ports.is_empty() || !asked.concerns(pod, namespace) {
                continue;
            }
            for port in ports {
                let count = asked.numbers.entry(port).or_default();
                self.changed.entry((place, port)).or_insert(*count > 0);
                *count = if comes { *count + 1 } else { count.saturating_sub(1) };
            }
        }
    }

    /// Whether a name stands for other numbers than when this was last asked.
    pub(super) fn have_changed(&mut self) -> bool {
        let changed = std::mem::take(&mut self.changed);
        let is_there = |place: usize, port| {
            self.asked.get(place).and_then(|asked| asked.numbers.get(port)).is_some_and(|count| *count > 0)
        };
        changed.iter().any(|((place, port), before)| is_there(*place, port) != *before)
    }
}

impl Answers<'_> {
    /// Whether a name was asked for of which nothing is known.
    pub(super) fn is_missing(&self) -> bool {
        self.is_missing.get()
    }
}

impl Numbered for Answers<'_> {
    fn numbers(&self, name: &str, protocol: Protocol, peers: Option<&BTreeSet<Atom>>) -> Rc<BTreeSet<u16>> {
        let is_it =
            |asked: &&AskedName| asked.name == name && asked.protocol == protocol && asked.peers.as_ref() == peers;
        let Some(asked) = self.names.asked.iter().find(is_it) else {
            self.is_missing.set(true);
            return Rc::default();
        };
        let there = asked.numbers.iter().filter(|(_, count)| **count > 0);
        Rc::new(there.map(|(number, _)| *number).take(MOST).collect())
    }
}
