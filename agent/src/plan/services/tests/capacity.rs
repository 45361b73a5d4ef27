//! What happens when a table is full.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::service::HostTables;
use fairlead_objects::{Endpoint, ObjectKey};
use proptest::prelude::*;

use super::world::{self, Answers, Small, World};
use super::{Capacity, SMALL, State, apply_all};
use crate::compile::services::{Place, ServiceContent, compile_service};
use crate::plan::services::{Holder, PlanError};

fn refused(capacity: Capacity) -> TableId {
    let mut world = World::shop();
    let mut big = world.services[0].clone();
    big.name = "big".into();
    for ip in ["10.0.1.1", "10.0.1.2"] {
        big.endpoints.push(Endpoint { addresses: vec![ip.parse().unwrap()], ..big.endpoints[0].clone() });
    }
    big.addresses = (10..18).map(|host| [10, 96, 0, host].into()).collect();
    let (mut state, mut tables) = (State::new(capacity), HostTables::default());
    let plan = state.plan(&world.content());
    assert_eq!(plan.refused, []);
    apply_all(&mut tables, &plan.ops);

    let (before, content) = (state.clone(), world.content());
    world.services.push(big);
    let plan = state.plan(&world.content());
    assert_eq!(plan.ops, [], "nothing is written");
    assert_eq!(plan.refused.len(), 1);
    let (service, PlanError::Share { table, holder: Holder::Service, .. }) = &plan.refused[0] else {
        panic!("{:?}", plan.refused)
    };
    assert_eq!(service.name, "big");
    state.generations.clone_from(&before.generations);
    assert_eq!(state, before, "nothing is taken");

    // The others go ahead.
    world.services[0].endpoints.pop();
    let plan = state.plan(&world.content());
    assert_ne!(world.content(), content);
    assert_eq!((plan.refused.len(), plan.ops.is_empty()), (1, false));
    *table
}

#[test]
fn a_service_that_does_not_fit_is_refused_and_disturbs_nothing() {
    assert_eq!(refused(Capacity { frontends: 16, ..SMALL }), TableId::Frontends);
    assert_eq!(refused(Capacity { slots: 16, ..SMALL }), TableId::Slots);
    assert_eq!(refused(Capacity { backends: 12, ..SMALL }), TableId::Backends);
}

#[test]
fn a_table_that_had_no_room_for_a_while_has_all_its_ids_again() {
    let (world, mut tables) = (World::shop(), HostTables::default());
    for filled in [false, true] {
        let mut state = State::adopt(SMALL, &tables);
        state.set_capacity(Capacity { frontends: tables.frontends.len() as u32, ranges: 0, ..SMALL });
        // What is there is adopted under its ids, and stays.
        let plan = state.plan(&world.content());
        assert_eq!((plan.refused.is_empty(), plan.ops.is_empty()), (filled, true));
        state.set_capacity(SMALL);
        let plan = state.plan(&world.content());
        assert_eq!(plan.refused, []);
        apply_all(&mut tables, &plan.ops);
        assert!(!tables.frontends.is_empty());
        let mut more = World::shop();
        more.services[0].name = "more".into();
        more.services[0].addresses = vec![[10, 96, 0, 77].into()];
        assert_eq!(state.plan(&more.content()).refused, []);
    }
}

#[test]
fn s61_source_ranges_that_do_not_fit_let_nobody_in_who_is_to_be_kept_out() {
    let capacity = Capacity { ranges: 8, ..SMALL };
    let (mut state, mut tables) = (State::new(capacity), HostTables::default());
    let mut world = World::shop();
    world.services.truncate(1);
    world.services[0].outside.balancers = vec![[198, 51, 100, 7].into()];
    let mut set = |ranges: &[&'static str]| {
        world.services[0].outside.ranges = ranges.to_vec();
        let plan = state.plan(&world.content());
        apply_all(&mut tables, &plan.ops);
        let [inside, outside, ..] = world::clients();
        let serves = |ip: [u8; 4], client| {
            let addr = IpAddr::from(ip).into();
            let key = world.keys().into_iter().find(|key| key.addr == addr).unwrap();
            matches!(world::answers(&tables, &key, client), Answers::Forward(..))
        };
        let served = [serves([198, 51, 100, 7], outside), serves([10, 96, 0, 1], inside)];
        (plan.refused.len(), served, plan.ops.is_empty())
    };
    let many = ["192.0.2.0/24", "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16"];
    assert_eq!(set(&[]), (0, [true, true], false));
    assert_eq!(set(&many), (1, [false, true], false), "it was open to everybody");
    assert_eq!(set(&many), (1, [false, true], true), "that stays");
    assert_eq!(set(&["192.0.2.0/28"]), (0, [true, true], false));
    assert_eq!(set(&many), (1, [true, true], true), "whom it lets in it may let in");
    assert_eq!(set(&["192.0.0.0/16"]), (0, [true, true], false));
    assert_eq!(set(&many), (1, [false, true], false), "it lets in others too");
    assert_eq!(set(&[]), (0, [true, true], false));
}

/// Services of three endpoints each, and room for two of them in one namespace.
fn three() -> (World, State) {
    let mut world = World::shop();
    for (n, name) in [(9, "other"), (10, "third")] {
        let mut service = world.services[0].clone();
        (service.name, service.addresses) = (name.into(), vec![[10, 96, 0, n].into()]);
        world.services.push(service);
    }
    (world, State::new(Capacity { backends: 12, ..SMALL }))
}

#[test]
fn what_did_not_fit_fits_once_there_is_room() {
    let (world, mut state) = three();
    let plan = state.plan(&world.content());
    let texts: Vec<_> = plan.refused.iter().map(|(_, error)| error.to_string()).collect();
    assert_eq!(
        texts,
        ["shop/third does not fit: its namespace would use 9 entries of table BACKENDS, and may use 6 of its 12 \
             beside other namespaces: its previous state stays in force; use fewer endpoints and ports, or spread \
             them over namespaces"]
    );
    let mut content = world.content();
    let gone = content.keys().next().unwrap().clone();
    content.insert(gone, Default::default());
    assert_eq!(state.plan(&content).refused, [], "what another gave back in the same plan counts");
}

#[test]
fn a_table_that_the_kernel_has_less_room_for_is_full_where_it_says() {
    let (world, _) = three();
    let mut state = State::new(SMALL);
    assert_eq!(state.plan(&world.content()).refused, []);
    let mut capacity = SMALL;
    capacity.limit(TableId::Frontends, 4);
    state.set_capacity(capacity);
    let mut more = world.clone();
    more.services[0].addresses.push([10, 96, 0, 99].into());
    let plan = state.plan(&more.content());
    assert!(matches!(plan.refused[..], [(_, PlanError::Full { table: TableId::Frontends, used: 4, .. })]));
    more.services[0].addresses.truncate(1);
    assert_eq!(state.plan(&more.content()).refused, [], "who needs less is never refused");
}

/// A service that has so many addresses and endpoints: how many, and where they begin.
#[derive(Debug, Clone)]
struct Size {
    addresses: u8,
    endpoints: u8,
    first: u8,
}

fn any_size(most: u8) -> impl Strategy<Value = Size> {
    (1..=most, 0..=most, 0..3_u8).prop_map(|(addresses, endpoints, first)| Size {
        addresses,
        endpoints,
        first: first * 80,
    })
}

fn content(namespace: u8, name: u8, size: &Size) -> (ObjectKey, ServiceContent) {
    let addresses = (0..size.addresses).map(|host| [10, 96 + namespace, name, host].into()).collect();
    let endpoint = |host| {
        let ip = [10, namespace, name, host].into();
        Endpoint { addresses: vec![ip], ..world::endpoint(host, true, true, false, true) }
    };
    let endpoints = (0..size.endpoints).map(|host| endpoint(size.first + host)).collect();
    let small = Small { name: format!("s{name}"), addresses, endpoints, ..World::shop().services.remove(0) };
    let (mut service, mut slice) = small.objects();
    service.key.namespace = format!("n{namespace}");
    slice.key.namespace.clone_from(&service.key.namespace);
    let place = Place { node: world::HERE.into(), zone: None };
    (service.key.clone(), compile_service(&service, [&slice], &place))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Two namespaces take all that they can get. What they leave, whatever happened before, is a quarter of each table;
    /// half of that is the share of the third, and half of its share that of each of its two services.
    #[test]
    fn s61_a_service_within_its_namespaces_share_always_fits(
        steps in proptest::collection::vec(
            (proptest::collection::vec((0..2_u8, 0..6_u8, any_size(63)), 0..8),
             proptest::collection::vec((0..2_u8, any_size(15)), 0..3),
             any::<bool>()),
            1..16,
        ),
    ) {
        let (mut state, mut tables) = (State::new(SMALL), HostTables::default());
        let mut wanted = BTreeMap::new();
        for (greedy, quiet, restarted) in steps {
            let greedy = greedy.into_iter().map(|(namespace, name, size)| content(namespace, name, &size));
            let quiet = quiet.into_iter().map(|(name, size)| content(9, name, &size));
            let changes: BTreeMap<_, _> = greedy.chain(quiet).collect();
            wanted.extend(changes.clone());
            let plan = if restarted {
                state = State::adopt(SMALL, &tables);
                state.plan(&wanted)
            } else {
                state.plan(&changes)
            };
            apply_all(&mut tables, &plan.ops);
            if restarted {
                apply_all(&mut tables, &state.release_unclaimed());
            }
            let refused: Vec<_> = plan.refused.iter().filter(|(service, _)| service.namespace == "n9").collect();
            prop_assert!(refused.is_empty(), "{:?} beside {:?}", refused, state.usage());
            // Everything that is wanted of it is in force.
            for port in wanted.iter().filter(|(service, _)| service.namespace == "n9").flat_map(|(_, c)| c.ports.values()) {
                for key in port.frontends.keys() {
                    let count = tables.frontends[key].internal.count() as usize;
                    prop_assert_eq!(count, port.in_service.len());
                }
            }
        }
    }
}
