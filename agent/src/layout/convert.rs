//! Elements of one layout to elements of another: what both have by the same name is taken over, what only the new one has
//! gets its default, what only the old one has is dropped.

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

/// A field that both have.
#[derive(Debug, Clone)]
struct Move {
    from: (usize, usize),
    to: (usize, usize),
    bits: Option<Bits>,
}

/// Bits of which some are in another place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bits {
    /// Where they were, and where they are now.
    known: Vec<(u64, u64)>,
    /// Those of the word that have no name on either side.
    unnamed: u64,
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
        Some((self.key.convert(key)?, self.value.convert(value)?))
    }

    /// The value alone.
    #[must_use]
    pub fn value(&self, value: &[u8]) -> Option<Vec<u8>> {
        self.value.convert(value)
    }

    /// The key alone.
    #[must_use]
    pub fn key(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.key.convert(key)
    }
}

impl Part {
    fn new(from: &[Field], to: &[Field], blank: Vec<u8>) -> Self {
        let both = to.iter().filter_map(|to| Some((from.iter().find(|from| from.name == to.name)?, to)));
        let moves = both.map(|(from, to)| Move {
            from: (from.offset, from.size),
            to: (to.offset, to.size),
            bits: Bits::new(&from.bits, &to.bits),
        });
        Self { blank, moves: moves.collect() }
    }

    fn convert(&self, from: &[u8]) -> Option<Vec<u8>> {
        let mut made = self.blank.clone();
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
        Some(made)
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
        let known = to.iter().filter(|(_, mask)| single(to, *mask)).filter_map(|(name, to_mask)| {
            let (_, from_mask) = from.iter().find(|(other, _)| other == name)?;
            Some((*from_mask, *to_mask))
        });
        Some(Self { known: known.collect(), unnamed: !(named(from) | named(to)) })
    }

    fn convert(&self, word: u64) -> u64 {
        self.known.iter().fold(word & self.unnamed, |made, (from, to)| made | spread(gather(word, *from), *to))
    }
}

/// The bits of a word that are in a mask, side by side.
fn gather(word: u64, mask: u64) -> u64 {
    places(mask).enumerate().fold(0, |made, (at, place)| made | ((word >> place) & 1) << at)
}

/// The reverse. What has no place is lost.
fn spread(word: u64, mask: u64) -> u64 {
    places(mask).enumerate().fold(0, |made, (at, place)| made | ((word >> at) & 1) << place)
}

fn places(mask: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |place| mask >> place & 1 != 0)
}
