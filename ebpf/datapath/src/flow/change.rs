//! The words of an entry that packets change. The entry may have become another flow's at any moment; then nothing is changed.

use crate::Long;
use crate::kernel::Kernel;
use crate::tables::flow::{Entry, Owned, TaggedKey};

/// Sets and clears bits of a word of the flow that has the key with this tag.
#[inline(always)]
pub(super) fn alter<K: Kernel>(k: &K, word: &Long, owner: u32, set: u32, clear: u32) {
    // Again if another CPU was faster. A flow has few packets at a time that change it.
    for _ in 0..4 {
        let old = word.load();
        let new = Owned::word((old as u32 & !clear) | set, owner);
        if (old >> 32) as u32 != owner || new == old || k.swap_if(word, old, new) {
            return;
        }
    }
}

/// Gives a word a value. If another CPU does so at the same time, one of the two stays.
#[inline(always)]
pub fn put<K: Kernel>(k: &K, word: &Long, owner: u32, value: u32) {
    let old = word.load();
    if (old >> 32) as u32 == owner {
        k.swap_if(word, old, Owned::word(value, owner));
    }
}

/// Claims an entry of a key. False if another CPU has, or it is another key's by now.
#[inline(always)]
pub(super) fn claim<K: Kernel>(k: &K, key: &TaggedKey, entry: &Entry) -> bool {
    let owner = key.tag();
    k.swap_if(&entry.claim, Owned::word(0, owner), Owned::word(1, owner))
}

/// Gives a claim up.
#[inline(always)]
pub(super) fn release<K: Kernel>(k: &K, key: &TaggedKey, entry: &Entry) {
    let owner = key.tag();
    k.swap_if(&entry.claim, Owned::word(1, owner), Owned::word(0, owner));
}
