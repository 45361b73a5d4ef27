//! A reader that is interrupted between any two of its steps, and a hash that reuses its elements at once.
//!
//! The kernel writes a new value of a key into a free element, puts that in place of the old one, and frees the old one at
//! once for whoever writes next, while a reader may still hold it (`htab_map_update_elem` in kernel/bpf/hashtab.c).

use std::cell::Cell;
use std::collections::BTreeMap;

use fairlead_datapath::Addr;
use fairlead_datapath::service::{
    Affinity, AffinityKey, Backend, From, Frontend, FrontendKey, HostTables, Selection, SourceRangeKey, Tables, select,
};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::world::{World, any_world_inside, apply};
use super::{SMALL, State, plan};
use crate::plan::Op;

/// Words of a frontend.
const WORDS: usize = size_of::<Frontend>() / 8;

/// Reads in a selection, at most: an element, its words, a slot and a backend, twice.
const READS: usize = 2 * (1 + WORDS + 2);

/// The memory at one moment.
#[derive(Debug, Clone, Default)]
struct Moment {
    index: BTreeMap<FrontendKey, usize>,
    elements: Vec<[u64; WORDS]>,
    free: Vec<usize>,
    arrays: HostTables,
    /// The tables between operations: what a reader at rest would see.
    rest: HostTables,
    /// The same after the operation that is under way. Who still holds the element that it writes for the same key once more sees
    /// this first.
    next: HostTables,
}

impl Moment {
    /// The moments that an operation goes through, the last of them its end.
    fn after(&self, op: &Op) -> Vec<Self> {
        let mut now = self.clone();
        apply(&mut now.next, op);
        let mut moments = vec![];
        if let Op::Frontend { key, value } = op {
            if let Some(value) = value {
                let element = now.free.pop().unwrap_or_else(|| {
                    now.elements.push([0; WORDS]);
                    now.elements.len() - 1
                });
                for (word, bytes) in value.as_bytes().chunks_exact(8).enumerate() {
                    now.elements[element][word] = u64::from_ne_bytes(bytes.try_into().unwrap());
                    moments.push(now.clone());
                }
                now.free.extend(now.index.insert(*key, element));
            } else {
                now.free.extend(now.index.remove(key));
            }
        } else {
            apply(&mut now.arrays, op);
        }
        apply(&mut now.rest, op);
        moments.push(now);
        moments
    }
}

/// A reader for whom time passes between reads: before read number `n`, to moment `schedule(n)`.
struct Reader<'a> {
    moments: &'a [Moment],
    jumps: &'a [(usize, usize)],
    reads: Cell<usize>,
    now: Cell<usize>,
}

impl<'a> Reader<'a> {
    fn read(&self) -> &'a Moment {
        let read = self.reads.get();
        self.reads.set(read + 1);
        for (at, moment) in self.jumps {
            if *at <= read {
                self.now.set(self.now.get().max(*moment));
            }
        }
        &self.moments[self.now.get()]
    }
}

impl Tables for Reader<'_> {
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        let element = *self.read().index.get(key)?;
        let mut words = [0; WORDS];
        for word in (1..WORDS).chain([0]) {
            words[word] = self.read().elements[element][word];
        }
        Some(Frontend::read_from_bytes(words.as_bytes()).unwrap())
    }
    fn node_address(&self, _: &Addr) -> u32 {
        0
    }
    fn affinity(&self, _: &AffinityKey) -> Option<Affinity> {
        None
    }
    fn remember_affinity(&self, _: &AffinityKey, _: &Affinity) {}
    fn service_ports(&self, _: u32) -> u64 {
        0
    }
    fn in_source_range(&self, key: &SourceRangeKey) -> bool {
        self.read().arrays.in_source_range(key)
    }
    fn slot(&self, index: u32) -> Option<u32> {
        self.read().arrays.slot(index)
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.read().arrays.backend(id)
    }
    fn backend_state(&self, id: u32) -> u64 {
        self.read().arrays.backend_state(id)
    }
    fn udp_generation(&self) -> u32 {
        self.read().arrays.udp_generation()
    }
}

/// Whether somebody at rest could get this answer at this moment.
fn possible(moment: &Moment, key: &FrontendKey, answer: Selection) -> bool {
    [&moment.rest, &moment.next].into_iter().any(|tables| {
        let count = tables.frontends.get(key).map_or(1, |f| f.internal.count().max(1));
        (0..count).any(|step| {
            let random = (u64::from(step) << 32).div_ceil(u64::from(count)) as u32;
            select(tables, key.addr, key.port, key.proto, From::Inside, random) == answer
        })
    })
}

/// Runs a reader of `key` through a stretch of time with these jumps, from `start` on.
fn run(moments: &[Moment], start: usize, jumps: &[(usize, usize)], key: &FrontendKey, random: u32) -> bool {
    let reader = Reader { moments, jumps, reads: Cell::new(0), now: Cell::new(start) };
    let answer = select(&reader, key.addr, key.port, key.proto, From::Inside, random);
    let seen = start..=reader.now.get();
    let raced = answer == Selection::Raced;
    assert!(
        raced || moments[seen].iter().any(|moment| possible(moment, key, answer)),
        "{key:?} from {start} by {jumps:?} got {answer:?}"
    );
    raced
}

/// The stretches of time that a reader can live through: none goes over a barrier. The first of each holds still.
fn stretches(worlds: &[World]) -> Vec<Vec<Moment>> {
    let mut state = State::new(SMALL);
    let mut before = World::default();
    let mut stretches = vec![vec![Moment::default()]];
    for world in worlds {
        for op in plan(&mut state, &before, world) {
            let stretch = stretches.last_mut().unwrap();
            let now = stretch.last().unwrap().clone();
            if op == Op::Barrier {
                stretches.push(vec![now]);
            } else {
                stretch.extend(now.after(&op));
            }
        }
        before = world.clone();
    }
    stretches
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// One interruption, however long, at any read: the reader gets the old or the new answer, and never fails.
    #[test]
    fn a_reader_that_is_interrupted_once_gets_the_old_or_the_new_answer(
        worlds in proptest::collection::vec(any_world_inside(), 2..4),
        random: u32,
    ) {
        let keys: std::collections::BTreeSet<_> = worlds.iter().flat_map(World::keys).collect();
        for stretch in stretches(&worlds) {
            for start in 0..stretch.len() {
                for (end, read) in (start..stretch.len()).flat_map(|end| (0..READS / 2 + 1).map(move |read| (end, read))) {
                    for key in &keys {
                        prop_assert!(!run(&stretch, start, &[(read, end)], key, random), "{:?} raced", key);
                    }
                }
            }
        }
    }

    /// Any number of interruptions: the old answer, the new one, one in between, or a drop that says why.
    #[test]
    fn a_reader_that_is_interrupted_often_is_never_sent_astray(
        worlds in proptest::collection::vec(any_world_inside(), 3..6),
        random: u32,
        schedules in proptest::collection::vec(
            (any::<prop::sample::Index>(), proptest::collection::vec((0..READS, 1usize..12), 1..6)), 60),
    ) {
        let keys: std::collections::BTreeSet<_> = worlds.iter().flat_map(World::keys).collect();
        for stretch in stretches(&worlds) {
            for (start, steps) in &schedules {
                let start = start.index(stretch.len());
                let mut steps = steps.clone();
                steps.sort_unstable();
                let mut now = start;
                let jumps: Vec<_> = steps
                    .iter()
                    .map(|(read, ahead)| {
                        now = (now + ahead).min(stretch.len() - 1);
                        (*read, now)
                    })
                    .collect();
                for key in &keys {
                    run(&stretch, start, &jumps, key, random);
                }
            }
        }
    }
}

/// Two updates of other frontends overwrite the element that a reader holds: that must be able to happen here, or the
/// properties above show nothing.
#[test]
fn the_checker_does_reuse_elements_under_a_reader() {
    let mut worlds = vec![World::shop()];
    for affinity in 1..4 {
        let mut world = World::shop();
        world.services[0].affinity = Some(affinity);
        worlds.push(world);
    }
    let key = worlds[0].keys()[0];
    let torn = stretches(&worlds).iter().any(|stretch| {
        (0..stretch.len()).any(|start| {
            (start..stretch.len()).any(|end| {
                let jumps = [(1, end)];
                let reader = Reader { moments: stretch, jumps: &jumps, reads: Cell::new(0), now: Cell::new(start) };
                reader.frontend(&key).is_some_and(|frontend| !frontend.is_of(key.tag()))
            })
        })
    });
    assert!(torn);
}
