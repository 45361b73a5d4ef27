//! Who comes first when a table is short: namespaces that need no more than their share of it.
//!
//! The share of a namespace is a table's size, divided by the namespaces whose policies judge pods of this node. What all
//! of those ask for that need no more fits together, so none of them is ever cut off because of another namespace. What
//! a namespace needs does not depend on what is in the tables, so asking again gives the same answer.
//!
//! Rows of `POLICY_PEERS` are no such sum: what one namespace asks about peers splits the classes that the rules of the
//! others are written for. Where these rows are short, namespaces within their share come one after the other, the one
//! that needs least first, so the product is charged to the one that needs more.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;

use super::Capacity;
use super::rows::Rows;
use crate::compile::policy::{Atom, Demand, Draft, Wanted};

/// What a namespace asks of the tables.
#[derive(Debug, Default)]
struct Need<'a> {
    sets: usize,
    ports: usize,
    ranges: usize,
    prefixes: BTreeSet<IpNetwork>,
    atoms: BTreeSet<&'a Atom>,
}

impl<'a> Need<'a> {
    fn add(&mut self, demand: &Demand<'a>) {
        self.sets += 1;
        self.ports += demand.ports;
        self.ranges += demand.ranges;
        self.prefixes.extend(&demand.prefixes);
        self.atoms.extend(&demand.atoms);
    }

    fn is_within(&self, share: &Capacity) -> bool {
        self.sets <= share.sets
            && self.ports <= share.port_rows
            && self.ranges <= share.range_rows
            && self.prefixes.len() <= share.cidrs
            && self.atoms.len() <= share.atoms
    }
}

/// The namespaces whose policies judge pods of this node, and which of them need no more than their share.
#[derive(Debug)]
pub(super) struct Shares<'a> {
    draft: &'a Draft<'a>,
    /// What each of them may have.
    pub(super) share: Capacity,
    within: BTreeSet<&'a str>,
}

impl<'a> Shares<'a> {
    /// A set that has too many rules never gets a place, and does not count.
    pub(super) fn new(draft: &'a Draft<'a>, demands: &[Demand<'a>], capacity: &Capacity) -> Self {
        let mut needs: BTreeMap<&str, Need<'_>> = BTreeMap::new();
        for (set, demand) in demands.iter().enumerate().filter(|(_, demand)| demand.rules <= capacity.rules) {
            needs.entry(draft.namespace(set)).or_default().add(demand);
        }
        let share = capacity.share(needs.len(), draft.node_prefixes().collect::<BTreeSet<_>>().len());
        let within = needs.iter().filter(|(_, need)| need.is_within(&share)).map(|(namespace, _)| *namespace).collect();
        Self { draft, share, within }
    }

    /// The sets in this order, but those of namespaces within their share first.
    pub(super) fn first(&self, order: &[usize]) -> Vec<usize> {
        let mut order = order.to_vec();
        order.sort_by_key(|set| !self.within.contains(self.draft.namespace(*set)));
        order
    }

    /// The same where rows of `POLICY_PEERS` are short. `wanted` has the sets `kept` in this order, among them all of
    /// namespaces within their share.
    pub(super) fn first_by_rows(&self, order: &[usize], kept: &[usize], wanted: &Wanted) -> Vec<usize> {
        let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (place, set) in kept.iter().enumerate() {
            places.entry(self.draft.namespace(*set)).or_default().push(place);
        }
        places.retain(|namespace, _| self.within.contains(namespace));
        // Classes count too: those in which only other sets differ have no row here.
        let needs: BTreeMap<&str, (usize, usize)> = places
            .into_iter()
            .map(|(namespace, places)| (namespace, Rows::of(wanted, &places)))
            .filter(|(_, rows)| rows.count() <= self.share.peer_rows)
            .map(|(namespace, rows)| (namespace, (rows.count() + rows.classes(), rows.count())))
            .collect();
        let mut order = order.to_vec();
        order.sort_by_key(|set| {
            let namespace = self.draft.namespace(*set);
            needs.get(namespace).map_or((true, None), |need| (false, Some((*need, namespace))))
        });
        order
    }
}
