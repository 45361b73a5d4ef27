//! What the names of ports stand for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use fairlead_datapath::policy::{MAX_PAGES, PAGE_BITS};
use fairlead_objects::{Labels, ObjectKey, Pod, Protocol, Selector};

use super::asked_names::AskedName;
use super::{Atom, World};

/// A name stands for no more numbers than this: a set with so many rules does not fit anyway, and nothing is gained by
/// compiling more of them.
pub(super) const MOST: usize = (MAX_PAGES * PAGE_BITS) as usize + 1;

/// The labels of the pods in a namespace that declare a port, and those of the namespace. Pods that are alike are one.
#[derive(Debug)]
struct Declared<'a> {
    namespace: Option<&'a Labels>,
    pods: HashSet<&'a Labels>,
}

/// Who declares a name: by number, then by namespace.
type ByNumber<'a> = BTreeMap<u16, HashMap<&'a str, Declared<'a>>>;

/// What a name was found to stand for among these peers, by name and protocol.
type Found = HashMap<(String, Protocol), HashMap<Option<BTreeSet<Atom>>, Rc<BTreeSet<u16>>>>;

/// The numbers that the names of ports stand for, and whose pods call them so.
#[derive(Debug, Default)]
pub(super) struct PortNames<'a> {
    by_name: HashMap<(&'a str, Protocol), ByNumber<'a>>,
    found: RefCell<Found>,
}

impl<'a> PortNames<'a> {
    /// Of pods that have an address.
    pub(super) fn new(world: &World<'a>) -> Self {
        let ranges = world.ranges();
        let local: HashSet<&ObjectKey> = world.local.iter().map(|local| &local.key).collect();
        let has_address = |pod: &Pod| local.contains(&pod.key) || ranges.owned(pod).next().is_some();
        let namespaces: HashMap<&str, &Labels> =
            world.namespaces.iter().map(|ns| (ns.name.as_str(), &ns.labels)).collect();
        let mut names = Self::default();
        for pod in world.pods.iter().filter(|pod| !pod.host_network && has_address(pod)) {
            for port in &pod.container_ports {
                if let Some(name) = &port.name {
                    let by_number = names.by_name.entry((name, port.protocol)).or_default();
                    let namespace = pod.key.namespace.as_str();
                    let labels = || namespaces.get(namespace).copied();
                    let declared = by_number.entry(port.port).or_default().entry(namespace);
                    let declared = declared.or_insert_with(|| Declared { namespace: labels(), pods: HashSet::new() });
                    declared.pods.insert(&pod.labels);
                }
            }
        }
        names
    }

    /// What was asked so far.
    pub(super) fn asked(&self) -> Vec<AskedName> {
        let found = self.found.borrow();
        let asked =
            found.iter().flat_map(|((name, protocol), found)| found.keys().map(move |peers| (name, *protocol, peers)));
        asked.map(|(name, protocol, peers)| AskedName::new(name, protocol, peers.as_ref())).collect()
    }
}

/// Who says what names of ports stand for.
pub(super) trait Numbered {
    /// The numbers that a name stands for among pods which may be these peers; `None` are all. A number costs a rule a place,
    /// so pods that a rule is not about cost it nothing, whatever they call their ports. Many rules ask the same.
    fn numbers(&self, name: &str, protocol: Protocol, peers: Option<&BTreeSet<Atom>>) -> Rc<BTreeSet<u16>>;
}

impl Numbered for PortNames<'_> {
    fn numbers(&self, name: &str, protocol: Protocol, peers: Option<&BTreeSet<Atom>>) -> Rc<BTreeSet<u16>> {
        let peers = peers.cloned();
        let mut found = self.found.borrow_mut();
        let found = found.entry((name.to_owned(), protocol)).or_default();
        if let Some(numbers) = found.get(&peers) {
            return Rc::clone(numbers);
        }
        let numbers = self.by_name.get(&(name, protocol)).into_iter().flatten().filter(|(_, declared)| {
            peers.as_ref().is_none_or(|peers| declared.iter().any(|(namespace, pods)| pods.may_be(namespace, peers)))
        });
        let numbers = Rc::new(numbers.map(|(number, _)| *number).take(MOST).collect());
        found.insert(peers, Rc::clone(&numbers));
        numbers
    }
}

impl Declared<'_> {
    /// Whether one of the pods may be one of these peers.
    fn may_be(&self, namespace: &str, peers: &BTreeSet<Atom>) -> bool {
        // By its address, which is not looked at here.
        if peers.iter().any(|atom| matches!(atom, Atom::Block { .. })) {
            return true;
        }
        let selectors: Vec<&Selector> =
            peers.iter().filter_map(|atom| atom.pods_in(namespace, self.namespace)).collect();
        self.pods.iter().any(|labels| selectors.iter().any(|selector| selector.matches(labels)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compile::policy::testing::*;

    /// A cluster whose pods declare ports under two names.
    fn cluster() -> impl Strategy<Value = Cluster> {
        let pod = (0..3_u8, 0..3_u8, 0..2_u8, 78..82_u16, any::<bool>());
        prop::collection::vec(pod, 0..12).prop_map(|pods| {
            let mut cluster = Cluster::grid();
            cluster.namespaces.retain(|namespace| namespace.name != "z");
            for (number, (namespace, label, name, port, has_address)) in (100..).zip(pods) {
                let key = format!("{}/q{number}", ["x", "y", "z"][usize::from(namespace)]);
                let label = format!("pod={}", ["a", "b", "c"][usize::from(label)]);
                cluster = cluster.pod(&key, 1, number, &label);
                let pod = cluster.pods.last_mut().unwrap();
                let name = ["web", "dns"][usize::from(name)];
                pod.container_ports.push(declared(name, port, Protocol::Tcp));
                if !has_address {
                    pod.ips.clear();
                    let gone = pod.key.clone();
                    cluster.local.retain(|local| local.key != gone);
                }
            }
            cluster
        })
    }

    fn peers() -> impl Strategy<Value = Option<BTreeSet<Atom>>> {
        let text = prop::sample::select(vec!["pod=a", "pod=b", "pod=c", ""]);
        let atom =
            (0..4_u8, prop::sample::select(vec!["ns=x", "ns=y", "ns=z", ""]), text).prop_map(|(kind, ns, text)| {
                match kind {
                    0 => Atom::of(&pods(text), "y").unwrap(),
                    1 => Atom::of(&nodes("role=first"), "y").unwrap(),
                    2 if text == "pod=a" => Atom::of(&block("10.0.0.0/8", &[]), "y").unwrap(),
                    _ => Atom::of(&pods_of(ns, text), "y").unwrap(),
                }
            });
        prop::option::of(prop::collection::btree_set(atom, 0..4))
    }

    proptest! {
        #[test]
        fn a_name_stands_for_what_each_pod_that_may_be_a_peer_declares(
            cluster in cluster(), asked in prop::collection::vec(peers(), 1..6),
        ) {
            let world = cluster.world();
            let ranges = world.ranges();
            let names = PortNames::new(&world);
            let is_peer = |pod: &Pod, peers: &BTreeSet<Atom>| {
                let labels = world.namespace_labels(&pod.key.namespace);
                peers.iter().any(|atom| {
                    matches!(atom, Atom::Block { .. }) || atom.meets_labels(&pod.key.namespace, labels, &pod.labels)
                })
            };
            // Twice: the second time it remembers.
            for peers in asked.iter().chain(&asked) {
                for name in ["web", "dns", "none"] {
                    let mut expected = BTreeSet::new();
                    for pod in &world.pods {
                        let is_local = world.local.iter().any(|local| local.key == pod.key);
                        let counts = is_local || ranges.owned(pod).next().is_some();
                        if counts && peers.as_ref().is_none_or(|peers| is_peer(pod, peers)) {
                            let ports = pod.container_ports.iter();
                            let named = ports.filter(|p| p.name.as_deref() == Some(name) && p.protocol == Protocol::Tcp);
                            expected.extend(named.map(|port| port.port));
                        }
                    }
                    let found = names.numbers(name, Protocol::Tcp, peers.as_ref());
                    prop_assert_eq!(&*found, &expected, "{} {:?}", name, peers);
                    let again = names.numbers(name, Protocol::Tcp, peers.as_ref());
                    prop_assert!(Rc::ptr_eq(&found, &again), "it is not counted anew");
                }
            }
        }
    }
}
