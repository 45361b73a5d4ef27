//! What a policy set asks of the tables, known before anything is compiled for it.

use std::collections::BTreeSet;

use fairlead_datapath::policy::PAGE_BITS;
use fairlead_objects::Protocol;
use ipnetwork::IpNetwork;

use super::Atom;
use super::rules::{Body, Span};
use super::set::{WRITTEN_OUT, blocks};

/// What a policy set needs, whatever else is in the tables. It is counted in time that grows with the policies' text, so
/// that what is far too large is known without compiling it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand<'a> {
    /// Rules, a bit each.
    pub rules: usize,
    /// Rows of `POLICY_PORTS`.
    pub ports: usize,
    /// Rows of `POLICY_RANGES`, at most.
    pub ranges: usize,
    /// What it asks about peers.
    pub atoms: BTreeSet<&'a Atom>,
    /// Prefixes that it names.
    pub prefixes: BTreeSet<IpNetwork>,
}

/// Rows of `POLICY_PORTS` and of `POLICY_RANGES` that a set needs at most.
pub(super) fn body_rows(body: &Body) -> [usize; 2] {
    let clauses = &body.clauses;
    let pages = clauses.len().div_ceil(PAGE_BITS.into());
    let spans = || clauses.iter().flat_map(|clause| clause.ports.iter().flatten());
    let mut written: BTreeSet<(Protocol, u16)> = BTreeSet::new();
    let mut edges: BTreeSet<(Protocol, u32)> = BTreeSet::new();
    for Span { protocol, ports } in spans() {
        match ports {
            Some((first, last)) if first <= last && last - first < WRITTEN_OUT => {
                written.extend((*first..=*last).map(|port| (*protocol, port)));
            }
            Some((first, last)) if first <= last => {
                edges.extend([u32::from(*first), u32::from(*last) + 1].map(|edge| (*protocol, edge)));
            }
            _ => {}
        }
    }
    let neighbours = edges.iter().zip(edges.iter().skip(1)).filter(|((a, _), (b, _))| a == b);
    let ranges: usize = neighbours.map(|((_, first), (_, end))| blocks(*first, *end).len()).sum();
    // Besides single ports a row for every port of TCP, UDP and SCTP, and one for other protocols.
    [(4 + written.len()) * pages, ranges * pages]
}

impl<'a> Demand<'a> {
    pub(super) fn of(body: &'a Body) -> Self {
        let clauses = &body.clauses;
        let [ports, ranges] = body_rows(body);
        let atoms: BTreeSet<_> =
            clauses.iter().flat_map(|clause| clause.peers.iter().flatten().chain(&clause.and)).collect();
        Self {
            rules: clauses.len(),
            ports,
            ranges,
            prefixes: atoms.iter().flat_map(|atom| atom.prefixes()).collect(),
            atoms,
        }
    }
}
