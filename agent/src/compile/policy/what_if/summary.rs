//! What changes, for a person: ends to which the same happens together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::ends::End;
use super::{Change, Family, Traffic};

/// What a change opens or closes between some ends and others: the same traffic between each of these and each of those.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// It is opened, not closed.
    pub opens: bool,
    /// Who opens the connections: pods, nodes with `node/` before their name, and networks.
    pub from: BTreeSet<String>,
    /// Whom they are opened to.
    pub to: BTreeSet<String>,
    /// The traffic; with the family where it is of one alone.
    pub traffic: Vec<(Option<Family>, Traffic)>,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.protocol, self.first, self.last) {
            (None, ..) => f.write_str("protocols without ports"),
            (Some(protocol), 1, u16::MAX) => write!(f, "{protocol}"),
            (Some(protocol), first, last) if first == last => write!(f, "{protocol} {first}"),
            (Some(protocol), first, last) => write!(f, "{protocol} {first}-{last}"),
        }
    }
}

impl Difference {
    /// The traffic in words.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for family in [None, Some(Family::V4), Some(Family::V6)] {
            let of = || self.traffic.iter().filter(|(of, _)| *of == family).map(|(_, traffic)| traffic);
            let before = match family {
                None => "",
                Some(Family::V4) => "IPv4 ",
                Some(Family::V6) => "IPv6 ",
            };
            if of().count() == 4
                && of().all(|traffic| traffic.protocol.is_none() || (traffic.first, traffic.last) == (1, 65_535))
            {
                words.push(format!("{before}everything"));
            } else {
                words.extend(of().map(|traffic| format!("{before}{traffic}")));
            }
        }
        words
    }
}

/// Traffic with its family, where it is of one alone.
type Stretches = Vec<(Option<Family>, Traffic)>;

/// What is found of pairs of ends, by their places.
pub(super) fn of(ends: &[End<'_>], found: BTreeMap<(usize, usize), [Option<Change>; 2]>) -> Vec<Difference> {
    let mut by_receiver: BTreeMap<(bool, Stretches, &BTreeSet<String>), BTreeSet<String>> = BTreeMap::new();
    for ((from, to), change) in found {
        for (place, opens) in [(0, true), (1, false)] {
            let traffic = both(change.each_ref().map(|change| change.as_ref().map(|change| &change[place])));
            if !traffic.is_empty() {
                let senders = by_receiver.entry((opens, traffic, &ends[to].names)).or_default();
                senders.extend(ends[from].names.iter().cloned());
            }
        }
    }
    let mut by_sender: BTreeMap<(bool, BTreeSet<String>, Stretches), BTreeSet<String>> = BTreeMap::new();
    for ((opens, traffic, to), from) in by_receiver {
        by_sender.entry((opens, from, traffic)).or_default().extend(to.iter().cloned());
    }
    let difference = |((opens, from, traffic), to)| Difference { opens, from, to, traffic };
    by_sender.into_iter().map(difference).collect()
}

/// The traffic of both families: without a family what is the same in both, or where there is one.
fn both(families: [Option<&Vec<Traffic>>; 2]) -> Stretches {
    let [v4, v6] = families;
    let list = |family: Option<Family>, of: Option<&Vec<Traffic>>| {
        of.into_iter().flatten().map(|traffic| (family, *traffic)).collect::<Vec<_>>()
    };
    match (v4, v6) {
        (Some(v4), Some(v6)) if v4 == v6 => list(None, Some(v4)),
        (Some(_), Some(_)) => [list(Some(Family::V4), v4), list(Some(Family::V6), v6)].concat(),
        (of, None) | (None, of) => list(None, of),
    }
}
