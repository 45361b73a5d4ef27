//! The maps, a file for each concept, and [`Maps`], which lets the datapath read them.

/// The type of a map, whose key, value, size and flags are those of [`fairlead_datapath::tables`].
macro_rules! map_of {
    (LpmTrie, $table:ident) => {
        LpmTrie<
            [u8; size_of::<<catalog::$table as catalog::Table>::Key>() - size_of::<u32>()],
            <catalog::$table as catalog::Table>::Value,
            { <catalog::$table as catalog::Table>::ELEMENTS },
            { <catalog::$table as catalog::Table>::FLAGS },
        >
    };
    (HashMap, $table:ident) => { map_of!(@keyed HashMap, $table) };
    (LruHashMap, $table:ident) => { map_of!(@keyed LruHashMap, $table) };
    (PerCpuHashMap, $table:ident) => { map_of!(@keyed PerCpuHashMap, $table) };
    (@keyed $map:ident, $table:ident) => {
        $map<
            <catalog::$table as catalog::Table>::Key,
            <catalog::$table as catalog::Table>::Value,
            { <catalog::$table as catalog::Table>::ELEMENTS },
            { <catalog::$table as catalog::Table>::FLAGS },
        >
    };
    ($map:ident, $table:ident) => {
        $map<<catalog::$table as catalog::Table>::Value, { <catalog::$table as catalog::Table>::ELEMENTS }, { <catalog::$table as catalog::Table>::FLAGS }>
    };
}

mod dns;
mod flow;
mod peer;
mod policy;
mod service;
pub(crate) mod sock;

use fairlead_datapath::tables::reused;

pub(crate) use dns::{count_dns, dns_name, dns_zone};
pub(crate) use flow::{
    add, bandwidth, clear_bits, config, count_by_xdp, count_drop, count_drop_of, count_unsent, error_turn, host_flows,
    memory, pace, report, set_bits, swap_if, sweep, uplink, walk,
};
pub(crate) use policy::count_hit;

/// The words of a value, of which a reader has to ask whether they are its key's: see [`fairlead_datapath::tables::reused`].
#[inline(always)]
pub(crate) fn words<V, const N: usize>(value: *const V) -> [u64; N] {
    const { assert!(size_of::<V>() == N * size_of::<u64>()) };
    let words = value.cast::<u64>();
    // SAFETY: the pointer is a lookup's: a map's value is aligned to 8, has that many words, and stays mapped while the
    // program runs. Others may be writing to it, and every word is one load, whichever way it is used.
    reused::copy(|index| unsafe { core::ptr::read_volatile(words.add(index)) })
}

/// All maps of the object: what the datapath's table traits are implemented for.
#[derive(Clone, Copy)]
pub(crate) struct Maps;
