//! A reader of an entry, and writers that are at every point of theirs.

use std::vec::Vec;

use super::{Entry, Flow, OTHER, WORDS};
use crate::tables::flow::FlowFlags;
use crate::{Addr, Long, Tuple, WirePort};

const OURS: u32 = 0x1234_5678;
const THEIRS: u32 = 0x9abc_def0;

/// An entry whose every word tells it from those of other numbers.
fn flow(n: u32, flags: u32, key: u32) -> Flow {
    let addr = |n: u32| Addr { hi: n.into(), lo: (n << 8).into() };
    let mut flow = Flow { flags, backend: n, service: n, opened: n, isn: n, seen: n.into(), ..Flow::new() };
    flow.other =
        Tuple { src: addr(n), dst: addr(n + 1), sport: WirePort::new(n as u16), dport: WirePort::new(2), pad: 0 };
    (flow.opener.slot, flow.responder.slot) = (n as u16, n as u16);
    for word in [&mut flow.state, &mut flow.opener_epoch, &mut flow.responder_epoch, &mut flow.generation] {
        word.value = n;
    }
    flow.seal(key);
    flow
}

fn words(flow: Flow) -> [u64; WORDS] {
    zerocopy::transmute!(flow)
}

/// What is read of an element that has some words of one flow and the others of another.
fn read(words: [u64; WORDS], key: u32) -> Option<Flow> {
    let entry: Entry = zerocopy::transmute!(words);
    let mut copy = Flow::new();
    entry.read(key, &mut copy).then_some(copy)
}

#[test]
fn what_is_whole_is_read_and_says_what_was_written() {
    for flags in [0, FlowFlags::FAR, FlowFlags::NEAR] {
        let flow = flow(7, flags, OURS);
        let copy = read(words(flow), OURS).unwrap();
        assert_eq!((copy.backend, copy.opener, copy.state, copy.seen), (7, flow.opener, flow.state, 7));
        let other = if flags == 0 { Tuple::NONE } else { flow.other };
        assert_eq!(copy.other, other, "the other tuple is of what is translated alone");
        assert_eq!(read(words(flow), THEIRS), None);
    }
}

#[test]
fn no_mixture_of_two_entries_passes_for_one() {
    // Each of the words that a walk takes from an entry, from either of two: 2^14 mixtures. `seen` says nothing by which
    // anything is decided but whether it has expired, and may be anybody's.
    let counted: Vec<usize> = (0..13).collect();
    for (ours, theirs, key) in [
        (0, 0, THEIRS),
        (FlowFlags::FAR, FlowFlags::FAR, THEIRS),
        (0, FlowFlags::NEAR, THEIRS),
        (FlowFlags::FAR, 0, THEIRS),
    ] {
        let (a, b) = (words(flow(1, ours, OURS)), words(flow(1000, theirs, key)));
        for mask in 1..1_u32 << counted.len() {
            let mut mixed = a;
            counted.iter().filter(|index| mask >> **index & 1 != 0).for_each(|index| mixed[*index] = b[*index]);
            // Of a flow that is not translated nobody reads the other tuple.
            let other = ((1 << OTHER) - 1) << 4;
            if mask & !other == 0 && (mixed[0] >> 32) as u32 & (FlowFlags::NEAR | FlowFlags::FAR) == 0 {
                continue;
            }
            assert_eq!(read(mixed, OURS), None, "{mask:013b} of {ours} and {theirs}");
        }
    }
}

#[test]
fn two_flows_of_one_key_may_differ_in_what_packets_change_and_in_nothing_else() {
    let (a, b) = (words(flow(1, FlowFlags::FAR, OURS)), words(flow(1000, FlowFlags::FAR, OURS)));
    for mask in 1..(1_u32 << 9) - 1 {
        let mut mixed = a;
        (0..9).filter(|index| mask >> index & 1 != 0).for_each(|index| mixed[index] = b[index]);
        assert_eq!(read(mixed, OURS), None, "{mask:09b}");
    }
}

#[test]
fn every_bit_of_what_never_changes_counts() {
    let whole = words(flow(0x0f0f_3c3c, FlowFlags::FAR, OURS));
    for bit in 0..9 * 64 {
        let mut other = whole;
        other[bit / 64] ^= 1 << (bit % 64);
        assert_eq!(read(other, OURS), None, "bit {bit}");
    }
}

#[test]
fn a_copy_of_all_has_the_words_of_its_owner_only() {
    let mut flow = flow(7, 0, OURS);
    (flow.last_seq.value, flow.last_stamp.value, flow.errors.value, flow.claim.value) = (1, 2, 3, 1);
    let entry: Entry = zerocopy::transmute!(words(flow));
    let mut copy = Flow::new();
    assert!(entry.read_all(OURS, &mut copy));
    assert_eq!((copy.last_seq.value, copy.last_stamp.value, copy.errors.value), (1, 2, 3));
    assert_eq!(copy.claim.value, 0, "a claim is on an entry, not on its copy");
    let of_another: &Long = &entry.last_seq;
    of_another.store(u64::from(THEIRS) << 32 | 9);
    assert!(entry.read_all(OURS, &mut copy));
    assert_eq!(copy.last_seq.value, 0);
}
