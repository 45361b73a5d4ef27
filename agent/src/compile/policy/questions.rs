//! The atoms of some sets by what they ask, so that who is asked about is compared with few of them.

use std::collections::HashMap;
use std::sync::Arc;

use fairlead_objects::{ContainerPort, Labels, Node, Pod, Protocol};

use super::Atom;
use super::asking::{Asking, Numbered};
use super::blocks::Blocks;
use super::numbers::Group;

/// Atoms with their numbers.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Those that ask about the labels of pods of one namespace.
    own: HashMap<String, Vec<Numbered>>,
    /// Those that ask about the labels of pods of namespaces with some labels.
    anywhere: Vec<Numbered>,
    /// Those of both that pods of a namespace may meet, as far as that was asked.
    of_namespace: HashMap<String, Arc<Asking>>,
    /// The same of namespaces that none asks about alone, by the places of those that do: many are alike.
    alike: HashMap<Vec<usize>, Arc<Asking>>,
    /// Those that ask about a port's name, by its number.
    ports: HashMap<(Protocol, u16), Vec<(String, usize)>>,
    /// Those that ask about nodes.
    nodes: Vec<Numbered>,
    /// Those that ask about a prefix.
    pub(super) blocks: Blocks,
    /// That of pods that are not known.
    pub(super) unknown: Option<usize>,
}

impl Questions {
    pub(super) fn new(atoms: &Group) -> Self {
        let mut questions =
            Self { blocks: Blocks::new(atoms.iter().map(|(atom, n)| (&**atom, *n))), ..Self::default() };
        for (atom, number) in atoms {
            let number = *number;
            match &**atom {
                // Who was told what is looked up by address.
                Atom::Block { .. } | Atom::Told { .. } => {}
                Atom::Port { name, protocol, port } => {
                    questions.ports.entry((*protocol, *port)).or_default().push((name.clone(), number));
                }
                Atom::Nodes(_) => questions.nodes.push((number, Arc::clone(atom))),
                Atom::UnknownPod => questions.unknown = Some(number),
                Atom::PodsOf { namespace, pods: _ } => {
                    questions.own.entry(namespace.clone()).or_default().push((number, Arc::clone(atom)));
                }
                Atom::Pods { .. } => questions.anywhere.push((number, Arc::clone(atom))),
            }
        }
        questions
    }

    /// What a pod meets by its labels and ports. `namespace`: the labels of its namespace, if that is known. They stay what they
    /// were when this was first asked, until [`Questions::forget_namespace`].
    pub(super) fn met_by_pod(&mut self, pod: &Pod, namespace: Option<&Labels>, met: &mut impl Extend<usize>) {
        let asking = self.asking(&pod.key.namespace, namespace);
        met.extend(asking.met(&pod.labels));
        met.extend(pod.container_ports.iter().flat_map(|port| self.met_by_port(port)));
        met.extend(self.unknown.filter(|_| namespace.is_none()));
    }

    fn met_by_port(&self, port: &ContainerPort) -> impl Iterator<Item = usize> {
        let named = self.ports.get(&(port.protocol, port.port)).filter(|_| port.name.is_some());
        named.into_iter().flatten().filter(|(name, _)| port.name.as_ref() == Some(name)).map(|(_, number)| *number)
    }

    /// Whether pods of a namespace may meet any by what they are.
    pub(super) fn concern(&mut self, namespace: &str, labels: Option<&Labels>) -> bool {
        let by_name = !self.ports.is_empty() || labels.is_none() && self.unknown.is_some();
        by_name || !self.asking(namespace, labels).is_empty()
    }

    /// Whether nodes may meet any.
    pub(super) fn concern_nodes(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// What asks about the labels of pods of a namespace.
    fn asking(&mut self, name: &str, labels: Option<&Labels>) -> Arc<Asking> {
        if let Some(asking) = self.of_namespace.get(name) {
            return Arc::clone(asking);
        }
        let places = (0..self.anywhere.len())
            .filter(|place| self.anywhere.get(*place).is_some_and(|(_, atom)| atom.pods_in(name, labels).is_some()));
        let places: Vec<usize> = places.collect();
        let anywhere = || places.iter().filter_map(|place| self.anywhere.get(*place)).cloned();
        let asking = match (self.own.get(name), self.alike.get(&places)) {
            (Some(own), _) => Arc::new(Asking::new(own.iter().cloned().chain(anywhere()).collect())),
            (None, Some(known)) => Arc::clone(known),
            (None, None) => {
                let asking = Arc::new(Asking::new(anywhere().collect()));
                self.alike.insert(places, Arc::clone(&asking));
                asking
            }
        };
        self.of_namespace.insert(name.to_owned(), Arc::clone(&asking));
        asking
    }

    /// A namespace has other labels now.
    pub(super) fn forget_namespace(&mut self, name: &str) {
        self.of_namespace.remove(name);
    }

    /// What an address meets that these nodes have.
    pub(super) fn met_by_nodes(&self, nodes: &[&Node]) -> impl Iterator<Item = usize> {
        let met = self.nodes.iter().filter(|(_, atom)| nodes.iter().any(|node| atom.meets_node(node)));
        met.map(|(number, _)| *number)
    }
}
