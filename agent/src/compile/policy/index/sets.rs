//! Sets that come with pods: what they ask is asked of every address, and nothing else is.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use fairlead_datapath::Addr;
use fairlead_objects::{Node, Pod};

use super::{Change, InTables, Index, NewSet, Stored, ranges_of};
use crate::compile::claims::PodRanges;
use crate::compile::peers::owned;
use crate::compile::policy::demand::body_rows;
use crate::compile::policy::questions::Questions;
use crate::compile::policy::{Judge, Signature, is_object_of};
use crate::model::Model;

/// What addresses meet besides what they have met before.
type Met = BTreeMap<Addr, Signature>;

impl Index {
    /// The place of a set among those in force, where it comes now if it is new.
    pub(super) fn place(&mut self, set: usize, change: &mut Change) -> Option<Judge> {
        if set < self.places.len() {
            // One that is refused may fit now.
            return Some(Judge::Set((*self.places.get(set)?)?));
        }
        if self.places.contains(&None) {
            return None;
        }
        let (place, body) = (self.places.len(), self.judges.body(set)?);
        let rows = body_rows(&body);
        change.sets.push(NewSet { set: self.lookup.classifier.add(place, &body), rows });
        self.places.push(Some(place));
        Some(Judge::Set(place))
    }

    /// The classes of addresses and prefixes, of which the sets that came ask something else than those before. `done`: those that
    /// are looked at anyway.
    pub(super) fn reclassify(
        &mut self,
        model: &Model,
        tables: &impl InTables,
        groups: usize,
        done: &BTreeSet<Addr>,
        change: &mut Change,
    ) -> Option<()> {
        let mut met = Met::new();
        self.met_by_pods(model, tables, groups, &mut met)?;
        self.met_by_nodes(model, groups, &mut met);
        self.met_by_addresses(tables, groups, &mut met);
        for (addr, met) in met.iter().filter(|(addr, met)| !done.contains(*addr) && !met.is_empty()) {
            let (Stored::Pod(before) | Stored::Taken(before)) = tables.address(*addr)? else { continue };
            let after = self.lookup.classifier.with(before, met)?;
            if after != before {
                self.enter(after, change);
                self.leave(before, change)?;
                change.moves.insert(*addr, after);
            }
        }
        let of_prefixes = |group: &Questions| !group.blocks.is_empty() || group.unknown.is_some();
        if self.lookup.classifier.since(groups).iter().any(of_prefixes) {
            for (key, after) in self.lookup.prefixes(groups) {
                let before = match tables.prefix(&key)? {
                    Some(before) if before == after.class => continue,
                    before => before,
                };
                self.enter(after.class, change);
                if let Some(before) = before {
                    self.leave(before, change)?;
                }
                change.cidrs.insert(key, after);
            }
        }
        Some(())
    }

    fn met_by_pods(&mut self, model: &Model, tables: &impl InTables, groups: usize, met: &mut Met) -> Option<()> {
        for namespace in model.pod_namespaces() {
            let labels = model.namespace_labels(namespace);
            let groups = self.lookup.classifier.since(groups);
            if !groups.iter_mut().any(|group| group.concern(namespace, labels)) {
                continue;
            }
            for pod in model.pods_in(namespace).filter(|pod| !pod.owned_ips().is_empty()) {
                let mut own = Signature::new();
                groups.iter_mut().for_each(|group| group.met_by_pod(pod, labels, &mut own));
                if own.is_empty() || self.keys.contains(&pod.key) && is_attached(model, pod) {
                    continue;
                }
                for ip in owned(&ranges_of(model, pod), pod) {
                    let addr = ip.into();
                    if self.lookup.contested.contains_key(&addr) {
                        return None;
                    }
                    if matches!(tables.address(addr)?, Stored::Pod(_)) {
                        met.entry(addr).or_default().extend(&own);
                    }
                }
            }
        }
        // The first in a slot has an address.
        let mut seen = BTreeSet::new();
        for local in model.local().values() {
            let groups = self.lookup.classifier.since(groups);
            let mut own = Signature::new();
            match model.object_of(local) {
                Some(pod) => {
                    let labels = model.namespace_labels(&pod.key.namespace);
                    groups.iter_mut().for_each(|group| group.met_by_pod(pod, labels, &mut own));
                }
                None => own.extend(groups.iter().filter_map(|group| group.unknown)),
            }
            for addr in local.ips.iter().map(|ip| Addr::from(ip.to_canonical())) {
                if seen.insert(addr) {
                    met.entry(addr).or_default().extend(&own);
                }
            }
        }
        Some(())
    }

    fn met_by_nodes(&mut self, model: &Model, groups: usize, met: &mut Met) {
        let groups = self.lookup.classifier.since(groups);
        if !groups.iter().any(Questions::concern_nodes) {
            return;
        }
        let ranges = PodRanges::new(model.nodes(), &model.rules().pod_ranges);
        let mut named: HashMap<IpAddr, Vec<&Node>> = HashMap::new();
        for node in model.nodes() {
            ranges.addresses(node).for_each(|ip| named.entry(ip).or_default().push(node));
        }
        for (ip, nodes) in named {
            // An attached pod has its address before a node.
            if let Entry::Vacant(entry) = met.entry(ip.into()) {
                entry.insert(groups.iter().flat_map(|group| group.met_by_nodes(&nodes)).collect());
            }
        }
    }

    fn met_by_addresses(&mut self, tables: &impl InTables, groups: usize, met: &mut Met) {
        for group in self.lookup.classifier.since(groups).iter().filter(|group| !group.blocks.is_empty()) {
            for addr in tables.addresses() {
                let mut inside = group.blocks.met(IpAddr::from(addr).into()).peekable();
                if inside.peek().is_some() {
                    met.entry(addr).or_default().extend(inside);
                }
            }
        }
    }
}

fn is_attached(model: &Model, pod: &Pod) -> bool {
    model.local().values().any(|local| is_object_of(pod, local))
}
