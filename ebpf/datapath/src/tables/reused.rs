//! Values whose element may be reused under a reader.
//!
//! The kernel gives an element of a hash that was deleted, evicted or replaced to the next key at once
//! (kernel/bpf/hashtab.c), while a program on another CPU may still be reading it by the old one. It copies key and value
//! with `memcpy`, whose order is nobody's promise, and on arm64 neither these stores nor the reader's loads are ordered
//! (BPF has no load-acquire before Linux 6.15). So no order of reading proves anything, and a second lookup does not either:
//! the element may have come back to the same key meanwhile.
//!
//! What proves it is the value itself: its first word, the *tag*, is a check of its key and of all its other content. A
//! reader copies the value, the tag last ([`copy`]), and asks of the copy whether it is that of its key (`is_of`). A copy of
//! which any word is of another write has a tag that does not fit, except once in four thousand million times.

/// Copies a value of `N` words out of an element. Each word is loaded once; the first, which has the tag, last: then on a
/// CPU that keeps loads and stores in order a reused element is mostly seen by its tag alone.
#[inline(always)]
pub fn copy<const N: usize>(load: impl Fn(usize) -> u64) -> [u64; N] {
    let mut words = [0; N];
    let mut rest = N;
    while rest > 0 {
        rest -= 1;
        if let Some(word) = words.get_mut(rest) {
            *word = load(rest);
        }
    }
    words
}

/// The check of a key's tag and of a value but for its first 32 bits.
#[inline(always)]
#[must_use]
pub const fn check<const N: usize>(key: u32, words: [u64; N]) -> u32 {
    let mut sum = mixed(words[0] & !0xffff_ffff | key as u64);
    let mut index = 1;
    while index < N {
        sum = mixed(sum ^ words[index]);
        index += 1;
    }
    sum as u32
}

/// Spreads each bit of a word over both its halves: a multiplication carries them up, the shift brings them down.
#[inline(always)]
pub(super) const fn mixed(word: u64) -> u64 {
    let product = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}

/// Gives values a tag.
macro_rules! tagged {
    ($($value:ident, of $words:literal words;)+) => {
        $(impl $value {
            /// The value with the tag that it has under a key with this tag.
            #[inline(always)]
            #[must_use]
            pub fn sealed(self, key: u32) -> Self {
                Self { tag: $crate::tables::reused::check::<$words>(key, zerocopy::transmute!(self)), ..self }
            }

            /// Whether a copy is the value of a key with this tag, and of one write: see [`crate::tables::reused`].
            #[inline(always)]
            #[must_use]
            pub fn is_of(&self, key: u32) -> bool {
                self.tag == $crate::tables::reused::check::<$words>(key, zerocopy::transmute!(*self))
            }
        }

        const _: () = assert!(core::mem::offset_of!($value, tag) == 0, "the tag is the first word");)+
    };
}
pub(crate) use tagged;

#[cfg(test)]
mod tests;
