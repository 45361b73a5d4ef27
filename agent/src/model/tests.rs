use fairlead_objects::{
    AddressType, Annotated, ContainerPort, EndpointSlice, Event, Kind, Labels, Namespace, Node, Object, ObjectKey,
    Phase, Pod, Protocol,
};

use super::{Dirty, LocalPod, Model, Rules};

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
    let local = LocalPod {
        slot: 3,
        foreign: None,
        key: key.clone(),
        uid: "1".into(),
        ips: vec![],
        pod_mac: [0; 6],
        host_mac: [0; 6],
    };
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

fn annotated(name: &str, range: &str) -> Event {
    let annotated = Annotated { ranges: vec![range.parse().unwrap()], created: None };
    Event::Applied(Object::Node(Node {
        name: name.into(),
        labels: Labels::new(),
        zone: None,
        internal_ips: vec![],
        external_ips: vec![],
        pod_cidrs: vec![],
        annotated: Some(annotated),
        leaving: false,
    }))
}

fn ranges(model: &Model, name: &str) -> Vec<String> {
    let node = model.nodes().find(|node| node.name == name).unwrap();
    node.pod_cidrs.iter().map(ToString::to_string).collect()
}

#[test]
fn c50_annotations_are_decided_when_all_is_known_and_again_when_it_changes() {
    let rules = || Rules { annotated_ranges: vec!["10.244.0.0/16".parse().unwrap()], ..Rules::default() };
    let mut model = Model::new("n1").with_rules(rules());
    model.take(annotated("n1", "10.244.1.0/24"));
    for kind in Kind::ALL {
        let known = [Kind::Node, Kind::Service].iter().all(|kind| !model.waiting_for().any(|waiting| waiting == *kind));
        assert_eq!(ranges(&model, "n1").is_empty(), !known, "a range may be somebody's that is not known yet");
        model.take(Event::Synced(kind));
    }
    assert_eq!(ranges(&model, "n1"), ["10.244.1.0/24"]);
    assert!(model.reserved().pod_range("10.244.1.7".parse().unwrap()).is_some());
    model.take_dirty();
    // The same again changes nothing.
    model.take(annotated("n1", "10.244.1.0/24"));
    assert!(model.take_dirty().is_clean());

    model.take(annotated("n2", "10.244.1.0/25"));
    assert_eq!((ranges(&model, "n1").len(), ranges(&model, "n2").len()), (1, 0));
    assert_eq!(model.not_given().map(|(key, _)| key.name.as_str()).collect::<Vec<_>>(), ["n2"]);
    assert_eq!(model.take_dirty().nodes, [ObjectKey::cluster("n2")].into());
    // What was in its way goes.
    model.take(annotated("n1", "10.244.2.0/24"));
    assert_eq!(
        (ranges(&model, "n1"), ranges(&model, "n2")),
        (vec!["10.244.2.0/24".into()], vec!["10.244.1.0/25".into()])
    );
    assert_eq!(model.not_given().count(), 0);
    assert_eq!(model.take_dirty().nodes, ["n1", "n2"].map(ObjectKey::cluster).into());
    model.take(Event::Deleted(Kind::Node, ObjectKey::cluster("n2")));
    model.take(annotated("n3", "10.244.1.0/24"));
    assert_eq!(ranges(&model, "n3"), ["10.244.1.0/24"]);
    // Without the setting none counts.
    let mut model = Model::new("n1");
    Kind::ALL.into_iter().for_each(|kind| model.take(Event::Synced(kind)));
    model.take(annotated("n1", "10.244.1.0/24"));
    assert!(ranges(&model, "n1").is_empty());
    let why = model.not_given().map(|(_, why)| why.to_string()).collect::<String>();
    assert!(why.contains("`annotatedRanges`"), "{why}");
}
