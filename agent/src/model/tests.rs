use fairlead_objects::{
    AddressType, ContainerPort, EndpointSlice, Event, Kind, Labels, Namespace, Object, ObjectKey, Phase, Pod, Protocol,
};

use super::{Dirty, LocalPod, Model};

fn slice(name: &str, service: Option<&str>) -> Event {
    Event::Applied(Object::EndpointSlice(EndpointSlice {
        key: ObjectKey::new("shop", name),
        service_name: service.map(str::to_owned),
        address_type: AddressType::Ipv4,
        ports: Vec::new(),
        endpoints: Vec::new(),
        triggered: None,
    }))
}

fn synced() -> Model {
    let mut model = Model::new("n1");
    Kind::ALL.into_iter().for_each(|kind| model.take(Event::Synced(kind)));
    model
}

fn services(names: &[&str]) -> Dirty {
    Dirty { services: names.iter().map(|name| ObjectKey::new("shop", *name)).collect(), ..Dirty::default() }
}

#[test]
fn s54_nothing_is_handed_out_before_every_kind_has_synced() {
    let mut model = Model::new("n1");
    model.take(slice("a-1", Some("a")));
    for kind in Kind::ALL {
        assert!(model.take_dirty().is_clean());
        model.take(Event::Synced(kind));
    }
    assert_eq!(model.take_dirty(), services(&["a"]));
    assert!(model.take_dirty().is_clean());
}

#[test]
fn s20_a_slice_that_moves_touches_both_services() {
    let mut model = synced();
    model.take(slice("x", Some("a")));
    assert_eq!(model.take_dirty(), services(&["a"]));
    model.take(slice("x", Some("b")));
    assert_eq!(model.take_dirty(), services(&["a", "b"]));
    assert!(model.slices_of(&ObjectKey::new("shop", "a")).is_empty());
    assert_eq!(model.slices_of(&ObjectKey::new("shop", "b")).len(), 1);
    model.take(slice("x", None));
    assert_eq!(model.take_dirty(), services(&["b"]));
    model.take(Event::Deleted(Kind::EndpointSlice, ObjectKey::new("shop", "x")));
    assert!(model.take_dirty().is_clean());
}

#[test]
fn a_source_may_repeat_itself() {
    let mut model = synced();
    let namespace = || Event::Applied(Object::Namespace(Namespace { name: "shop".into(), labels: [].into() }));
    model.take(namespace());
    assert!(model.take_dirty().policy());
    model.take(namespace());
    model.take(slice("a-1", Some("a")));
    model.take(Event::Deleted(Kind::Pod, ObjectKey::new("shop", "never-seen")));
    assert_eq!(model.take_dirty(), services(&["a"]));
    model.take(slice("a-1", Some("a")));
    assert!(model.take_dirty().is_clean());
}

#[test]
fn an_unreadable_object_disturbs_nothing_and_is_shown_until_it_is_mended() {
    let mut model = synced();
    model.take(slice("a-1", Some("a")));
    model.take_dirty();
    let invalid = || Event::Invalid {
        kind: Some(Kind::EndpointSlice),
        key: Some(ObjectKey::new("shop", "a-1")),
        origin: "a.yaml, document 1".into(),
        reason: "no addressType".into(),
    };
    model.take(invalid());
    model.take(invalid());
    assert!(model.take_dirty().is_clean());
    assert_eq!(model.slices_of(&ObjectKey::new("shop", "a")).len(), 1);
    assert_eq!((model.mistakes().standing().len(), model.mistakes().total()), (1, 1));
    model.take(slice("a-1", Some("a")));
    assert_eq!((model.mistakes().standing().len(), model.mistakes().total()), (0, 1));
}

#[test]
fn s13_a_pod_with_host_ports_is_planned_with_its_object_and_its_attachment() {
    let key = ObjectKey::new("shop", "web");
    let pod = |host_port| {
        let port = ContainerPort { name: None, port: 8080, protocol: Protocol::Tcp, host_port, host_ip: None };
        Pod {
            key: key.clone(),
            uid: "1".into(),
            created: None,
            static_uid: None,
            bandwidth: fairlead_objects::Bandwidth::default(),
            labels: Labels::new(),
            node_name: Some("n1".into()),
            ips: vec![],
            host_network: false,
            phase: Phase::Pending,
            terminating: false,
            container_ports: vec![port],
        }
    };
    let applied = |host_port| Event::Applied(Object::Pod(pod(host_port)));
    let local = LocalPod { slot: 3, key: key.clone(), uid: "1".into(), ips: vec![], pod_mac: [0; 6], host_mac: [0; 6] };
    let mut model = synced();
    let touched = |model: &mut Model| !model.take_dirty().host_ports.is_empty();
    model.take(applied(None));
    model.attach(local.clone());
    assert!(!touched(&mut model), "it has none");
    model.take(applied(Some(80)));
    assert!(touched(&mut model));
    assert_eq!(model.host_port_pods().count(), 1);
    model.detach(3);
    assert!(touched(&mut model));
    assert_eq!(model.host_port_pods().count(), 0);
    model.attach(local);
    assert!(touched(&mut model));
    model.take(Event::Deleted(Kind::Pod, key));
    assert!(touched(&mut model));
    assert_eq!(model.host_port_pods().count(), 0);
}
