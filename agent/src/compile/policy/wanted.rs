//! The compiler: from objects to what the tables of policy and peers should say.

use std::collections::{BTreeMap, HashMap};

use fairlead_datapath::Addr;
use fairlead_datapath::peer::{CidrKey, NodeHop, Pod as PodRecord};
use fairlead_objects::{Labels, NetworkPolicy, ObjectKey, Pod};

use super::rules::{Body, PortNames, body};
use super::world::is_object_of;
use super::{Atom, Direction, PolicySet, Signature, World};
use crate::compile::peers;

/// What the tables of policy and peers should say, before sets, classes and nodes have ids.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The policy sets in use, each once.
    pub sets: Vec<PolicySet>,
    /// The signatures of the classes in use, each once, with the hash that its id is made from. The first is that of
    /// an address that meets no atom.
    pub classes: Vec<(Signature, u64)>,
    /// The other nodes of the cluster.
    pub nodes: Vec<NodeHop>,
    /// What is known of each address of a pod or node.
    pub peers: BTreeMap<Addr, WantedPeer>,
    /// What is known of the addresses of each prefix.
    pub cidrs: BTreeMap<CidrKey, WantedPeer>,
    /// This node's pods by slot.
    pub pods: BTreeMap<u16, WantedPod>,
}

/// What is known of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedPeer {
    /// Index in [`Wanted::classes`].
    pub class: usize,
    /// The slot of this node's pod that owns it.
    pub slot: Option<u16>,
    /// Index in [`Wanted::nodes`] of the node that it is behind.
    pub node: Option<usize>,
    /// [`fairlead_datapath::peer::PeerFlags`].
    pub flags: u32,
}

/// A pod of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedPod {
    /// Its record; the word in it says nothing.
    pub record: PodRecord,
    /// What judges what it receives.
    pub ingress: Judge,
    /// What judges what it sends.
    pub egress: Judge,
}

/// What judges a direction of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// Nothing may pass: the pod's object is not known yet.
    Pending,
    /// Everything may pass: no policy selects the pod.
    Nobody,
    /// A policy set, by its index in [`Wanted::sets`].
    Set(usize),
}

/// Compiles.
#[must_use]
pub fn compile(world: &World<'_>) -> Wanted {
    let objects = by_key(world);
    let mut policies: BTreeMap<&str, Vec<&NetworkPolicy>> = BTreeMap::new();
    for policy in &world.policies {
        policies.entry(&policy.key.namespace).or_default().push(policy);
    }
    for of_namespace in policies.values_mut() {
        of_namespace.sort_by_key(|policy| &policy.key);
    }
    let names = port_names(world);

    let mut bodies: BTreeMap<Body, usize> = BTreeMap::new();
    let mut pods = BTreeMap::new();
    for local in &world.local {
        let object = objects.get(&local.key).into_iter().flatten().copied().find(|pod| is_object_of(pod, local));
        let mut judge = |direction| {
            let Some(pod) = object else { return Judge::Pending };
            let of_namespace = policies.get(pod.key.namespace.as_str()).map_or(&[][..], Vec::as_slice);
            body(of_namespace, pod, direction, &names).map_or(Judge::Nobody, |body| {
                let next = bodies.len();
                Judge::Set(*bodies.entry(body).or_insert(next))
            })
        };
        let (ingress, egress) = (judge(Direction::Ingress), judge(Direction::Egress));
        pods.insert(local.slot, WantedPod { record: peers::record(local), ingress, egress });
    }

    let atoms = atoms(&bodies);
    let mut sets: Vec<_> = bodies.into_iter().collect();
    sets.sort_by_key(|(_, index)| *index);
    let sets = sets.into_iter().map(|(body, _)| PolicySet::new(body, &atoms)).collect();
    let mut wanted = Wanted { sets, pods, ..Wanted::default() };
    peers::compile(world, &objects, &atoms, &mut wanted);
    wanted
}

/// Pods by name; an object store has one of a name, a watch that is catching up may have two.
fn by_key<'a>(world: &World<'a>) -> HashMap<&'a ObjectKey, Vec<&'a Pod>> {
    let mut objects: HashMap<_, Vec<_>> = HashMap::new();
    for pod in &world.pods {
        objects.entry(&pod.key).or_default().push(*pod);
    }
    objects
}

fn port_names<'a>(world: &World<'a>) -> PortNames<'a> {
    let mut names = PortNames::new();
    for pod in world.pods.iter().filter(|pod| !pod.host_network) {
        for port in &pod.container_ports {
            if let Some(name) = &port.name {
                names.entry((name, port.protocol)).or_default().insert(port.port);
            }
        }
    }
    names
}

fn atoms(bodies: &BTreeMap<Body, usize>) -> BTreeMap<Atom, usize> {
    let mut atoms = BTreeMap::new();
    for clause in bodies.keys().flat_map(|body| &body.clauses) {
        for atom in clause.peers.iter().flatten().chain(&clause.and) {
            if !atoms.contains_key(atom) {
                atoms.insert(atom.clone(), atoms.len());
            }
        }
    }
    atoms
}

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
