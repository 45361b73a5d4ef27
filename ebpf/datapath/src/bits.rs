//! Bits of words.

/// The place of the lowest bit of a word that has one: as many as are below it. The target has no instruction for it. The compiler's
/// own way looks it up in a table, at a place that the verifier follows to where the word comes from, and walks what is behind once
/// for each case that it finds there; branches would do the same.
#[inline(always)]
pub(crate) const fn lowest_bit(word: u64) -> u32 {
    let mut below = (word & word.wrapping_neg()).wrapping_sub(1);
    below -= (below >> 1) & 0x5555_5555_5555_5555;
    below = (below & 0x3333_3333_3333_3333) + ((below >> 2) & 0x3333_3333_3333_3333);
    below = (below + (below >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    (below.wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32
}

#[cfg(test)]
mod tests {
    use super::lowest_bit;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_lowest_bit_is_found(word in 1_u64.., below in 0_u32..64) {
            prop_assert_eq!(lowest_bit(word), word.trailing_zeros());
            prop_assert_eq!(lowest_bit(u64::MAX << below), below);
        }
    }
}
