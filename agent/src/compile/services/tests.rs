//! Rows of the behaviour table, one service at a time.

mod external;
mod node_local_dns;

use std::collections::BTreeSet;
use std::net::IpAddr;

use fairlead_datapath::WirePort;
use fairlead_objects::{
    AddressType, Endpoint, EndpointPort, EndpointSlice, Labels, Node, ObjectKey, Protocol, Service, ServicePort,
    ServiceType, TrafficPolicy,
};
use proptest::prelude::*;

use super::*;

const HERE: &str = "here";
const ZONE: &str = "a";

fn place() -> Place {
    Place { node: HERE.into(), zone: Some(ZONE.into()) }
}

fn service() -> Service {
    Service {
        key: ObjectKey::new("shop", "cart"),
        created: None,
        service_type: ServiceType::ClusterIp,
        cluster_ips: vec!["10.96.0.7".parse().unwrap(), "fd00:10:96::7".parse().unwrap()],
        headless: false,
        external_name: None,
        ports: vec![port("grpc", Protocol::Tcp, 80)],
        affinity_seconds: None,
        internal_traffic_policy: TrafficPolicy::Cluster,
        external_traffic_policy: TrafficPolicy::Cluster,
        external_ips: vec![],
        load_balancer: vec![],
        load_balancer_names: vec![],
        source_ranges: vec![],
        health_check_node_port: None,
        proxy_name: None,
    }
}

fn port(name: &str, protocol: Protocol, port: u16) -> ServicePort {
    ServicePort { name: name.into(), protocol, port, node_port: None }
}

/// An endpoint in words: its address, then `ready`, `serving`, `terminating`, `local`, `node=N` and `zone=Z` hints.
fn endpoint(text: &str) -> Endpoint {
    let mut words = text.split(' ');
    let mut endpoint = Endpoint {
        addresses: vec![words.next().unwrap().parse().unwrap()],
        ready: false,
        serving: false,
        terminating: false,
        hostname: None,
        node_name: Some("elsewhere".into()),
        zone: None,
        zone_hints: vec![],
        node_hints: vec![],
        pod: None,
    };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("ready", _) => (endpoint.ready, endpoint.serving) = (true, true),
            ("serving", _) => endpoint.serving = true,
            ("terminating", _) => endpoint.terminating = true,
            ("local", _) => endpoint.node_name = Some(HERE.into()),
            ("node", name) => endpoint.node_hints.push(name.into()),
            ("zone", name) => endpoint.zone_hints.push(name.into()),
            other => panic!("{other:?}"),
        }
    }
    endpoint
}

fn slice(name: &str, number: u16, endpoints: &[&str]) -> EndpointSlice {
    let endpoints: Vec<_> = endpoints.iter().map(|text| endpoint(text)).collect();
    let v6 = endpoints.first().is_some_and(|e| e.addresses[0].is_ipv6());
    EndpointSlice {
        key: ObjectKey::new("shop", name),
        service_name: Some("cart".into()),
        address_type: if v6 { AddressType::Ipv6 } else { AddressType::Ipv4 },
        ports: vec![EndpointPort { name: Some("grpc".into()), protocol: Protocol::Tcp, port: Some(number) }],
        endpoints,
        triggered: None,
    }
}

/// Backends in words: `10.0.0.1:80` or only the address for port 8080.
fn forward(addresses: &[&str]) -> Answer {
    Answer::Forward(addresses.iter().map(|text| backend(text)).collect())
}

fn backend(text: &str) -> BackendAddr {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return BackendAddr { ip, port: 8080 };
    }
    let addr: std::net::SocketAddr = text.parse().unwrap();
    BackendAddr { ip: addr.ip(), port: addr.port() }
}

/// The IPv4 content of the service's only port.
fn v4(service: &Service, slices: &[EndpointSlice]) -> PortContent {
    let content = compile_service(service, slices, &place());
    content.ports.into_iter().find(|(key, _)| key.family == Family::V4).expect("an IPv4 port").1
}

fn answers(endpoints: &[&str]) -> (Answer, Answer) {
    let content = v4(&service(), &[slice("cart-1", 8080, endpoints)]);
    (content.cluster, content.local)
}

#[test]
fn s1_every_cluster_address_is_a_frontend_of_its_family() {
    let content = compile_service(&service(), &[slice("cart-1", 8080, &["10.0.0.1 ready"])], &place());
    let families: Vec<_> = content
        .ports
        .iter()
        .map(|(key, port)| (key.family, port.frontends.keys().copied().collect::<Vec<_>>()))
        .collect();
    let key = |ip: &str| FrontendKey::new(ip.parse::<IpAddr>().unwrap().into(), WirePort::new(80), 6);
    assert_eq!(families, [(Family::V4, vec![key("10.96.0.7")]), (Family::V6, vec![key("fd00:10:96::7")])]);
}

#[test]
fn s14_headless_and_external_name_are_not_proxied() {
    let slices = [slice("cart-1", 8080, &["10.0.0.1 ready"])];
    let headless = Service { headless: true, cluster_ips: vec![], ..service() };
    let alias = Service { service_type: ServiceType::ExternalName, ..service() };
    for service in [headless, alias] {
        assert_eq!(compile_service(&service, &slices, &place()), ServiceContent::default());
    }
}

#[test]
fn s15_a_service_of_another_proxy_is_as_if_it_did_not_exist() {
    let service = Service { proxy_name: Some("other".into()), ..service() };
    let slices = [slice("cart-1", 8080, &["10.0.0.1 ready"])];
    assert_eq!(compile_service(&service, &slices, &place()), ServiceContent::default());
}

#[test]
fn s16_families_are_independent() {
    let slices = [slice("cart-4", 8080, &["10.0.0.1 ready"]), slice("cart-6", 9090, &["fd00::1 serving terminating"])];
    let both = compile_service(&service(), &slices, &place());
    let answers: Vec<_> = both.ports.values().map(|port| port.cluster.clone()).collect();
    assert_eq!(answers, [forward(&["10.0.0.1"]), forward(&["[fd00::1]:9090"])]);

    let one = Service { cluster_ips: vec!["fd00:10:96::7".parse().unwrap()], ..service() };
    let one = compile_service(&one, &slices, &place());
    assert_eq!(one.ports.into_keys().map(|key| key.family).collect::<Vec<_>>(), [Family::V6]);

    let mut mixed = slice("cart-4", 8080, &["10.0.0.1 ready", "10.0.0.2 ready"]);
    mixed.endpoints[1].addresses = vec!["fd00::2".parse().unwrap()];
    assert_eq!(v4(&service(), &[mixed]).cluster, forward(&["10.0.0.1"]));
}

#[test]
fn s19_ports_match_by_name_and_protocol() {
    let wrong = |change: fn(&mut EndpointPort)| {
        let mut slice = slice("cart-1", 8080, &["10.0.0.1 ready"]);
        change(&mut slice.ports[0]);
        v4(&service(), &[slice]).cluster
    };
    assert_eq!(wrong(|_| ()), forward(&["10.0.0.1"]));
    assert_eq!(wrong(|p| p.port = Some(81)), forward(&["10.0.0.1:81"]));
    assert_eq!(wrong(|p| p.name = Some("http".into())), Answer::Reject);
    assert_eq!(wrong(|p| p.name = None), Answer::Reject);
    assert_eq!(wrong(|p| p.protocol = Protocol::Udp), Answer::Reject);
    assert_eq!(wrong(|p| p.port = None), Answer::Reject);
    assert_eq!(wrong(|p| p.port = Some(0)), Answer::Reject);

    let unnamed = Service { ports: vec![port("", Protocol::Tcp, 80)], ..service() };
    let mut slice = slice("cart-1", 8080, &["10.0.0.1 ready"]);
    slice.ports[0].name = None;
    assert_eq!(v4(&unnamed, &[slice.clone()]).cluster, Answer::Reject, "no name is not the empty name");
    slice.ports[0].name = Some(String::new());
    assert_eq!(v4(&unnamed, &[slice]).cluster, forward(&["10.0.0.1"]));
}

#[test]
fn s19_slices_may_have_different_numbers_for_a_name() {
    let slices = [slice("cart-1", 8080, &["10.0.0.1 ready"]), slice("cart-2", 9090, &["10.0.0.2 ready"])];
    assert_eq!(v4(&service(), &slices).cluster, forward(&["10.0.0.1", "10.0.0.2:9090"]));
}

#[test]
fn s20_slices_are_a_union_and_the_first_address_counts() {
    let mut slices = [
        slice("cart-1", 8080, &["10.0.0.1 ready", "10.0.0.2 ready"]),
        slice("cart-2", 8080, &["10.0.0.3 ready"]),
        slice("cart-3", 8080, &["10.0.0.4 ready"]),
        slice("cart-4", 8080, &["10.0.0.5 ready"]),
        slice("cart-5", 8080, &["10.0.0.6 ready"]),
    ];
    slices[0].endpoints[0].addresses.push("10.0.0.9".parse().unwrap());
    slices[1].endpoints.push(Endpoint { addresses: vec![], ..endpoint("10.0.0.9 ready") });
    slices[2].service_name = Some("another".into());
    slices[3].service_name = None;
    slices[4].key.namespace = "another".into();
    assert_eq!(v4(&service(), &slices).cluster, forward(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]));
}

#[test]
fn s21_an_endpoint_in_two_slices_counts_once_and_the_local_one_is_believed() {
    let (near, far) = ("10.0.0.1 serving terminating local", "10.0.0.1 ready");
    for order in [[near, far], [far, near]] {
        let slices = [slice("cart-1", 8080, &order[..1]), slice("cart-2", 8080, &order[1..])];
        let content = v4(&service(), &slices);
        assert_eq!((content.cluster, content.local), (forward(&["10.0.0.1"]), forward(&["10.0.0.1"])));
    }
    // The same in one slice, and where neither is local the ready one.
    assert_eq!(answers(&["10.0.0.1 terminating", "10.0.0.1 ready"]).0, forward(&["10.0.0.1"]));
}

/// What is there, the answer under Cluster, the answer under Local (`None` refuses, `Some(&[])` drops).
type Case = (&'static str, &'static [&'static str], Option<&'static [&'static str]>, Option<&'static [&'static str]>);

fn check(cases: &[Case]) {
    let answer = |wanted: Option<&[&str]>| match wanted {
        None => Answer::Reject,
        Some([]) => Answer::Drop,
        Some(addresses) => forward(addresses),
    };
    for (name, endpoints, cluster, local) in cases {
        assert_eq!(answers(endpoints), (answer(*cluster), answer(*local)), "{name}");
    }
}

#[test]
fn s18_conditions() {
    check(&[
        ("ready", &["10.0.0.1 ready local"], Some(&["10.0.0.1"]), Some(&["10.0.0.1"])),
        ("not ready", &["10.0.0.1 local"], None, None),
        ("serving but not ready", &["10.0.0.1 serving local"], None, None),
        ("last resort", &["10.0.0.1 serving terminating local"], Some(&["10.0.0.1"]), Some(&["10.0.0.1"])),
    ]);
}

#[test]
fn s22_cluster_falls_back_to_what_serves_while_it_terminates_whatever_the_hints() {
    check(&[
        ("ready ones alone", &["10.0.0.1 ready", "10.0.0.2 serving terminating"], Some(&["10.0.0.1"]), Some(&[])),
        (
            "none is ready",
            &["10.0.0.1 serving terminating zone=b", "10.0.0.2 serving terminating zone=a", "10.0.0.3"],
            Some(&["10.0.0.1", "10.0.0.2"]),
            Some(&[]),
        ),
    ]);
}

#[test]
fn s23_local_ignores_hints() {
    check(&[
        (
            "a hint for another zone",
            &["10.0.0.1 ready local zone=b", "10.0.0.2 ready zone=a"],
            Some(&["10.0.0.2"]),
            Some(&["10.0.0.1"]),
        ),
        (
            "a hint for another node",
            &["10.0.0.1 ready local node=other", "10.0.0.2 ready node=here"],
            Some(&["10.0.0.2"]),
            Some(&["10.0.0.1"]),
        ),
    ]);
}

#[test]
fn s24_fallbacks_are_independent() {
    check(&[
        (
            "Cluster has a ready one, Local has not",
            &["10.0.0.1 ready", "10.0.0.2 serving terminating local"],
            Some(&["10.0.0.1"]),
            Some(&["10.0.0.2"]),
        ),
        (
            "both fall back",
            &["10.0.0.1 serving terminating", "10.0.0.2 serving terminating local"],
            Some(&["10.0.0.1", "10.0.0.2"]),
            Some(&["10.0.0.2"]),
        ),
    ]);
}

#[test]
fn s25_what_terminates_without_serving_is_never_used() {
    check(&[
        ("alone", &["10.0.0.1 terminating local"], None, None),
        (
            "beside one that serves",
            &["10.0.0.1 terminating local", "10.0.0.2 serving terminating"],
            Some(&["10.0.0.2"]),
            Some(&[]),
        ),
    ]);
}

#[test]
fn s26_published_though_not_ready_is_ready() {
    // The endpoints controller says ready: true, even of what terminates.
    check(&[(
        "ready and terminating",
        &["10.0.0.1 ready terminating local"],
        Some(&["10.0.0.1"]),
        Some(&["10.0.0.1"]),
    )]);
}

#[test]
fn s29_s34_a_local_policy_drops_when_endpoints_are_elsewhere() {
    let local = Service { internal_traffic_policy: TrafficPolicy::Local, ..service() };
    let answer = |endpoints: &[&str]| {
        let content = v4(&local, &[slice("cart-1", 8080, endpoints)]);
        let policies: BTreeSet<_> = content.frontends.values().map(|p| format!("{p:?}")).collect();
        assert_eq!(policies.len(), 1);
        let policy = content.frontends.values().next().unwrap().inside;
        content.answer(policy).clone()
    };
    assert_eq!(answer(&["10.0.0.1 ready"]), Answer::Drop);
    assert_eq!(answer(&["10.0.0.1 serving terminating"]), Answer::Drop);
    assert_eq!(answer(&["10.0.0.1"]), Answer::Reject);
    assert_eq!(answer(&["10.0.0.1 ready", "10.0.0.2 ready local"]), forward(&["10.0.0.2"]));
}

#[test]
fn s30_s31_hints() {
    check(&[
        (
            "every ready one has a zone and one matches",
            &["10.0.0.1 ready zone=a", "10.0.0.2 ready zone=b", "10.0.0.3 ready zone=b zone=a"],
            Some(&["10.0.0.1", "10.0.0.3"]),
            Some(&[]),
        ),
        (
            "one hint is missing",
            &["10.0.0.1 ready zone=a", "10.0.0.2 ready zone=b", "10.0.0.3 ready"],
            Some(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
            Some(&[]),
        ),
        (
            "no zone matches",
            &["10.0.0.1 ready zone=c", "10.0.0.2 ready zone=b"],
            Some(&["10.0.0.1", "10.0.0.2"]),
            Some(&[]),
        ),
        (
            "what is not ready has no say",
            &["10.0.0.1 ready zone=a", "10.0.0.2 ready zone=b", "10.0.0.3", "10.0.0.4 serving terminating"],
            Some(&["10.0.0.1"]),
            Some(&[]),
        ),
        (
            "nodes come before zones",
            &[
                "10.0.0.1 ready zone=a node=other",
                "10.0.0.2 ready zone=a node=here",
                "10.0.0.3 ready zone=b node=third",
            ],
            Some(&["10.0.0.2"]),
            Some(&[]),
        ),
        (
            "one node is missing, zones hold",
            &["10.0.0.1 ready zone=a node=here", "10.0.0.2 ready zone=a", "10.0.0.3 ready zone=b node=here"],
            Some(&["10.0.0.1", "10.0.0.2"]),
            Some(&[]),
        ),
        (
            "no node matches, zones hold",
            &["10.0.0.1 ready zone=a node=other", "10.0.0.2 ready zone=b node=other"],
            Some(&["10.0.0.1"]),
            Some(&[]),
        ),
    ]);
}

#[test]
fn s32_the_own_zone_is_that_of_the_node_object() {
    let node = |zone: Option<&str>| Node {
        name: HERE.into(),
        labels: Labels::new(),
        zone: zone.map(Into::into),
        internal_ips: vec![],
        external_ips: vec![],
        leaving: false,
        pod_cidrs: vec![],
        annotated: None,
    };
    let slices = [slice("cart-1", 8080, &["10.0.0.1 ready zone=a", "10.0.0.2 ready zone=b"])];
    let answer = |node: Option<&Node>| {
        let content = compile_service(&service(), &slices, &Place::new(HERE, node));
        content.ports.into_values().next().unwrap().cluster
    };
    assert_eq!(answer(Some(&node(Some("a")))), forward(&["10.0.0.1"]));
    assert_eq!(answer(Some(&node(Some("b")))), forward(&["10.0.0.2"]));
    assert_eq!(answer(Some(&node(None))), forward(&["10.0.0.1", "10.0.0.2"]));
    assert_eq!(answer(None), forward(&["10.0.0.1", "10.0.0.2"]));
}

#[test]
fn s33_no_endpoint_anywhere_refuses() {
    check(&[("nothing", &[], None, None)]);
    let content = compile_service(&service(), &[], &place());
    assert!(content.ports.values().all(|port| port.cluster == Answer::Reject && port.local == Answer::Reject));
    assert_eq!(content.ports.len(), 2);
}

#[test]
fn s40_flows_may_stay_with_whatever_serves() {
    let endpoints =
        ["10.0.0.1 ready zone=a", "10.0.0.2 ready zone=b", "10.0.0.3 serving terminating", "10.0.0.4 terminating"];
    let content = v4(&service(), &[slice("cart-1", 8080, &endpoints)]);
    assert_eq!(content.cluster, forward(&["10.0.0.1"]));
    assert_eq!(Answer::Forward(content.in_service), forward(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]));
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let hints = |names: [&'static str; 2]| proptest::sample::subsequence(names.to_vec(), 0..=2);
    (1u8..6, any::<[bool; 4]>(), hints([HERE, "other"]), hints([ZONE, "b"])).prop_map(
        |(host, [ready, serving, terminating, local], nodes, zones)| Endpoint {
            ready,
            serving,
            terminating,
            node_name: local.then(|| HERE.into()),
            node_hints: nodes.into_iter().map(Into::into).collect(),
            zone_hints: zones.into_iter().map(Into::into).collect(),
            ..endpoint(&format!("10.0.0.{host}"))
        },
    )
}

proptest! {
    #[test]
    fn the_answer_does_not_depend_on_how_slices_are_cut(
        endpoints in proptest::collection::vec(any_endpoint(), 0..8),
        cut in 0usize..8,
    ) {
        let with = |endpoints: &[Endpoint]| EndpointSlice {
            endpoints: endpoints.to_vec(),
            ..slice("cart-1", 8080, &[])
        };
        let (one, two) = endpoints.split_at(cut.min(endpoints.len()));
        prop_assert_eq!(v4(&service(), &[with(&endpoints)]), v4(&service(), &[with(one), with(two)]));
    }

    #[test]
    fn every_answer_keeps_its_promises(mut endpoints in proptest::collection::vec(any_endpoint(), 0..8)) {
        endpoints.sort_by_key(|e| e.addresses[0]);
        endpoints.dedup_by_key(|e| e.addresses[0]);
        let slice = EndpointSlice { endpoints: endpoints.clone(), ..slice("cart-1", 8080, &[]) };
        let content = v4(&service(), &[slice]);
        let is_usable = |e: &Endpoint| e.ready || (e.serving && e.terminating);
        let is_local = |e: &Endpoint| e.node_name.as_deref() == Some(HERE);
        let any = endpoints.iter().any(is_usable);
        let any_local = endpoints.iter().any(|e| is_usable(e) && is_local(e));
        prop_assert_eq!(content.cluster == Answer::Reject, !any);
        prop_assert_ne!(&content.cluster, &Answer::Drop);
        prop_assert_eq!(content.local == Answer::Reject, !any);
        prop_assert_eq!(content.local == Answer::Drop, any && !any_local);
        for (answer, local) in [(&content.cluster, false), (&content.local, true)] {
            let Answer::Forward(chosen) = answer else { continue };
            prop_assert!(!chosen.is_empty() && chosen.is_subset(&content.in_service));
            let chosen: Vec<_> =
                endpoints.iter().filter(|e| chosen.iter().any(|addr| addr.ip == e.addresses[0])).collect();
            prop_assert!(chosen.iter().all(|e| is_usable(e) && (!local || is_local(e))));
            // What is ready and what only ends are never mixed.
            prop_assert!(chosen.iter().all(|e| e.ready) || chosen.iter().all(|e| !e.ready));
            if chosen.iter().any(|e| !e.ready) {
                prop_assert!(!endpoints.iter().any(|e| e.ready && (!local || is_local(e))));
            }
        }
    }
}
