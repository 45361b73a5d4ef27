//! A writer that is stopped after each word, and a reader that goes on.

use std::cell::Cell;
use std::vec::Vec;

use super::{check, copy};
use crate::tables::peer::Peer;
use crate::tables::policy::Row;
use crate::tables::service::{Affinity, Frontend, Scope};
use crate::tables::sock::Sender;
use crate::{Addr, WirePort};

/// Every order of the numbers below `n`.
fn orders(n: usize) -> Vec<Vec<usize>> {
    let Some(last) = n.checked_sub(1) else { return std::vec![Vec::new()] };
    let insert = |order: Vec<usize>, at: usize| {
        let mut order = order;
        order.insert(at, last);
        order
    };
    orders(last).into_iter().flat_map(|order| (0..n).map(move |at| insert(order.clone(), at))).collect()
}

/// Every way to do `loads` loads at moments of a writer that takes `stores` steps: how many it has taken at each load.
fn moments(loads: usize, stores: usize) -> Vec<Vec<usize>> {
    if loads == 0 {
        return std::vec![Vec::new()];
    }
    let earlier = moments(loads - 1, stores);
    let then = |before: Vec<usize>| {
        let first = before.last().copied().unwrap_or(0);
        (first..=stores).map(move |moment| {
            let mut all = before.clone();
            all.push(moment);
            all
        })
    };
    earlier.into_iter().flat_map(then).collect()
}

/// The element holds `values[0]`; the writer writes the others over it, one after the other and word by word, each in any
/// order. What a reader copies meanwhile is handed to `see`.
fn interleave<const N: usize>(values: &[[u64; N]], see: impl Fn([u64; N])) {
    let (first, later) = values.split_first().unwrap();
    let orders = orders(N);
    let moments = moments(N, N * later.len());
    for number in 0..orders.len().pow(later.len() as u32) {
        // The element at each moment.
        let mut states = std::vec![*first];
        for (turn, value) in later.iter().enumerate() {
            let order = &orders[number / orders.len().pow(turn as u32) % orders.len()];
            for &word in order {
                let mut next = *states.last().unwrap();
                next[word] = value[word];
                states.push(next);
            }
        }
        for moments in &moments {
            let loads = Cell::new(0);
            see(copy(|word| {
                let load = loads.replace(loads.get() + 1);
                states[moments[load]][word]
            }));
            assert_eq!(loads.get(), N, "each word is loaded once");
        }
    }
}

const OURS: u32 = 0x1234_5678;
const THEIRS: u32 = 0x9abc_def0;

fn frontend(n: u32) -> Frontend {
    let scope = |n| Scope::forward(n, 1);
    Frontend { tag: 0, service: n, internal: scope(n), external: scope(n + 1), affinity_seconds: n, flags: n + 2 }
}

#[test]
fn no_mixture_passes_for_a_value_even_if_the_element_comes_back_to_its_key() {
    let values = [frontend(1).sealed(OURS), frontend(5).sealed(THEIRS), frontend(9).sealed(OURS)];
    let seen = Cell::new((false, false));
    interleave::<4>(&values.map(|value| zerocopy::transmute!(value)), |words| {
        let copy: Frontend = zerocopy::transmute!(words);
        if copy.is_of(OURS) {
            assert!(copy == values[0] || copy == values[2], "{copy:?}");
            let (first, last) = seen.get();
            seen.set((first || copy == values[0], last || copy == values[2]));
        }
    });
    assert_eq!(seen.get(), (true, true), "what is whole is taken");
}

/// The same for a value that is overwritten once by another key's, and once by its own key's next.
macro_rules! never_mixed {
    ($($test:ident: $type:ident, $words:literal, $value:expr;)+) => {
        $(#[test]
        fn $test() {
            let value: fn(u32) -> $type = $value;
            for key in [THEIRS, OURS] {
                let values = [value(1).sealed(OURS), value(7).sealed(key)];
                interleave::<$words>(&values.map(|value| zerocopy::transmute!(value)), |words| {
                    let copy: $type = zerocopy::transmute!(words);
                    assert_eq!(copy.is_of(OURS), copy == values[0] || (key == OURS && copy == values[1]), "{copy:?}");
                });
            }
        })+
    };
}

never_mixed! {
    no_mixture_passes_for_a_peer: Peer, 2, |n| Peer { tag: 0, class: n, slot: n as u16, node: n as u16, flags: n };
    no_mixture_passes_for_a_row: Row, 5, |n| Row::new([1, 2, 3, 4].map(|word| u64::from(n) << word));
    no_mixture_passes_for_an_affinity: Affinity, 5,
        |n| Affinity {
            tag: 0,
            service: n,
            client: Addr { hi: n.into(), lo: n.into() },
            backend: n,
            generation: n,
            seen: n,
            pad: n,
        };
    no_mixture_passes_for_a_sender: Sender, 5,
        |n| {
            let (addr, port) = (Addr { hi: n.into(), lo: n.into() }, WirePort::from_bits(n as u16));
            Sender { tag: 0, backend_port: port, service_port: port, backend: addr, service: addr }
        };
}

#[test]
fn every_bit_of_a_value_and_of_its_key_counts() {
    let words = [0x0123_4567_89ab_cdef_u64, 0xfedc_ba98_7654_3210, 0x0f0f_f0f0_3c3c_c3c3];
    let whole = check(OURS, words);
    for bit in 0..192 {
        let mut other = words;
        other[bit / 64] ^= 1 << (bit % 64);
        // The first 32 bits are where the tag itself is.
        assert_eq!(check(OURS, other) == whole, bit < 32, "{bit}");
    }
    assert!((0..32).all(|bit| check(OURS ^ (1 << bit), words) != whole));
    // Two words that change in the same way do not make up for each other.
    for bit in 0..64 {
        let [a, b, c] = words;
        assert_ne!(check(OURS, [a, b ^ (1 << bit), c ^ (1 << bit)]), whole, "{bit}");
    }
}
