//! The search for a free port.

use super::find_in;
use crate::tables::port::PortSet;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_port_that_is_found_is_free_and_near(taken in prop::collection::vec(any::<u64>(), 1024), from: u16, random: u32) {
        let set = PortSet::default();
        for (word, bits) in set.words.iter().zip(&taken) {
            word.store(*bits);
        }
        match find_in(&set, 0, from, random) {
            Some(port) => {
                let (word, bit) = set.place(port).unwrap();
                prop_assert_eq!(word.load() & bit, 0);
                prop_assert!((port >> 6).wrapping_sub(from >> 6) & 1023 < 32);
            }
            None => prop_assert!((0..32).all(|step| taken[usize::from((from >> 6) + step) & 1023] == u64::MAX)),
        }
    }

    #[test]
    fn the_only_free_port_is_found_from_wherever_it_is_near(free: u16, back in 0_u16..32, random: u32) {
        let set = PortSet::default();
        set.words.iter().for_each(|word| word.store(u64::MAX));
        let (word, bit) = set.place(free).unwrap();
        word.store(!bit);
        let from = ((free >> 6).wrapping_sub(back) & 1023) << 6;
        prop_assert_eq!(find_in(&set, 0, from, random), Some(free));
    }
}
