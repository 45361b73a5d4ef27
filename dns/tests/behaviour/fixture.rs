//! A small cluster.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, RwLock};

use fairlead_dns::forward::{Config, Forwarder, Limits, Rules};
use fairlead_dns::full::Responder;
use fairlead_dns::hosts::Hosts;
use fairlead_dns::manner::Manner;
use fairlead_dns::site::Site;
use fairlead_dns::site::log::Gate;
use fairlead_dns::stats::Stats;
use fairlead_dns::{Builder, WireName, Zone};
use fairlead_objects::{
    AddressType, Endpoint, EndpointPort, EndpointSlice, Event, Labels, Namespace, Object, ObjectKey, Protocol, Service,
    ServicePort, ServiceType, TrafficPolicy,
};

pub(crate) const MANNER: Manner = Manner { recursion: false, max_udp: 1232 };

pub(crate) fn namespace(name: &str) -> Object {
    Object::Namespace(Namespace { name: name.to_owned(), labels: Labels::new() })
}

/// A port of a service or a slice: name, protocol, number.
pub(crate) type Port = (&'static str, Protocol, u16);

/// A ClusterIP service, or a headless one without addresses.
pub(crate) fn service(namespace: &str, name: &str, addresses: &[&str], ports: &[Port]) -> Service {
    let port = |(name, protocol, port): &Port| ServicePort {
        name: (*name).to_owned(),
        protocol: *protocol,
        port: *port,
        node_port: None,
    };
    Service {
        key: ObjectKey::new(namespace, name),
        created: None,
        service_type: ServiceType::ClusterIp,
        cluster_ips: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        headless: addresses.is_empty(),
        external_name: None,
        ports: ports.iter().map(port).collect(),
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

pub(crate) fn external(namespace: &str, name: &str, target: &str) -> Object {
    let mut service = service(namespace, name, &[], &[]);
    service.service_type = ServiceType::ExternalName;
    service.headless = false;
    service.external_name = Some(target.to_owned());
    Object::Service(service)
}

pub(crate) fn endpoint(address: &str, hostname: &str, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.parse().unwrap()],
        ready,
        serving: true,
        terminating: false,
        hostname: Some(hostname).filter(|h| !h.is_empty()).map(ToOwned::to_owned),
        node_name: None,
        zone: None,
        zone_hints: vec![],
        node_hints: vec![],
        pod: None,
    }
}

pub(crate) fn slice(
    namespace: &str,
    name: &str,
    service: &str,
    ports: &[Port],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let v6 = endpoints.iter().flat_map(|e| &e.addresses).any(IpAddr::is_ipv6);
    let port = |(name, protocol, port): &Port| EndpointPort {
        name: Some((*name).to_owned()),
        protocol: *protocol,
        port: Some(*port),
    };
    EndpointSlice {
        key: ObjectKey::new(namespace, name),
        service_name: Some(service).filter(|s| !s.is_empty()).map(ToOwned::to_owned),
        address_type: if v6 { AddressType::Ipv6 } else { AddressType::Ipv4 },
        ports: ports.iter().map(port).collect(),
        endpoints,
        triggered: None,
    }
}

/// The objects of the cluster that most tests ask about.
pub(crate) fn cluster() -> Vec<Object> {
    use Protocol::{Tcp, Udp};
    let mut terminating = endpoint("10.244.1.13", "pets-3", false);
    terminating.terminating = true;
    let mut names = slice("shop", "pets-names", "pets", &[], vec![endpoint("10.244.9.9", "names", true)]);
    names.address_type = AddressType::Fqdn;
    let six = (1..=6).map(|n| endpoint(&format!("10.244.2.{n}"), "", true)).collect();
    let many = (1..=250).map(|n| endpoint(&format!("10.244.3.{n}"), "", true)).collect();
    let db: &[Port] = &[("db", Tcp, 5432), ("metrics", Tcp, 9100)];
    let slices = [
        slice(
            "shop",
            "pets-4",
            "pets",
            db,
            vec![
                endpoint("10.244.1.10", "pets-0", true),
                endpoint("10.244.1.11", "pets-1", true),
                endpoint("10.244.1.12", "pets-2", false),
                terminating,
            ],
        ),
        slice("shop", "pets-6", "pets", db, vec![endpoint("fd00:10:244:1::10", "pets-0", true)]),
        names,
        slice("shop", "orphan", "", db, vec![endpoint("10.244.9.1", "orphan", true)]),
        slice("shop", "idle-1", "idle", db, vec![endpoint("10.244.1.20", "idle-0", false)]),
        slice("shop", "four-1", "four", &[("web", Tcp, 80)], vec![endpoint("10.244.1.30", "", true)]),
        slice(
            "shop",
            "bare-1",
            "bare",
            &[],
            vec![endpoint("10.244.1.40", "", true), endpoint("10.244.1.41", "", true)],
        ),
        slice("shop", "split-1", "split", &[("web", Tcp, 80)], vec![endpoint("10.244.1.50", "x", true)]),
        slice("shop", "split-2", "split", &[("web", Tcp, 80)], vec![endpoint("10.244.1.50", "x", true)]),
        slice(
            "shop",
            "twin-1",
            "twin",
            &[("web", Tcp, 80)],
            vec![endpoint("10.244.1.60", "twin", true), endpoint("10.244.1.61", "twin", true)],
        ),
        slice("shop", "six-1", "six", &[("c-port", Udp, 1234)], six),
        slice("shop", "many-1", "many", &[("web", Tcp, 80)], many),
        slice("shop", "web-1", "web", &[("http", Tcp, 8080)], vec![endpoint("10.244.1.70", "backend", true)]),
        slice("shop", "24x7-1", "24x7", &[("web", Tcp, 80)], vec![endpoint("10.244.1.80", "24x7-0", true)]),
        slice("shop", "pets-twice", "pets-again", db, vec![endpoint("10.244.1.10", "pets-0", true)]),
    ];
    let services = [
        service("shop", "web", &["10.96.0.1", "fd00:10:96::1"], &[("http", Tcp, 80), ("dns", Udp, 53)]),
        service("shop", "2nd", &["10.96.0.2"], &[("http", Tcp, 80)]),
        service("shop", "24x7", &[], &[]),
        service("shop", "web4", &["10.96.0.4"], &[("", Tcp, 80)]),
        service("shop", "web6", &["fd00:10:96::6"], &[("http", Tcp, 80)]),
        service("shop", "pets", &[], &[]),
        service("shop", "pets-again", &[], &[]),
        service("shop", "idle", &[], &[]),
        service("shop", "lonely", &[], &[]),
        service("shop", "four", &[], &[]),
        service("shop", "bare", &[], &[]),
        service("shop", "split", &[], &[]),
        service("shop", "twin", &[], &[]),
        service("shop", "six", &[], &[]),
        service("shop", "many", &[], &[]),
        service("kube-system", "kube-dns", &["10.96.0.10", "fd00:10:96::a"], &[("dns", Udp, 53), ("dns-tcp", Tcp, 53)]),
    ];
    let others = [
        namespace("shop"),
        namespace("empty"),
        namespace("kube-system"),
        external("shop", "inside", "web.shop.svc.cluster.local"),
        external("shop", "twice", "inside.shop.svc.cluster.local"),
        external("shop", "outside", "www.example.org"),
        external("shop", "address", "192.0.2.1"),
        external("shop", "loop-a", "loop-b.shop.svc.cluster.local"),
        external("shop", "loop-b", "loop-a.shop.svc.cluster.local"),
        external("shop", "dangling", "nothing.shop.svc.cluster.local"),
    ];
    let slices = slices.into_iter().map(Object::EndpointSlice);
    others.into_iter().chain(services.into_iter().map(Object::Service)).chain(slices).collect()
}

pub(crate) fn builder() -> Builder {
    Builder::new(&origin()).unwrap()
}

pub(crate) fn origin() -> WireName {
    WireName::parse("cluster.local").unwrap()
}

/// A zone of these events.
pub(crate) fn zone_of(events: impl IntoIterator<Item = Event>) -> Zone {
    let mut zone = Zone::new(origin(), 5).unwrap();
    let mut builder = builder();
    events.into_iter().for_each(|event| builder.apply(event));
    builder.settle().into_iter().for_each(|delta| zone.update(delta));
    if builder.is_synced() {
        zone.set_synced();
    }
    zone
}

/// The zone of the small cluster, synced.
pub(crate) fn zone() -> Zone {
    zone_of(cluster().into_iter().map(Event::Applied).chain(Builder::KINDS.map(Event::Synced)))
}

/// A forwarder that keeps nothing.
pub(crate) fn forwarder(upstreams: &[SocketAddr], limits: Limits) -> Option<Arc<Forwarder>> {
    let rules = Rules { bytes: 0, ..Rules::default() };
    Forwarder::new(Config { upstreams: crate::upstreams::all(upstreams), limits, rules, ..Config::default() })
        .map(Arc::new)
}

pub(crate) fn responder(zone: Zone, forwarder: Option<Arc<Forwarder>>) -> Arc<Responder> {
    let site = Site::plain(zone.origin(), forwarder, Hosts::default());
    of_site(zone, site)
}

/// A responder that answers as a site says.
pub(crate) fn of_site(zone: Zone, site: Site) -> Arc<Responder> {
    let manner = site.manner(MANNER);
    Arc::new(Responder {
        zone: Arc::new(RwLock::new(zone)),
        site: RwLock::new(Arc::new(site)),
        gate: Gate::default(),
        manner,
        transfers: Default::default(),
        names: Default::default(),
        stats: Stats::default(),
    })
}

/// The only forwarder of a responder.
pub(crate) fn forwarder_of(responder: &Responder) -> Arc<Forwarder> {
    let [forwarder] = &responder.site().forwarders()[..] else { panic!("there is one forwarder") };
    Arc::clone(forwarder)
}
