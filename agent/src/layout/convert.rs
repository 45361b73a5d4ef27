//! Elements of one layout to elements of another: what both have by the same name is taken over, what only the new one has
//! gets its default, what only the old one has is dropped.

use std::collections::BTreeMap;

use super::{Field, Layout};

/// What is done with every element of a table.
#[derive(Debug, Clone)]
pub struct Converter {
    key: Part,
    value: Part,
}

/// What is done with a key or with a value.
#[derive(Debug, Clone)]
struct Part {
    /// What it is before anything is taken over.
    blank: Vec<u8>,
    moves: Vec<Move>,
}

/// A field that both have, or several that are side by side on both sides.
#[derive(Debug, Clone)]
struct Move {
    from: (usize, usize),
    to: (usize, usize),
    bits: Option<Bits>,
}

/// Bits of which some are in another place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bits {
    /// Those that move alike: where they were, and by how much they move up, or down.
    moves: Vec<(u64, i32)>,
}

impl Converter {
    /// From one layout to another, whose keys and values have `blank` where the first says nothing: of their full size.
    ///
    /// # Errors
    /// The keys have nothing in common, or a field lies beyond the blank.
    pub fn new(from: &Layout, to: &Layout, blank: (Vec<u8>, Vec<u8>)) -> Result<Self, String> {
        let this =
            Self { key: Part::new(&from.key, &to.key, blank.0), value: Part::new(&from.value, &to.value, blank.1) };
        if !to.key.is_empty() && this.key.moves.is_empty() {
            return Err("its keys have no field in common with this agent's".to_owned());
        }
        let fits = |part: &Part| part.moves.iter().all(|step| step.to.0 + step.to.1 <= part.blank.len());
        if fits(&this.key) && fits(&this.value) { Ok(this) } else { Err("a field lies beyond its end".to_owned()) }
    }

    /// An element. `None`: a number does not fit where it goes, or the element is shorter than its layout says.
    #[must_use]
    pub fn convert(&self, key: &[u8], value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        Some((self.key(key)?, self.value(value)?))
    }

    /// The value alone.
    #[must_use]
    pub fn value(&self, value: &[u8]) -> Option<Vec<u8>> {
        let mut made = self.value.blank.clone();
        self.value.put(value, &mut made).map(|()| made)
    }

    /// The key alone.
    #[must_use]
    pub fn key(&self, key: &[u8]) -> Option<Vec<u8>> {
        let mut made = self.key.blank.clone();
        self.key.put(key, &mut made).map(|()| made)
    }

    /// Adds an element to lists of keys and of values, and gives what was added. `None`, and nothing is added, as
    /// [`Self::convert`].
    pub fn add<'a>(
        &self,
        (key, value): (&[u8], &[u8]),
        (keys, values): (&'a mut Vec<u8>, &'a mut Vec<u8>),
    ) -> Option<(&'a [u8], &'a mut [u8])> {
        let (keys_before, values_before) = (keys.len(), values.len());
        keys.extend_from_slice(&self.key.blank);
        values.extend_from_slice(&self.value.blank);
        let put = keys.get_mut(keys_before..).and_then(|made| self.key.put(key, made));
        let put = put.and_then(|()| values.get_mut(values_before..).and_then(|made| self.value.put(value, made)));
        if put.is_none() {
            keys.truncate(keys_before);
            values.truncate(values_before);
            return None;
        }
        Some((keys.get(keys_before..)?, values.get_mut(values_before..)?))
    }
}

impl Part {
    fn new(from: &[Field], to: &[Field], blank: Vec<u8>) -> Self {
        let both = to.iter().filter_map(|to| Some((from.iter().find(|from| from.name == to.name)?, to)));
        let mut fields: Vec<_> = both
            .map(|(from, to)| Move {
                from: (from.offset, from.size),
                to: (to.offset, to.size),
                bits: Bits::new(&from.bits, &to.bits),
            })
            .collect();
        fields.sort_by_key(|field| field.to);
        let mut moves: Vec<Move> = Vec::new();
        for field in fields {
            match moves.last_mut().filter(|last| last.goes_on_with(&field)) {
                Some(last) => (last.from.1, last.to.1) = (last.from.1 + field.from.1, last.to.1 + field.to.1),
                None => moves.push(field),
            }
        }
        Self { blank, moves }
    }

    /// Puts what `from` says where it belongs.
    fn put(&self, from: &[u8], made: &mut [u8]) -> Option<()> {
        for Move { from: (begin, size), to: (to, room), bits } in &self.moves {
            let taken = from.get(*begin..begin + size)?;
            let place = made.get_mut(*to..to + room)?;
            match bits {
                Some(bits) => {
                    let word = bits.convert(word(taken)?).to_le_bytes();
                    put(word.get(..(*size).max(*room).min(word.len()))?, place)?;
                }
                None => put(taken, place)?,
            }
        }
        Some(())
    }
}

impl Move {
    /// Whether the next field can be moved with this one.
    fn goes_on_with(&self, next: &Self) -> bool {
        let same = |step: &Self| step.bits.is_none() && step.from.1 == step.to.1;
        let adjacent = (self.from.0 + self.from.1, self.to.0 + self.to.1) == (next.from.0, next.to.0);
        same(self) && same(next) && adjacent
    }
}

/// Puts bytes in a place that may be larger, or smaller if it is zero that goes: numbers have their lowest byte first, and
/// lists grow at their end.
fn put(taken: &[u8], place: &mut [u8]) -> Option<()> {
    let both = taken.len().min(place.len());
    let (kept, lost) = taken.split_at(both);
    if lost.iter().any(|byte| *byte != 0) {
        return None;
    }
    let (filled, rest) = place.split_at_mut(both);
    filled.copy_from_slice(kept);
    rest.fill(0);
    Some(())
}

fn word(bytes: &[u8]) -> Option<u64> {
    let mut word = [0; 8];
    word.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(word))
}

impl Bits {
    /// None where nothing moves, or where one side says nothing of bits.
    fn new(from: &[(String, u64)], to: &[(String, u64)]) -> Option<Self> {
        if from == to || from.is_empty() || to.is_empty() {
            return None;
        }
        let named = |bits: &[(String, u64)]| bits.iter().fold(0, |all, (_, mask)| all | mask);
        // A name for several that have names is no place of its own.
        let single = |bits: &[(String, u64)], mask: u64| {
            let parts = bits.iter().filter(|(_, part)| *part != mask && part & mask == *part);
            parts.fold(0, |all, (_, part)| all | part) != mask
        };
        let mut moves: BTreeMap<i32, u64> = BTreeMap::from([(0, !(named(from) | named(to)))]);
        for (name, to_mask) in to.iter().filter(|(_, mask)| single(to, *mask)) {
            let Some((_, from_mask)) = from.iter().find(|(other, _)| other == name) else { continue };
            // Of groups the lowest bit is the lowest one.
            for (from, to) in places(*from_mask).zip(places(*to_mask)) {
                *moves.entry(to.cast_signed() - from.cast_signed()).or_default() |= 1 << from;
            }
        }
        Some(Self { moves: moves.into_iter().map(|(up, mask)| (mask, up)).collect() })
    }

    fn convert(&self, word: u64) -> u64 {
        self.moves.iter().fold(0, |made, (mask, up)| {
            let bits = word & mask;
            made | if *up < 0 { bits >> up.unsigned_abs() } else { bits << up.unsigned_abs() }
        })
    }
}

fn places(mask: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |place| mask >> place & 1 != 0)
}
