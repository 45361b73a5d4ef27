//! Plans applied to tables in memory, and read by the real [`select`], at every point in time.

mod capacity;
mod interleave;
mod world;

use std::collections::BTreeSet;

use fairlead_datapath::service::{From, Frontend, FrontendKey, HostTables, Selection, flow_is_stale, select};
use fairlead_objects::ObjectKey;
use proptest::prelude::*;

use self::world::{Answers, World, answers, apply, changes};
use super::{Capacity, Op, State, Usage};
use crate::compile::services::ServiceContent;

/// Small tables, so that ids and blocks are soon given out again.
pub(super) const SMALL: Capacity = Capacity { frontends: 256, slots: 1024, backends: 256, ranges: 256 };

/// Plans from world to world.
fn plan(state: &mut State, from: &World, to: &World) -> Vec<Op> {
    let content = to.content();
    let gone = from.content().into_keys().filter(|key| !content.contains_key(key));
    let gone: Vec<(ObjectKey, ServiceContent)> = gone.map(|key| (key, ServiceContent::default())).collect();
    let old = from.content();
    let dirty = content.iter().filter(|(key, content)| old.get(key) != Some(content));
    let plan = state.plan(dirty.chain(gone.iter().map(|(key, content)| (key, content))));
    assert_eq!(plan.refused, []);
    plan.ops
}

fn apply_all(tables: &mut HostTables, ops: &[Op]) {
    ops.iter().for_each(|op| apply(tables, op));
}

#[test]
fn an_unchanged_service_gives_an_empty_plan() {
    let world = World::shop();
    let (mut state, mut tables) = (State::new(SMALL), HostTables::default());
    apply_all(&mut tables, &plan(&mut state, &World::default(), &world));
    let content = world.content();
    assert_eq!(state.plan(&content).ops, []);
    assert_eq!(state.release_unclaimed(), []);
}

#[test]
fn addresses_of_a_port_share_a_block_and_families_have_their_own() {
    let world = World::shop();
    let mut state = State::new(SMALL);
    let ops = plan(&mut state, &World::default(), &world);
    let blocks = ops.iter().filter(|op| matches!(op, Op::Slots { .. })).count();
    let frontends = ops.iter().filter(|op| matches!(op, Op::Frontend { .. })).count();
    assert_eq!((blocks, frontends), (1, 2), "two addresses of one port");
}

#[test]
fn a_first_service_needs_no_barrier_and_a_change_ends_with_one() {
    let mut world = World::shop();
    let mut state = State::new(SMALL);
    let ops = plan(&mut state, &World::default(), &world);
    assert!(!ops.contains(&Op::Barrier));
    let before = world.clone();
    world.services[0].endpoints.pop();
    let ops = plan(&mut state, &before, &world);
    let kinds: Vec<_> = ops.iter().map(std::mem::discriminant).collect();
    let expected = [
        Op::Slots { offset: 0, ids: vec![] },
        Op::Frontend { key: FrontendKey::new(Default::default(), Default::default(), 0), value: None },
        Op::Frontend { key: FrontendKey::new(Default::default(), Default::default(), 0), value: None },
        Op::BackendState { id: 0, state: 0 },
        Op::Barrier,
    ];
    assert_eq!(kinds, expected.iter().map(std::mem::discriminant).collect::<Vec<_>>());
}

#[test]
fn s40_udp_flows_leave_a_backend_with_the_commit_and_an_id_given_out_again_is_another() {
    let mut world = World::shop();
    let (mut state, mut tables) = (State::new(SMALL), HostTables::default());
    apply_all(&mut tables, &plan(&mut state, &World::default(), &world));
    let key = world.keys()[0];
    let Selection::Forward(chosen) = select(&tables, key.addr, key.port, key.proto, From::Inside, 0) else {
        panic!("not forwarded");
    };
    assert!(!flow_is_stale(&tables, chosen.id, chosen.generation, true));
    for _ in 0..3 {
        let before = world.clone();
        let removed = world.services[0].endpoints.remove(0);
        apply_all(&mut tables, &plan(&mut state, &before, &world));
        assert!(flow_is_stale(&tables, chosen.id, chosen.generation, true));
        let before = world.clone();
        world.services[0].endpoints.insert(0, removed);
        apply_all(&mut tables, &plan(&mut state, &before, &world));
        assert!(flow_is_stale(&tables, chosen.id, chosen.generation, true), "the endpoint came back under a used id");
    }
}

#[test]
fn s40_udp_flows_stay_with_what_serves_though_nobody_else_may_choose_it() {
    let mut world = World::shop();
    let (mut state, mut tables) = (State::new(SMALL), HostTables::default());
    apply_all(&mut tables, &plan(&mut state, &World::default(), &world));
    let key = world.keys()[0];
    let Selection::Forward(first) = select(&tables, key.addr, key.port, key.proto, From::Inside, 0) else {
        panic!("not forwarded");
    };
    let before = world.clone();
    let endpoint = &mut world.services[0].endpoints[0];
    (endpoint.ready, endpoint.terminating) = (false, true);
    apply_all(&mut tables, &plan(&mut state, &before, &world));
    assert!(!flow_is_stale(&tables, first.id, first.generation, true));
    assert!(flow_is_stale(&tables, first.id, first.generation, false), "what does not last goes elsewhere");
    let Answers::Forward(inside, _) = answers(&tables, &key, world::clients()[0]) else { panic!("not forwarded") };
    assert!(!inside.iter().any(|(addr, _)| *addr == first.addr));

    let mut adopted = State::adopt(SMALL, &tables);
    assert_eq!(adopted.plan(&world.content()).ops, []);
    assert_eq!(adopted.release_unclaimed(), [], "it stays through a restart");

    let before = world.clone();
    (world.services[0].endpoints[0].ready, world.services[0].endpoints[0].terminating) = (true, false);
    apply_all(&mut tables, &plan(&mut state, &before, &world));
    assert!(!flow_is_stale(&tables, first.id, first.generation, false), "it does not end after all");

    let before = world.clone();
    world.services[0].endpoints[0].serving = false;
    world.services[0].endpoints[0].ready = false;
    apply_all(&mut tables, &plan(&mut state, &before, &world));
    assert!(flow_is_stale(&tables, first.id, first.generation, true));
}

#[test]
fn s41_a_new_udp_frontend_moves_the_generation_after_the_commit() {
    let mut world = World::shop();
    let mut state = State::new(SMALL);
    let ops = plan(&mut state, &World::default(), &world);
    assert!(!ops.iter().any(|op| matches!(op, Op::UdpFrontends { .. })), "it is a TCP service");
    let before = world.clone();
    world.services[0].udp = true;
    let ops = plan(&mut state, &before, &world);
    let place = |wanted: fn(&Op) -> bool| ops.iter().rposition(wanted);
    let bump = place(|op| matches!(op, Op::UdpFrontends { generation: 1 })).expect("a new generation");
    let commit = place(|op| matches!(op, Op::Frontend { value: Some(_), .. })).expect("a commit");
    assert!(commit < bump);
}

#[test]
fn a_contested_address_is_the_first_ones_and_then_the_others() {
    let mut world = World::shop();
    let mut second = world.services[0].clone();
    second.name = "zzz".into();
    second.endpoints.truncate(1);
    world.services.push(second);
    let (mut state, mut tables) = (State::new(SMALL), HostTables::default());
    let plan_both = state.plan(&world.content());
    assert_eq!(plan_both.contested.len(), 2);
    assert!(plan_both.contested.iter().all(|c| c.owner.port.service.name == "cart" && c.others.len() == 1));
    apply_all(&mut tables, &plan_both.ops);
    world.check(&tables);
    let before = world.clone();
    world.services.remove(0);
    apply_all(&mut tables, &plan(&mut state, &before, &world));
    world.check(&tables);
}

#[test]
fn s61_a_service_that_is_refused_keeps_what_it_had_through_a_restart() {
    let mut world = World::shop();
    let mut other = world.services[0].clone();
    (other.name, other.addresses) = ("other".into(), vec!["10.96.0.99".parse().unwrap()]);
    // It comes after it, and wants one of its addresses too.
    other.addresses.push(world.services[0].addresses[0]);
    world.services.push(other);
    let (mut state, mut tables) = (State::new(SMALL), HostTables::default());
    apply_all(&mut tables, &plan(&mut state, &World::default(), &world));
    world.check(&tables);
    let had = world.clone();
    // It grows to more than there is.
    for host in 0..250 {
        world.services[0].endpoints.push(world::endpoint(host, true, true, false, true));
    }
    let refused = state.plan(&world.content()).refused;
    assert_eq!(refused.len(), 1, "{refused:?}");
    for _ in 0..2 {
        state = State::adopt(SMALL, &tables);
        let plan = state.plan(&world.content());
        assert_eq!(plan.refused, refused);
        assert_eq!((plan.ops, state.release_unclaimed()), (vec![], vec![]), "nothing happens to it");
        had.check(&tables);
    }
    // It is known by its name: it shrinks, grows, and goes as ever.
    for services in [had.services.clone(), vec![had.services[1].clone()], Vec::new()] {
        let next = World { services };
        apply_all(&mut tables, &plan(&mut state, &world, &next));
        next.check(&tables);
        world = next;
    }
    assert_eq!(state.usage(), Usage::default());
}

#[test]
fn tables_that_make_no_sense_are_adopted_and_repaired() {
    let world = World::shop();
    let (mut state, mut good) = (State::new(SMALL), HostTables::default());
    apply_all(&mut good, &plan(&mut state, &World::default(), &world));
    let key = world.keys()[0];
    let spoil: [fn(&mut Frontend); 5] = [
        |f| f.tag ^= 1,
        |f| f.service = 0,
        |f| f.service = u32::MAX,
        |f| f.internal = fairlead_datapath::service::Scope::forward(u32::MAX, 3),
        |f| f.internal = fairlead_datapath::service::Scope::forward(1, 3),
    ];
    for spoil in spoil {
        let mut tables = good.clone();
        spoil(tables.frontends.get_mut(&key).unwrap());
        let mut state = State::adopt(SMALL, &tables);
        apply_all(&mut tables, &state.plan(&world.content()).ops);
        apply_all(&mut tables, &state.release_unclaimed());
        world.check(&tables);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// S1 S4 S8 S12 S18 S20 S21 S22 S27 S28 S29 S33 S34 S35, from objects to the answer that a packet gets.
    #[test]
    fn the_answer_is_that_of_the_naive_model(worlds in proptest::collection::vec(world::any_world(), 1..6)) {
        let (mut state, mut tables) = (State::new(SMALL), HostTables::default());
        let mut before = World::default();
        for world in worlds {
            apply_all(&mut tables, &plan(&mut state, &before, &world));
            world.check(&tables);
            before = world;
        }
        apply_all(&mut tables, &plan(&mut state, &before, &World::default()));
        prop_assert!(tables.frontends.is_empty() && tables.source_ranges.is_empty());
        prop_assert_eq!((state.usage().frontends, state.usage().slots, state.usage().backends), (0, 0, 0));
        prop_assert_eq!(state.usage().ranges, 0);
    }

    #[test]
    fn after_every_prefix_of_a_plan_the_answer_is_the_old_or_the_new(
        worlds in proptest::collection::vec(world::any_world(), 2..5),
    ) {
        let (mut state, mut tables) = (State::new(SMALL), HostTables::default());
        let mut before = World::default();
        for world in worlds {
            let old = tables.clone();
            let ops = plan(&mut state, &before, &world);
            let mut new = old.clone();
            apply_all(&mut new, &ops);
            let keys: BTreeSet<_> = before.keys().into_iter().chain(world.keys()).collect();
            for op in &ops {
                apply(&mut tables, op);
                for key in &keys {
                    for from in world::clients() {
                        let now = answers(&tables, key, from);
                        prop_assert!(
                            now == answers(&old, key, from) || now == answers(&new, key, from),
                            "{:?} after {:?} of {:?}", now, op, ops
                        );
                    }
                }
            }
            before = world;
        }
    }

    #[test]
    fn a_restart_at_any_point_ends_in_the_same_state(
        worlds in proptest::collection::vec(world::any_world(), 2..5),
        interrupted: prop::sample::Index,
    ) {
        let (mut state, mut tables) = (State::new(SMALL), HostTables::default());
        let mut before = World::default();
        for world in worlds {
            let ops = plan(&mut state, &before, &world);
            let mut halfway = tables.clone();
            apply_all(&mut halfway, &ops[..interrupted.index(ops.len() + 1)]);
            apply_all(&mut tables, &ops);

            // An unchanged world: nothing to do, and nothing forgotten. Who lost all its addresses to others can't be
            // recognised, and gets its backends anew.
            if !world.is_contested() {
                let mut adopted = State::adopt(SMALL, &tables);
                prop_assert_eq!(adopted.plan(&world.content()).ops, []);
                prop_assert_eq!(adopted.release_unclaimed(), []);
                adopted.barrier_first = false;
                prop_assert_eq!(&adopted, &state);
            }

            // An agent that was killed in the middle of a plan.
            let mut adopted = State::adopt(SMALL, &halfway);
            let ops = adopted.plan(&world.content()).ops;
            prop_assert!(ops.is_empty() || ops[0] == Op::Barrier);
            apply_all(&mut halfway, &ops);
            apply_all(&mut halfway, &adopted.release_unclaimed());
            world.check(&halfway);
            // Which endpoints flows may stay with depends on what came before; new flows have the same room as ever, and
            // nothing is left over.
            let (repaired, usage) = (adopted.usage(), state.usage());
            prop_assert_eq!(
                (repaired.frontends, repaired.slots, repaired.ranges),
                (usage.frontends, usage.slots, usage.ranges)
            );
            if !world.is_contested() {
                let mut again = State::adopt(SMALL, &halfway);
                prop_assert_eq!(again.plan(&world.content()).ops, []);
                prop_assert_eq!(again.release_unclaimed(), []);
                (again.barrier_first, adopted.barrier_first) = (false, false);
                prop_assert_eq!(&again, &adopted);
            }
            before = world;
        }
    }
}

#[test]
fn changes_between_worlds_are_those_of_the_services_that_differ() {
    let (a, mut b) = (World::shop(), World::shop());
    assert!(changes(&a, &b).is_empty());
    b.services[0].endpoints.pop();
    assert_eq!(changes(&a, &b).len(), 1);
}
