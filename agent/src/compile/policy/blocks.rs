//! Blocks of addresses, by their prefixes: who asks about an address is found among thousands in the time that a search takes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::Atom;

/// What a block says of the addresses of a prefix.
#[derive(Debug, Clone, Copy)]
struct Says {
    /// The block, by its place in the list that the table was made of.
    block: usize,
    /// Its number.
    number: usize,
    /// They are an exception of it.
    is_exception: bool,
}

/// A prefix of one or several blocks.
#[derive(Debug)]
struct Prefix {
    first: u128,
    last: u128,
    /// The next longer prefix that holds it, by its place.
    outer: Option<usize>,
    says: Vec<Says>,
}

/// What prefixes are sorted by: their first address, then their last one, the largest first.
type Key = (u128, Reverse<u128>);

/// Prefixes by family, sorted by their first address; of those that begin alike the shorter ones come first. So a prefix comes
/// after all that hold it, and those are found from one to the next.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    families: [Vec<Prefix>; 2],
}

/// The family, the first address and the last.
fn span(prefix: IpNetwork) -> (usize, u128, u128) {
    let (family, bits, len) = match prefix.ip() {
        IpAddr::V4(ip) => (0, u128::from(u32::from(ip)) << 96, prefix.prefix()),
        IpAddr::V6(ip) => (1, u128::from(ip), prefix.prefix()),
    };
    let rest = u128::MAX.checked_shr(len.into()).unwrap_or_default();
    (family, bits & !rest, bits | rest)
}

impl Blocks {
    /// Of atoms with their numbers; those that are no blocks are none.
    pub(super) fn new<'a, I: Iterator<Item = (&'a Atom, usize)>>(atoms: I) -> Self {
        let mut sorted: [BTreeMap<Key, Vec<Says>>; 2] = Default::default();
        for (block, (atom, number)) in atoms.enumerate() {
            let Atom::Block { cidr, except } = atom else { continue };
            let prefixes = except.iter().map(|prefix| (*prefix, true)).chain([(*cidr, false)]);
            for (prefix, is_exception) in prefixes {
                let (family, first, last) = span(prefix);
                if let Some(of_family) = sorted.get_mut(family) {
                    let says = of_family.entry((first, Reverse(last))).or_default();
                    says.push(Says { block, number, is_exception });
                }
            }
        }
        Self { families: sorted.map(nested) }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.families.iter().all(Vec::is_empty)
    }

    /// The numbers of the blocks that all addresses of a prefix are in which are in no longer prefix of any block.
    pub(super) fn met(&self, prefix: IpNetwork) -> impl Iterator<Item = usize> {
        let (family, first, last) = span(prefix);
        let prefixes = self.families.get(family).map_or(&[][..], Vec::as_slice);
        let before = prefixes.partition_point(|prefix| (prefix.first, Reverse(prefix.last)) <= (first, Reverse(last)));
        let mut at = before.checked_sub(1);
        let (mut met, mut excepted) = (Vec::new(), Vec::new());
        while let Some(prefix) = at.and_then(|at| prefixes.get(at)) {
            if prefix.last >= last {
                for says in &prefix.says {
                    if says.is_exception { excepted.push(says.block) } else { met.push((says.block, says.number)) }
                }
            }
            at = prefix.outer;
        }
        excepted.sort_unstable();
        met.into_iter().filter(move |(block, _)| excepted.binary_search(block).is_err()).map(|(_, number)| number)
    }
}

fn nested(sorted: BTreeMap<Key, Vec<Says>>) -> Vec<Prefix> {
    let mut prefixes: Vec<Prefix> = Vec::with_capacity(sorted.len());
    let mut around: Vec<usize> = Vec::new();
    for ((first, Reverse(last)), says) in sorted {
        while around.last().and_then(|at| prefixes.get(*at)).is_some_and(|outer| outer.last < first) {
            around.pop();
        }
        let outer = around.last().copied();
        around.push(prefixes.len());
        prefixes.push(Prefix { first, last, outer, says });
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::compile::policy::atom::testing::prefix;

    fn block() -> impl Strategy<Value = Atom> {
        let except = prop_oneof![3 => Just(0..1_usize), 1 => Just(0..4_usize)]
            .prop_flat_map(|n| prop::collection::btree_set(prefix(), n));
        (prefix(), except).prop_map(|(cidr, except)| Atom::Block { cidr, except })
    }

    proptest! {
        #[test]
        fn blocks_are_met_as_each_of_them_says(
            blocks in prop::collection::vec(block(), 0..24), asked in prop::collection::vec(prefix(), 24),
        ) {
            let table = Blocks::new(blocks.iter().zip(0..));
            let own = blocks.iter().flat_map(Atom::prefixes);
            for asked in asked.into_iter().chain(own) {
                let expected: BTreeSet<usize> =
                    blocks.iter().zip(0..).filter(|(block, _)| block.meets_prefix(asked)).map(|(_, n)| n).collect();
                let met: Vec<usize> = table.met(asked).collect();
                prop_assert_eq!(met.len(), expected.len(), "each once");
                prop_assert_eq!(met.into_iter().collect::<BTreeSet<_>>(), expected, "{}", asked);
                let ip = asked.ip();
                let met: BTreeSet<usize> = table.met(IpNetwork::from(ip)).collect();
                let expected = blocks.iter().zip(0..).filter(|(block, _)| block.meets_address(ip)).map(|(_, n)| n).collect();
                prop_assert_eq!(met, expected, "{}", ip);
            }
        }
    }
}
