//! What the names of ports stand for.

use std::collections::{BTreeSet, HashMap, HashSet};

use fairlead_datapath::policy::{MAX_PAGES, PAGE_BITS};
use fairlead_objects::{Labels, ObjectKey, Pod, Protocol};

use super::{Atom, World};

/// A name stands for no more numbers than this: a set with so many rules does not fit anyway, and nothing is gained by
/// compiling more of them.
const MOST: usize = (MAX_PAGES * PAGE_BITS) as usize + 1;

/// Pods that declare a port: their namespace, their labels and the number. Pods that are alike are one.
type Declared<'a> = HashSet<(&'a str, &'a Labels, u16)>;

/// The numbers that the names of ports stand for, and whose pods call them so.
#[derive(Debug, Default)]
pub(super) struct PortNames<'a> {
    by_name: HashMap<(&'a str, Protocol), Declared<'a>>,
    namespaces: HashMap<&'a str, &'a Labels>,
}

impl<'a> PortNames<'a> {
    /// Of pods that have an address.
    pub(super) fn new(world: &World<'a>) -> Self {
        let ranges = world.ranges();
        let local: HashSet<&ObjectKey> = world.local.iter().map(|local| &local.key).collect();
        let has_address = |pod: &Pod| local.contains(&pod.key) || ranges.owned(pod).next().is_some();
        let namespaces = world.namespaces.iter().map(|ns| (ns.name.as_str(), &ns.labels)).collect();
        let mut names = Self { by_name: HashMap::new(), namespaces };
        for pod in world.pods.iter().filter(|pod| !pod.host_network && has_address(pod)) {
            for port in &pod.container_ports {
                if let Some(name) = &port.name {
                    let declared = names.by_name.entry((name, port.protocol)).or_default();
                    declared.insert((&pod.key.namespace, &pod.labels, port.port));
                }
            }
        }
        names
    }

    /// The numbers that a name stands for among pods which may be these peers; `None` are all. A number costs a rule a place,
    /// so pods that a rule is not about cost it nothing, whatever they call their ports.
    pub(super) fn numbers(&self, name: &str, protocol: Protocol, peers: Option<&BTreeSet<Atom>>) -> BTreeSet<u16> {
        let may_be = |atom: &Atom, namespace: &str, labels: &Labels| match atom {
            // By its address, which is not looked at here.
            Atom::Block { .. } => true,
            atom => atom.meets_labels(namespace, self.namespaces.get(namespace).copied(), labels),
        };
        let declared = self.by_name.get(&(name, protocol)).into_iter().flatten();
        let numbers: BTreeSet<u16> = declared
            .filter(|(namespace, labels, _)| {
                peers.is_none_or(|peers| peers.iter().any(|atom| may_be(atom, namespace, labels)))
            })
            .map(|(.., number)| *number)
            .collect();
        numbers.into_iter().take(MOST).collect()
    }
}
