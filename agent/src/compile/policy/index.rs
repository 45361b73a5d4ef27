//! What is remembered of a compilation, so that pods can come, change and go without another one.

mod sets;
mod turn;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use fairlead_datapath::Addr;
use fairlead_datapath::peer::CidrKey;
use fairlead_objects::{Labels, ObjectKey, Pod};

use super::asked_names::AskedNames;
use super::judges::Judges;
use super::rules::Policies;
use super::{Direction, Draft, Judge, PolicySet, Signature, Wanted, WantedPeer, WantedPod, claim, is_object_of};
use crate::compile::claims::PodRanges;
use crate::compile::peers::{Lookup, owned, record};
use crate::model::{Dirty, LocalPod, Model, Pods, Whole};
use turn::Turn;

/// So many addresses that several pods claim are looked for among all pods at once. Of more everything is compiled.
const SEARCHED: usize = 64;

/// What is remembered. It holds as long as what changes are pods, and what judges no pod that is attached here.
#[derive(Debug)]
pub struct Index {
    lookup: Lookup,
    names: AskedNames,
    judges: Judges,
    /// The places of the sets among those in force, by their index among those that are drafted.
    places: Vec<Option<usize>>,
    /// The attached pods by slot, and what judges each, by the places of sets.
    here: BTreeMap<u16, (LocalPod, [Judge; 2])>,
    /// Their names.
    keys: BTreeSet<ObjectKey>,
    /// The addresses of nodes.
    nodes: HashSet<Addr>,
    /// How many addresses and prefixes are of a class.
    members: Vec<usize>,
}

/// What the tables have for an address at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Nothing.
    Nothing,
    /// It is that of a pod which is not attached here, and of this class.
    Pod(usize),
    /// It is an attached pod's or a node's, whoever else claims it.
    Taken(usize),
}

/// What the tables have at present.
pub trait InTables {
    /// For an address; nothing if that is not known.
    fn address(&self, addr: Addr) -> Option<Stored>;

    /// The addresses for which they have anything.
    fn addresses(&self) -> impl Iterator<Item = Addr>;

    /// The class of a prefix, if they have that; nothing if that is not known.
    fn prefix(&self, key: &CidrKey) -> Option<Option<usize>>;
}

/// A set that comes.
#[derive(Debug)]
pub struct NewSet {
    /// The set.
    pub set: PolicySet,
    /// Rows of `POLICY_PORTS` and of `POLICY_RANGES` that it needs at most.
    pub rows: [usize; 2],
}

/// What changes with pods that come, change and go.
#[derive(Debug, Default)]
pub struct Change {
    /// Sets that come, in the order of their places, which follow those of the others.
    pub sets: Vec<NewSet>,
    /// What is known of addresses now; nothing of those that nobody has any more.
    pub peers: BTreeMap<Addr, Option<WantedPeer>>,
    /// Addresses of which the class alone changes.
    pub moves: BTreeMap<Addr, usize>,
    /// Prefixes that come or change.
    pub cidrs: BTreeMap<CidrKey, WantedPeer>,
    /// Classes that come, by index, each as [`Wanted::classes`] has them.
    pub new: BTreeMap<usize, (Signature, u64)>,
    /// Classes that no address has any more. Their indices may become others'.
    pub gone: BTreeSet<usize>,
    /// The attached pods that are judged otherwise now, by slot; nothing of those that are gone.
    pub pods: BTreeMap<u16, Option<WantedPod>>,
}

impl Index {
    /// Of sets, of which these are in force, and of what was compiled from those.
    #[must_use]
    pub fn new(draft: &Draft<'_>, kept: &[usize], wanted: &mut Wanted) -> Self {
        let mut members = vec![0; wanted.classes.len()];
        for peer in wanted.peers.values().chain(wanted.cidrs.values()) {
            if let Some(members) = members.get_mut(peer.class) {
                *members += 1;
            }
        }
        // Those that come later follow those that are there.
        let mut places = vec![None; draft.count()];
        for (place, set) in kept.iter().enumerate() {
            if let Some(of_set) = places.get_mut(*set) {
                *of_set = Some(place);
            }
        }
        let world = draft.world();
        let ranges = world.ranges();
        let keys: BTreeSet<ObjectKey> = world.local.iter().map(|local| local.key.clone()).collect();
        let mut names = AskedNames::new(draft.asked_names().to_vec());
        if !names.is_empty() {
            let namespaces: HashMap<&str, &Labels> =
                world.namespaces.iter().map(|ns| (ns.name.as_str(), &ns.labels)).collect();
            for pod in &world.pods {
                if keys.contains(&pod.key) || ranges.owned(pod).next().is_some() {
                    names.count(pod, namespaces.get(pod.key.namespace.as_str()).copied(), true);
                }
            }
            names.have_changed();
        }
        let judges = |local: &LocalPod| wanted.pods.get(&local.slot).map(|pod| [pod.ingress, pod.egress]);
        let here = world.local.iter().filter_map(|local| Some((local.slot, ((*local).clone(), judges(local)?))));
        Self {
            here: here.collect(),
            nodes: world.nodes.iter().flat_map(|node| ranges.addresses(node)).map(Addr::from).collect(),
            lookup: std::mem::take(&mut wanted.lookup),
            judges: draft.judges().clone(),
            names,
            places,
            keys,
            members,
        }
    }

    /// What changes.
    ///
    /// Nothing if everything has to be compiled. Then so it has the next time, too.
    pub fn follow(&mut self, model: &Model, dirty: &Dirty, tables: &impl InTables) -> Option<Change> {
        if self.concerns(model, dirty) {
            return None;
        }
        for namespace in &dirty.namespaces {
            self.lookup.classifier.forget_namespace(&namespace.name);
        }
        dirty.policies.iter().for_each(|policy| self.judges.forget(&policy.namespace));
        let keys = || model.local().values().map(|pod| pod.key.clone()).collect();
        let before = dirty.attached.then(|| std::mem::replace(&mut self.keys, keys()));
        let mut turn = Turn::default();
        for (key, old) in &dirty.pods {
            let has_name = self.keys.contains(key);
            let had_name = before.as_ref().map_or(has_name, |before| before.contains(key));
            if let Some(old) = old {
                let is_attached = had_name && self.here.values().any(|(local, _)| is_object_of(old, local));
                self.pod(model, old, [had_name, is_attached], false, &mut turn);
            }
            if let Some(new) = model.pod(key) {
                let is_attached = has_name && model.local().values().any(|local| is_object_of(new, local));
                self.pod(model, new, [has_name, is_attached], true, &mut turn);
            }
        }
        if self.names.have_changed() {
            return None;
        }
        let (mut change, groups) = (Change::default(), self.lookup.classifier.groups());
        if dirty.attached || dirty.pods.keys().any(|pod| self.keys.contains(pod)) {
            self.attached(model, dirty, &mut turn, &mut change)?;
        }
        let done = self.settle(model, turn, tables, &mut change)?;
        if self.lookup.classifier.groups() > groups {
            self.reclassify(model, tables, groups, &done, &mut change)?;
        }
        self.count(&mut change)?;
        Some(change)
    }

    /// How many atoms the sets ask about, at most.
    #[must_use]
    pub fn atoms(&self) -> usize {
        self.lookup.classifier.atoms()
    }

    /// Whether a set that is in force judges no pod.
    #[must_use]
    pub fn has_unused_sets(&self) -> bool {
        let used: BTreeSet<usize> = (self.here.values().flat_map(|(_, judges)| judges))
            .filter_map(|judge| if let Judge::Set(place) = judge { Some(*place) } else { None })
            .collect();
        used.len() < self.places.iter().flatten().count()
    }

    /// Whether something changed that is not followed.
    fn concerns(&self, model: &Model, dirty: &Dirty) -> bool {
        let Dirty { services: _, host_ports: _, pods, attached: _, namespaces, policies, nodes, whole } = dirty;
        !nodes.is_empty()
            || whole.contains(&Whole::Peers)
            // A policy selects pods of its namespace, one of the cluster those of any.
            || policies.iter().any(|policy| policy.namespace.is_empty() || self.is_here(&policy.namespace))
            || namespaces.iter().any(|namespace| self.is_here(&namespace.name) || !self.is_new(model, pods, namespace))
    }

    /// Whether pods of a namespace are attached here.
    fn is_here(&self, namespace: &str) -> bool {
        self.keys.range(ObjectKey::new(namespace, "")..).next().is_some_and(|pod| pod.namespace == namespace)
    }

    /// Whether no pod of a namespace was there before and is there now, and depends on it for that. A name of a port does not
    /// say whose pods have it.
    fn is_new(&self, model: &Model, pods: &Pods, namespace: &ObjectKey) -> bool {
        let is_new = |pod: &Pod| pods.get(&pod.key).is_some_and(Option::is_none);
        self.names.is_empty() && model.pods_in(&namespace.name).all(is_new)
    }

    /// A pod comes or goes, as it is or was: whether an attached pod has its name, and whether it is its object.
    fn pod<'a>(
        &mut self,
        model: &Model,
        pod: &'a Pod,
        [has_name, is_attached]: [bool; 2],
        comes: bool,
        turn: &mut Turn<'a>,
    ) {
        if pod.owned_ips().is_empty() && !has_name {
            return;
        }
        let owned = owned(&ranges_of(model, pod), pod);
        if !self.names.is_empty() && (has_name || !owned.is_empty()) {
            self.names.count(pod, model.namespace_labels(&pod.key.namespace), comes);
        }
        if !is_attached {
            turn.claim(owned.into_iter().map(Addr::from), pod, comes);
        }
    }

    /// Looks at attached pods that came, changed or went, and at those whose objects did.
    fn attached<'a>(
        &mut self,
        model: &'a Model,
        dirty: &Dirty,
        turn: &mut Turn<'a>,
        change: &mut Change,
    ) -> Option<()> {
        let mut policies: HashMap<&str, Policies<'_>> = HashMap::new();
        let gone = self.here.extract_if(.., |slot, (pod, _)| model.local().get(slot) != Some(pod));
        let gone: BTreeMap<u16, _> = gone.collect();
        // One that is cut off no more is to be told of.
        if gone.values().any(|(_, judges)| judges.contains(&Judge::CutOff)) {
            return None;
        }
        for (slot, (pod, _)) in &gone {
            turn.touch(pod.ips.iter().map(|ip| Addr::from(ip.to_canonical())));
            change.pods.insert(*slot, None);
        }
        for (slot, pod) in model.local() {
            let before = self.here.get(slot).map(|(_, judges)| *judges);
            if before.is_some() && !dirty.pods.contains_key(&pod.key) {
                continue;
            }
            let namespace = pod.key.namespace.as_str();
            let policies = policies.entry(namespace).or_insert_with(|| Policies::in_force(model, namespace));
            let object = model.object_of(pod).map(|pod| (pod, model.namespace_labels(namespace)));
            let mut judges = [Judge::Pending; 2];
            for (judge, direction) in judges.iter_mut().zip([Direction::Ingress, Direction::Egress]) {
                let names = self.names.answers();
                let found = self.judges.judge(policies, object, direction, &names);
                // What pods are told by DNS is not followed.
                if names.is_missing() || self.judges.have_names() {
                    return None;
                }
                *judge = if let Judge::Set(set) = found { self.place(set, change)? } else { found };
            }
            if before != Some(judges) {
                let [ingress, egress] = judges;
                change.pods.insert(*slot, Some(WantedPod { record: record(pod), ingress, egress }));
            }
            turn.touch(pod.ips.iter().map(|ip| Addr::from(ip.to_canonical())));
            self.here.insert(*slot, (pod.clone(), judges));
        }
        for (slot, pod) in model.local() {
            for ip in pod.ips.iter().map(IpAddr::to_canonical) {
                turn.attach(ip.into(), *slot);
            }
        }
        Some(())
    }

    fn settle(
        &mut self,
        model: &Model,
        mut turn: Turn<'_>,
        tables: &impl InTables,
        change: &mut Change,
    ) -> Option<BTreeSet<Addr>> {
        let mut searched = BTreeSet::new();
        let mut after: BTreeMap<Addr, (Option<usize>, Option<WantedPeer>)> = BTreeMap::new();
        for (addr, more) in turn.addresses() {
            let before = tables.address(addr)?;
            let is_node = self.nodes.contains(&addr);
            let slot = turn.slot(addr);
            let (class, others) = match before {
                // Whoever else claims it does not matter.
                Stored::Taken(_) if !turn.is_touched(addr) => continue,
                Stored::Taken(_) if is_node => return None,
                Stored::Taken(class) => (Some(class), None),
                Stored::Pod(class) => (Some(class), Some(1)),
                Stored::Nothing => (None, Some(0)),
            };
            let several = self.lookup.contested.remove(&addr);
            if let Some(slot) = slot {
                let peer = self.own(model, slot, addr)?;
                after.insert(addr, (class, Some(peer)));
                continue;
            }
            let count = match others {
                Some(one) => Some(several.unwrap_or(one).checked_add_signed(more)?),
                None => None,
            };
            let owner = match (count, turn.claimants(addr)) {
                (Some(0), _) => None,
                (Some(1), [only]) => Some(*only),
                _ => {
                    searched.insert(addr);
                    None
                }
            };
            let peer = owner.map(|pod| self.elsewhere(model, pod, addr));
            after.insert(addr, (class, peer));
        }
        if !searched.is_empty() {
            for (addr, claimants) in self.search(model, &searched)? {
                let Some(owner) = claimants.iter().copied().min_by_key(|pod| claim(pod)) else { continue };
                if claimants.len() > 1 {
                    self.lookup.contested.insert(addr, claimants.len());
                }
                let peer = self.elsewhere(model, owner, addr);
                if let Some((_, after)) = after.get_mut(&addr) {
                    *after = Some(peer);
                }
            }
        }
        let done = after.keys().copied().collect();
        for (addr, (before, after)) in after {
            if let Some(after) = &after {
                self.enter(after.class, change);
            }
            if let Some(before) = before {
                self.leave(before, change)?;
            }
            change.peers.insert(addr, after);
        }
        Some(done)
    }

    /// Describes classes that come, and forgets those that go.
    fn count(&mut self, change: &mut Change) -> Option<()> {
        for (class, text) in &mut change.new {
            *text = self.lookup.classifier.describe(*class)?;
        }
        // One that came and went at once is none.
        for class in std::mem::take(&mut change.gone) {
            self.lookup.classifier.forget(class);
            if change.new.remove(&class).is_none() {
                change.gone.insert(class);
            }
        }
        Some(())
    }

    /// What is known of an address of an attached pod.
    fn own(&mut self, model: &Model, slot: u16, addr: Addr) -> Option<WantedPeer> {
        let (local, _) = self.here.get(&slot)?;
        let classifier = &mut self.lookup.classifier;
        let met = match model.object_of(local) {
            Some(pod) => classifier.met_by_pod(pod, model.namespace_labels(&pod.key.namespace)),
            None => classifier.met_by_unknown(),
        };
        Some(self.lookup.attached(&met, slot, addr.into()))
    }

    /// What is known of an address of a pod that is not attached.
    fn elsewhere(&mut self, model: &Model, pod: &Pod, addr: Addr) -> WantedPeer {
        let met = self.lookup.classifier.met_by_pod(pod, model.namespace_labels(&pod.key.namespace));
        self.lookup.pod(pod, &met, addr.into())
    }

    /// Who claims addresses, of the pods that are not attached.
    fn search<'a>(&self, model: &'a Model, addrs: &BTreeSet<Addr>) -> Option<BTreeMap<Addr, Vec<&'a Pod>>> {
        if addrs.len() > SEARCHED {
            return None;
        }
        let ips: Vec<IpAddr> = addrs.iter().map(|addr| IpAddr::from(*addr)).collect();
        let mut found: BTreeMap<Addr, Vec<&Pod>> = BTreeMap::new();
        for pod in model.pods() {
            if !pod.owned_ips().iter().any(|ip| ips.contains(&ip.to_canonical())) {
                continue;
            }
            let is_attached = || model.local().values().any(|local| is_object_of(pod, local));
            if self.keys.contains(&pod.key) && is_attached() {
                continue;
            }
            for ip in owned(&ranges_of(model, pod), pod) {
                if ips.contains(&ip) {
                    found.entry(ip.into()).or_default().push(pod);
                }
            }
        }
        Some(found)
    }

    /// An address becomes one of a class.
    fn enter(&mut self, class: usize, change: &mut Change) {
        if class >= self.members.len() {
            self.members.resize(class + 1, 0);
        }
        if let Some(members) = self.members.get_mut(class) {
            // What nobody meets anything of is a class always.
            if *members == 0 && class != 0 && !change.gone.remove(&class) {
                change.new.insert(class, <_>::default());
            }
            *members += 1;
        }
    }

    /// An address was one of a class.
    fn leave(&mut self, class: usize, change: &mut Change) -> Option<()> {
        let members = self.members.get_mut(class)?;
        *members = members.checked_sub(1)?;
        if *members == 0 && class != 0 {
            change.gone.insert(class);
        }
        Some(())
    }
}

/// What of its addresses a pod may have.
fn ranges_of<'a>(model: &'a Model, pod: &Pod) -> PodRanges<'a> {
    let node = pod.node_name.as_deref().and_then(|name| model.node(name));
    PodRanges::new(node, &model.rules().pod_ranges)
}
