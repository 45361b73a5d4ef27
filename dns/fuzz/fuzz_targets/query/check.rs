//! What must hold for any bytes that arrive as a query.

use std::cell::RefCell;
use std::sync::{Arc, RwLock};

use fairlead_datapath::testing::Node;
use fairlead_dns::fast;
use fairlead_dns::full::{Outcome, Responder};
use fairlead_dns::hosts::Hosts;
use fairlead_dns::manner::Manner;
use fairlead_dns::manner::Transport;
use fairlead_dns::site::Site;
use fairlead_dns::site::log::Gate;
use fairlead_dns::stats::Stats;
use fairlead_dns::{Builder, WireName, Zone};
use fairlead_objects::{
    AddressType, Endpoint, EndpointPort, EndpointSlice, Event, Labels, Namespace, Object, ObjectKey, Protocol, Service,
    ServicePort, ServiceType, TrafficPolicy,
};

use crate::kernel::{kernel_says, node};

const MANNER: Manner = Manner { recursion: false, max_udp: 1232 };

thread_local! {
    static RESPONDER: Responder = responder();
    static NODE: RefCell<Node> = RESPONDER.with(|responder| {
        let zone = responder.zone.read().expect("nobody panics with the zone");
        RefCell::new(node(&zone, MANNER))
    });
}

/// Nothing panics, a query gets at most one response of a fitting size with its id, the short way says what the long way
/// says, and what the kernel says in the server's place is what the short way says.
///
/// # Panics
/// When one of these doesn't hold.
pub(crate) fn check(query: &[u8]) {
    RESPONDER.with(|responder| {
        let mut short = Vec::new();
        let zone = responder.zone.read().expect("nobody panics with the zone");
        let answered = fast::respond(&zone, MANNER, query, &mut short);
        drop(zone);
        // What is longer comes in fragments, or not at all.
        if query.len() <= 1400 {
            for (v6, partial) in [(false, true), (true, false)] {
                let said = NODE.with(|node| kernel_says(&mut node.borrow_mut(), query, v6, partial));
                assert!(said.is_none_or(|said| answered && said == short), "the kernel agrees");
            }
        }
        for transport in [Transport::Udp, Transport::Tcp] {
            match responder.respond(query, transport) {
                Outcome::Reply(response) => {
                    let long = response.encode();
                    assert_eq!(long.first_chunk::<2>(), query.first_chunk::<2>(), "the response has the query's id");
                    assert!(transport == Transport::Tcp || long.len() <= 1232, "the response fits");
                    assert!(!answered || short == long, "the tiers agree: {short:?} {long:?}");
                }
                Outcome::Silence => assert!(!answered, "what is ignored is ignored by every tier"),
                Outcome::Pending(_) => panic!("there is no upstream server to wait for"),
                Outcome::Transfer(_) => panic!("nobody may have a zone"),
            }
        }
    });
}

fn responder() -> Responder {
    let origin = WireName::parse("cluster.local").expect("it is a name");
    let mut zone = Zone::new(origin.clone(), 5).expect("there is room below it");
    let mut builder = Builder::new(&origin).expect("there is room below it");
    objects().into_iter().map(Event::Applied).for_each(|event| builder.apply(event));
    builder.settle().into_iter().for_each(|delta| zone.update(delta));
    zone.set_synced();
    Responder {
        zone: Arc::new(RwLock::new(zone)),
        site: RwLock::new(Arc::new(Site::plain(&origin, None, Hosts::default()))),
        gate: Gate::default(),
        manner: MANNER,
        transfers: Default::default(),
        names: Default::default(),
        stats: Stats::default(),
    }
}

/// A service with a cluster address, a headless one, and aliases, all in the namespace `n`.
fn objects() -> Vec<Object> {
    let with = |name: &str, change: &dyn Fn(&mut Service)| {
        let mut service = service(name);
        change(&mut service);
        Object::Service(service)
    };
    let alias = |name: &str, target: &str| {
        with(name, &|service| {
            service.service_type = ServiceType::ExternalName;
            service.external_name = Some(target.to_owned());
        })
    };
    vec![
        Object::Namespace(Namespace { name: "n".to_owned(), labels: Labels::new() }),
        with("s", &|service| {
            service.cluster_ips = ["10.0.0.1", "fd00::1"].iter().filter_map(|ip| ip.parse().ok()).collect();
            service.ports =
                vec![ServicePort { name: "p".to_owned(), protocol: Protocol::Tcp, port: 80, node_port: None }];
        }),
        with("h", &|service| service.headless = true),
        alias("x", "s.n.svc.cluster.local"),
        alias("y", "example.org"),
        Object::EndpointSlice(EndpointSlice {
            triggered: None,
            key: ObjectKey::new("n", "h-1"),
            service_name: Some("h".to_owned()),
            address_type: AddressType::Ipv4,
            ports: vec![EndpointPort { name: Some("p".to_owned()), protocol: Protocol::Udp, port: Some(53) }],
            endpoints: (1..=90).map(endpoint).collect(),
        }),
    ]
}

fn service(name: &str) -> Service {
    Service {
        key: ObjectKey::new("n", name),
        created: None,
        service_type: ServiceType::ClusterIp,
        cluster_ips: vec![],
        headless: false,
        external_name: None,
        ports: vec![],
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

fn endpoint(number: u8) -> Endpoint {
    Endpoint {
        addresses: vec![[10, 1, 0, number].into()],
        ready: true,
        serving: true,
        terminating: false,
        hostname: Some(format!("h-{number}")),
        node_name: None,
        zone: None,
        zone_hints: vec![],
        node_hints: vec![],
        pod: None,
    }
}
