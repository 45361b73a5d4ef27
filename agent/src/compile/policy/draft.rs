//! The policy sets of this node's pods, before it is known which of them fit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fairlead_datapath::peer::{CidrKey, Pod as PodRecord};
use fairlead_objects::{Labels, ObjectKey, Pod};

use super::asked_names::AskedName;
use super::demand::body_rows;
use super::judges::Judges;
use super::numbers::Numbers;
use super::port_names::PortNames;
use super::rules::{Body, Policies};
use super::wanted::Wanted;
use super::world::is_object_of;
use super::{Demand, Direction, PolicySet, SetInfo, World, content_hash};
use crate::compile::peers;
use crate::model::LocalPod;

/// What judges a direction of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// Nothing may pass: the pod's object is not known yet, or its Namespace, which policies of the cluster ask for.
    Pending,
    /// Nothing may pass: the set that would judge it does not fit.
    CutOff,
    /// Everything may pass: no policy selects the pod.
    Nobody,
    /// A policy set, by its index.
    Set(usize),
}

/// A pod of this node and what judges it.
#[derive(Debug, Clone, Copy)]
pub struct DraftPod<'a> {
    /// The pod.
    pub local: &'a LocalPod,
    /// What judges what it receives.
    pub ingress: Judge,
    /// What judges what it sends.
    pub egress: Judge,
}

impl DraftPod<'_> {
    /// What judges each direction.
    #[must_use]
    pub fn judges(&self) -> [(Direction, Judge); 2] {
        [(Direction::Ingress, self.ingress), (Direction::Egress, self.egress)]
    }
}

/// The pods of this node and the policy sets that would judge them.
#[derive(Debug)]
pub struct Draft<'a> {
    world: &'a World<'a>,
    objects: HashMap<&'a ObjectKey, Vec<&'a Pod>>,
    judges: Judges,
    bodies: Vec<Arc<Body>>,
    contents: Vec<u64>,
    pods: BTreeMap<u16, DraftPod<'a>>,
    asked: Vec<AskedName>,
}

impl<'a> Draft<'a> {
    /// Collects them.
    #[must_use]
    pub fn new(world: &'a World<'a>) -> Self {
        let objects = by_key(world);
        let policies = Policies::new(&world.cluster_policies, &world.policies);
        let namespaces: HashMap<&str, &Labels> =
            world.namespaces.iter().map(|ns| (ns.name.as_str(), &ns.labels)).collect();
        let names = PortNames::new(world);
        let mut judges = Judges::default();
        let mut pods = BTreeMap::new();
        for local in world.local.iter().copied() {
            let object = objects.get(&local.key).into_iter().flatten().copied().find(|pod| is_object_of(pod, local));
            let pod = object.map(|pod| (pod, namespaces.get(pod.key.namespace.as_str()).copied()));
            let mut judge = |direction| judges.judge(&policies, pod, direction, &names);
            let (ingress, egress) = (judge(Direction::Ingress), judge(Direction::Egress));
            pods.insert(local.slot, DraftPod { local, ingress, egress });
        }
        let bodies = judges.bodies();
        let contents = bodies.iter().map(|body| content_hash(&**body)).collect();
        Self { world, objects, judges, bodies, contents, pods, asked: names.asked() }
    }

    /// What it was made of.
    pub(super) fn world(&self) -> &World<'a> {
        self.world
    }

    /// What judges its pods.
    pub(super) fn judges(&self) -> &Judges {
        &self.judges
    }

    /// Whether a policy that selects one of its pods has rules with names.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.judges.have_names()
    }

    /// The names of ports that it depends on.
    pub(super) fn asked_names(&self) -> &[AskedName] {
        &self.asked
    }

    /// The pods by slot.
    #[must_use]
    pub fn pods(&self) -> &BTreeMap<u16, DraftPod<'a>> {
        &self.pods
    }

    /// How many sets there are. Their indices are below that.
    #[must_use]
    pub fn count(&self) -> usize {
        self.bodies.len()
    }

    /// What a set stands for.
    ///
    /// # Panics
    /// There is no such set.
    #[must_use]
    pub fn info(&self, set: usize) -> &SetInfo {
        &self.bodies[set].info
    }

    /// The namespace that is charged for a set: that of its pods, if a policy of it judges them. Those that policies of the
    /// cluster alone judge are charged to no namespace, and have a share of their own under no name.
    ///
    /// # Panics
    /// There is no such set.
    #[must_use]
    pub fn namespace(&self, set: usize) -> &str {
        let policies = &self.bodies[set].info.policies;
        policies
            .iter()
            .map(|policy| policy.namespace.as_str())
            .find(|namespace| !namespace.is_empty())
            .unwrap_or_default()
    }

    /// Rows of `POLICY_PORTS` and of `POLICY_RANGES` that a set needs at most.
    ///
    /// # Panics
    /// There is no such set.
    #[must_use]
    pub fn rows(&self, set: usize) -> [usize; 2] {
        body_rows(&self.bodies[set])
    }

    /// What a set asks of the tables.
    ///
    /// # Panics
    /// There is no such set.
    #[must_use]
    pub fn demand(&self, set: usize) -> Demand<'_> {
        Demand::of(&self.bodies[set])
    }

    /// The hash of what a set is made of, as `POLICY_SETS` has it.
    ///
    /// # Panics
    /// There is no such set.
    #[must_use]
    pub fn content(&self, set: usize) -> u64 {
        self.contents[set]
    }

    /// The prefixes that `CIDRS` has for nodes, whatever policies name.
    pub fn node_prefixes(&self) -> impl Iterator<Item = CidrKey> {
        let prefixes = self.world.nodes.iter().flat_map(|node| &node.pod_cidrs);
        prefixes.map(|prefix| CidrKey::prefix(prefix.network().into(), prefix.prefix()))
    }

    /// Compiles with these sets alone, in this order; pods that others would judge are cut off.
    ///
    /// # Panics
    /// There is no such set.
    #[must_use]
    pub fn finish(&self, kept: &[usize]) -> Wanted {
        let mut places = vec![None; self.bodies.len()];
        kept.iter().enumerate().for_each(|(place, set)| places[*set] = Some(place));
        let bodies: Vec<&Body> = kept.iter().map(|set| &*self.bodies[*set]).collect();
        let numbers = Numbers::new(&bodies);
        let judge = |judge| match judge {
            Judge::Set(set) => places[set].map_or(Judge::CutOff, Judge::Set),
            other => other,
        };
        let pod = |pod: &DraftPod<'_>| WantedPod {
            record: peers::record(pod.local),
            ingress: judge(pod.ingress),
            egress: judge(pod.egress),
        };
        let mut wanted = Wanted {
            sets: bodies.iter().map(|body| PolicySet::new(body, &numbers)).collect(),
            pods: self.pods.iter().map(|(slot, of_draft)| (*slot, pod(of_draft))).collect(),
            ..Wanted::default()
        };
        peers::compile(self.world, &self.objects, numbers, &mut wanted);
        wanted
    }
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

/// Compiles, if everything fits.
#[must_use]
pub fn compile(world: &World<'_>) -> Wanted {
    let draft = Draft::new(world);
    draft.finish(&Vec::from_iter(0..draft.count()))
}

/// Pods by name; an object store has one of a name, a watch that is catching up may have two.
fn by_key<'a>(world: &World<'a>) -> HashMap<&'a ObjectKey, Vec<&'a Pod>> {
    let mut objects: HashMap<_, Vec<_>> = HashMap::new();
    for pod in &world.pods {
        objects.entry(&pod.key).or_default().push(*pod);
    }
    objects
}
