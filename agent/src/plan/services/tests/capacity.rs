//! What happens when a table is full.

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::service::HostTables;
use fairlead_objects::Endpoint;

use super::world::World;
use super::{Capacity, SMALL, State, apply_all};
use crate::plan::services::PlanError;

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
    let (service, PlanError::Full { table, .. }) = &plan.refused[0];
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
    assert_eq!(refused(Capacity { frontends: 8, ..SMALL }), TableId::Frontends);
    assert_eq!(refused(Capacity { slots: 8, ..SMALL }), TableId::Slots);
    assert_eq!(refused(Capacity { backends: 5, ..SMALL }), TableId::Backends);
}

#[test]
fn what_did_not_fit_fits_once_there_is_room() {
    let mut world = World::shop();
    let mut second = world.services[0].clone();
    (second.name, second.addresses) = ("other".into(), vec!["10.96.0.9".parse().unwrap()]);
    let mut state = State::new(Capacity { backends: 5, ..SMALL });
    world.services.push(second);
    let plan = state.plan(&world.content());
    let text = plan.refused[0].1.to_string();
    assert!(
        text.contains("shop/other") && text.contains(TableId::Backends.info().name) && text.contains('5'),
        "{text}"
    );
    let mut content = world.content();
    let gone = content.keys().next().unwrap().clone();
    content.insert(gone, Default::default());
    let _first = state.plan(&content);
    assert_eq!(state.plan(&content).refused, []);
}
