//! Addresses that come into question when pods come, change and go.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fairlead_datapath::Addr;
use fairlead_objects::Pod;

/// What changes about addresses, before it is known what comes of it.
#[derive(Debug, Default)]
pub(super) struct Turn<'a> {
    /// By how many pods that are not attached more or less each is claimed now.
    claims: BTreeMap<Addr, isize>,
    /// Who claims them, of pods that have come or changed.
    claimants: HashMap<Addr, Vec<&'a Pod>>,
    /// Those of attached pods that came, changed or went.
    touched: BTreeSet<Addr>,
    /// The slots of attached pods by address, if anything is so.
    slots: HashMap<Addr, u16>,
}

impl<'a> Turn<'a> {
    /// A pod claims these from now on, or does so no more.
    pub(super) fn claim(&mut self, addrs: impl Iterator<Item = Addr>, pod: &'a Pod, comes: bool) {
        for addr in addrs {
            *self.claims.entry(addr).or_default() += if comes { 1 } else { -1 };
            if comes {
                self.claimants.entry(addr).or_default().push(pod);
            }
        }
    }

    /// An attached pod has these, or had them.
    pub(super) fn touch(&mut self, addrs: impl Iterator<Item = Addr>) {
        self.touched.extend(addrs);
    }

    /// The attached pod in a slot has an address. The first has it.
    pub(super) fn attach(&mut self, addr: Addr, slot: u16) {
        self.slots.entry(addr).or_insert(slot);
    }

    /// The addresses, each with by how many more pods it is claimed now.
    pub(super) fn addresses(&mut self) -> Vec<(Addr, isize)> {
        for addr in &self.touched {
            self.claims.entry(*addr).or_default();
        }
        self.claims.iter().map(|(addr, more)| (*addr, *more)).collect()
    }

    pub(super) fn is_touched(&self, addr: Addr) -> bool {
        self.touched.contains(&addr)
    }

    pub(super) fn slot(&self, addr: Addr) -> Option<u16> {
        self.slots.get(&addr).copied()
    }

    /// Who claims an address, of those that came or changed.
    pub(super) fn claimants(&self, addr: Addr) -> &[&'a Pod] {
        self.claimants.get(&addr).map_or(&[], Vec::as_slice)
    }
}
