//! The rows of a policy set.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_datapath::policy::{ANY_PORT, OTHER_PROTOCOLS, PAGE_BITS, RULE_BITS};
use fairlead_objects::Protocol;

use super::numbers::Numbers;
use super::rules::{Body, Clause, SetInfo, Span};
use super::{Signature, content_hash};

/// Rules, a bit each, in pages of 256.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bits(Vec<[u64; 4]>);

impl Bits {
    fn of(count: usize, mut holds: impl FnMut(usize) -> bool) -> Self {
        let mut bits = Self(vec![[0; 4]; count.div_ceil(PAGE_BITS.into())]);
        (0..count).filter(|bit| holds(*bit)).for_each(|bit| bits.set(bit));
        bits
    }

    fn set(&mut self, bit: usize) {
        if let Some(word) = self.0.get_mut(bit / 256).and_then(|page| page.get_mut(bit % 256 / 64)) {
            *word |= 1 << (bit % 64);
        }
    }

    fn clear(&mut self, bit: usize) {
        if let Some(word) = self.0.get_mut(bit / 256).and_then(|page| page.get_mut(bit % 256 / 64)) {
            *word &= !(1 << (bit % 64));
        }
    }

    /// The pages.
    #[must_use]
    pub fn pages(&self) -> &[[u64; 4]] {
        &self.0
    }
}

/// A policy set without its id.
#[derive(Debug, Clone)]
pub struct PolicySet {
    /// What it stands for.
    pub info: SetInfo,
    /// Hash of what it was made of.
    pub content: u64,
    /// Rows by protocol and port, among them those for every port ([`ANY_PORT`]) of TCP, UDP, SCTP and
    /// [`OTHER_PROTOCOLS`]. Host order.
    pub ports: BTreeMap<(u8, u16), Bits>,
    /// Rows of blocks of ports by protocol, first port (host order) and bits of the port that count.
    pub ranges: BTreeMap<(u8, u16, u8), Bits>,
    /// Pages that the Admin tier fills.
    pub admin_pages: usize,
    /// What no rule decides on may pass.
    pub is_open: bool,
    count: usize,
    /// Rules that every peer meets.
    everybody: Vec<usize>,
    /// Rules by the numbers of the atoms of which a peer must meet one.
    any_of: BTreeMap<usize, Vec<usize>>,
    /// Rules by the number of the atom that a peer must meet besides.
    and: BTreeMap<usize, Vec<usize>>,
}

/// A span of so many ports is written out, one row each; a longer one goes to the table of ranges.
pub(super) const WRITTEN_OUT: u16 = 16;

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

impl PolicySet {
    pub(super) fn new(body: &Body, numbers: &Numbers) -> Self {
        let content = content_hash(body);
        let clauses = &body.clauses;
        let (mut everybody, mut any_of, mut and) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for (rule, clause) in clauses.iter().enumerate() {
            match &clause.peers {
                None => everybody.push(rule),
                Some(peers) => {
                    let met: BTreeSet<usize> = peers.iter().filter_map(|atom| numbers.of(atom)).collect();
                    met.into_iter().for_each(|atom| any_of.entry(atom).or_insert_with(Vec::new).push(rule));
                }
            }
            if let Some(atom) = &clause.and {
                // An atom that is not known is one that nobody meets.
                let atom = numbers.of(atom).unwrap_or(usize::MAX);
                and.entry(atom).or_insert_with(Vec::new).push(rule);
            }
        }
        Self {
            content,
            ports: port_rows(clauses),
            ranges: range_rows(clauses),
            count: clauses.len(),
            everybody,
            any_of,
            and,
            info: body.info.clone(),
            admin_pages: body.admin_pages,
            is_open: body.is_open,
        }
    }

    /// The rules of which a class meets one of the peers, and those of which it meets what is asked besides. Classes of which
    /// this is the same are one to the set.
    #[must_use]
    pub fn met(&self, signature: &Signature) -> [BTreeSet<usize>; 2] {
        [&self.any_of, &self.and]
            .map(|rules| signature.iter().filter_map(|atom| rules.get(atom)).flatten().copied().collect())
    }

    /// Pages that its rules fill.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.count.div_ceil(PAGE_BITS.into())
    }

    /// The row of a class. It takes time that grows with what the class meets, not with the rules that there are.
    #[must_use]
    pub fn peers(&self, signature: &Signature) -> Bits {
        let [any_of, met] = self.met(signature);
        let mut bits = Bits::of(self.count, |_| false);
        self.everybody.iter().copied().chain(any_of).for_each(|rule| bits.set(rule));
        self.and.values().flatten().filter(|rule| !met.contains(rule)).for_each(|rule| bits.clear(*rule));
        bits
    }

    /// The bits that deny or pass, whoever meets them: the second ones of pairs, see [`RULE_BITS`].
    #[must_use]
    pub fn closing(&self) -> Bits {
        let in_pairs = if self.is_open { self.count } else { self.admin_pages * usize::from(PAGE_BITS) };
        Bits::of(self.count, |bit| bit < in_pairs && bit % usize::from(RULE_BITS) != 0)
    }
}

fn bits(clauses: &[Clause], meets: impl Fn(&Span) -> bool) -> Bits {
    Bits::of(clauses.len(), |bit| {
        clauses.get(bit).is_some_and(|clause| clause.ports.as_ref().is_none_or(|spans| spans.iter().any(&meets)))
    })
}

fn every_port(clauses: &[Clause], protocol: Protocol) -> Bits {
    bits(clauses, |span| span.protocol == protocol && span.ports.is_none())
}

fn spans(clauses: &[Clause]) -> impl Iterator<Item = (Protocol, u16, u16)> {
    clauses
        .iter()
        .flat_map(|clause| clause.ports.iter().flatten())
        .filter_map(|span| span.ports.map(|(first, last)| (span.protocol, first, last)))
        .filter(|(_, first, last)| first <= last)
}

/// The ports of each clause, as spans that do not touch, so that each port of a clause is met once.
fn merged(
    clauses: &[Clause],
    protocol: Protocol,
    counts: impl Fn(u16, u16) -> bool,
) -> impl Iterator<Item = (usize, u16, u16)> {
    clauses.iter().enumerate().flat_map(move |(bit, clause)| {
        let spans =
            spans(std::slice::from_ref(clause)).filter(|(p, first, last)| *p == protocol && counts(*first, *last));
        let mut spans: Vec<_> = spans.map(|(_, first, last)| (first, last)).collect();
        spans.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::new();
        for (first, last) in spans {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        merged.into_iter().map(move |(first, last)| (bit, first, last))
    })
}

fn port_rows(clauses: &[Clause]) -> BTreeMap<(u8, u16), Bits> {
    let mut rows = BTreeMap::from([((OTHER_PROTOCOLS, ANY_PORT.number()), bits(clauses, |_| false))]);
    for protocol in PROTOCOLS {
        let (number, every) = (protocol.number(), every_port(clauses, protocol));
        rows.insert((number, ANY_PORT.number()), every.clone());
        let written = spans(clauses).filter(|(p, first, last)| *p == protocol && last - first < WRITTEN_OUT);
        for port in written.flat_map(|(_, first, last)| first..=last).collect::<BTreeSet<_>>() {
            rows.insert((number, port), every.clone());
        }
        for (bit, first, last) in merged(clauses, protocol, |_, _| true) {
            rows.range_mut((number, first)..=(number, last)).for_each(|(_, bits)| bits.set(bit));
        }
        rows.insert((number, ANY_PORT.number()), every);
    }
    rows
}

fn range_rows(clauses: &[Clause]) -> BTreeMap<(u8, u16, u8), Bits> {
    let mut rows = BTreeMap::new();
    let is_long = |first, last| last - first >= WRITTEN_OUT;
    for protocol in PROTOCOLS {
        let every = every_port(clauses, protocol);
        let long = spans(clauses).filter(|(p, first, last)| *p == protocol && is_long(*first, *last));
        // Between two neighbours in here nothing changes but at ports that have a row of their own.
        let edges: BTreeSet<u32> = long.flat_map(|(_, first, last)| [first.into(), u32::from(last) + 1]).collect();
        let mut stretches: BTreeMap<u32, (u32, Bits)> =
            edges.iter().zip(edges.iter().skip(1)).map(|(first, end)| (*first, (*end, every.clone()))).collect();
        for (bit, first, last) in merged(clauses, protocol, is_long) {
            stretches.range_mut(u32::from(first)..=last.into()).for_each(|(_, (_, bits))| bits.set(bit));
        }
        for (first, (end, bits)) in stretches.into_iter().filter(|(_, (_, bits))| *bits != every) {
            for (block, len) in blocks(first, end) {
                rows.insert((protocol.number(), block, len), bits.clone());
            }
        }
    }
    rows
}

/// The aligned blocks that make up the ports from the first to before the end: (first port, bits that count).
pub(super) fn blocks(mut first: u32, end: u32) -> Vec<(u16, u8)> {
    let mut blocks = Vec::new();
    while first < end {
        let aligned = first.trailing_zeros().min(16);
        let fitting = (end - first).ilog2();
        let size = aligned.min(fitting);
        blocks.push((first as u16, (16 - size) as u8));
        first += 1 << size;
    }
    blocks
}
