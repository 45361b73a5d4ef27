//! Addresses and ports.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use fairlead_objects::{
    AddressType, ContainerPort, Endpoint, EndpointPort, EndpointSlice, Event, Kind, LoadBalancerIngress, Object,
    Protocol, Service, ServicePort, ServiceType, TrafficPolicy,
};

use super::*;
use crate::compile::services::FrontendKind;
use crate::model::{NodeLocalDns, Rules, Whole};

/// A service in words: `external=IP`, `balancer=IP`, `cluster=IP`, `port=N`, `node-port=N`, `udp`.
fn service(name: &str, words: &str) -> Service {
    let mut service = Service {
        key: ObjectKey::new("shop", name),
        created: None,
        service_type: ServiceType::ClusterIp,
        cluster_ips: vec![],
        headless: false,
        external_name: None,
        ports: vec![ServicePort { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: None }],
        affinity_seconds: None,
        internal_traffic_policy: TrafficPolicy::Cluster,
        external_traffic_policy: TrafficPolicy::Cluster,
        external_ips: vec![],
        load_balancer: vec![],
        load_balancer_names: vec![],
        source_ranges: vec![],
        health_check_node_port: None,
        proxy_name: None,
    };
    for word in words.split_whitespace() {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "external" => service.external_ips.push(ip(value)),
            "cluster" => service.cluster_ips.push(ip(value)),
            "port" => service.ports[0].port = value.parse().unwrap(),
            "udp" => service.ports[0].protocol = Protocol::Udp,
            "balancer" => {
                service.service_type = ServiceType::LoadBalancer;
                service.load_balancer.push(LoadBalancerIngress { ip: ip(value), vip: true });
            }
            "node-port" => {
                if service.service_type == ServiceType::ClusterIp {
                    service.service_type = ServiceType::NodePort;
                }
                service.ports[0].node_port = Some(value.parse().unwrap());
            }
            other => panic!("{other}"),
        }
    }
    service
}

/// The endpoints of the API server.
fn api_servers(addresses: &[&str], port: u16) -> EndpointSlice {
    let endpoint = |text: &&str| Endpoint {
        addresses: vec![ip(text)],
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node_name: None,
        zone: None,
        zone_hints: vec![],
        node_hints: vec![],
        pod: None,
    };
    EndpointSlice {
        key: ObjectKey::new("default", "kubernetes"),
        service_name: Some("kubernetes".into()),
        address_type: AddressType::Ipv4,
        ports: vec![EndpointPort { name: Some("https".into()), protocol: Protocol::Tcp, port: Some(port) }],
        endpoints: addresses.iter().map(endpoint).collect(),
        triggered: None,
    }
}

#[test]
fn p53_link_local_loopback_and_metadata_addresses_are_no_endpoints() {
    let slice = |addresses: &[&str]| {
        let mut slice = api_servers(addresses, 8080);
        slice.key = ObjectKey::new("shop", "web-1");
        slice.service_name = Some("web".into());
        slice.ports[0].name = Some(String::new());
        if addresses.iter().any(|text| text.contains(':')) {
            slice.address_type = AddressType::Ipv6;
        }
        slice
    };
    let metadata = ["169.254.169.254", "fd00:ec2::254", "100.100.100.200"];
    let rules = Rules { metadata: metadata.map(ip).to_vec(), ..Rules::default() };
    let web = service("web", "cluster=10.96.0.50 cluster=fd00:10:96::50");
    let place = Place::new("n1", None);
    for (addresses, refused) in [
        (&["10.244.1.5", "169.254.169.254", "100.100.100.200"][..], &["169.254.169.254", "100.100.100.200"][..]),
        (&["10.244.1.5", "169.254.20.10", "127.0.0.1", "224.0.0.1"], &["169.254.20.10", "127.0.0.1", "224.0.0.1"]),
        (&["fd00:10:244:1::5", "fd00:ec2::254", "fe80::1", "::1"], &["fd00:ec2::254", "fe80::1", "::1"]),
    ] {
        let mut model = cluster(rules.clone());
        model.take(Event::Applied(Object::EndpointSlice(slice(addresses))));
        let (content, refusals) = super::super::service(&model, &web, &place);
        let served: Vec<_> = content.ports.values().flat_map(|port| &port.in_service).map(|addr| addr.ip).collect();
        assert_eq!(served, [ip(addresses[0])]);
        let mut found: Vec<_> = refusals.iter().map(|refusal| refusal.address.ip()).collect();
        let mut expected: Vec<_> = refused.iter().map(|text| ip(text)).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        for dispute in of_refusals(&Party::service(&web.key), &refusals) {
            assert!(refused.iter().any(|text| dispute.text.contains(&format!("the endpoint {text} gets no traffic"))));
        }
        // To a headless service nothing is led by it.
        let headless = Service { cluster_ips: vec![], headless: true, ..web.clone() };
        assert_eq!(super::super::service(&model, &headless, &place).1, []);
    }
}

/// A pod of this node with a hostPort, attached.
fn host_port(number: u16, host_ip: Option<&str>) -> (Pod, LocalPod) {
    let port = ContainerPort {
        name: None,
        port: 8080,
        protocol: Protocol::Tcp,
        host_port: Some(number),
        host_ip: host_ip.map(ip),
    };
    let pod = Pod { container_ports: vec![port], ..pod("web", Some("n1"), &[]) };
    let ips = vec![ip("10.244.1.9")];
    let local = LocalPod {
        slot: 9,
        foreign: None,
        key: pod.key.clone(),
        uid: String::new(),
        ips,
        pod_mac: [0; 6],
        host_mac: [0; 6],
    };
    (pod, local)
}

/// Node n1, which is this one and has an API server, with a second address that the kernel alone knows; node n2; kube-dns
/// and a service with a NodePort.
fn cluster(rules: Rules) -> Model {
    let mut model = Model::new("n1").with_rules(rules);
    let objects = [
        Object::Node(node("n1", &["172.18.0.1", "203.0.113.1"], &["10.244.1.0/24"])),
        Object::Node(node("n2", &["172.18.0.2"], &["10.244.2.0/24", "fd00:10:244:2::/64"])),
        Object::Service(service("dns", "cluster=10.96.0.10 port=53")),
        Object::Service(service("front", "cluster=10.96.0.20 node-port=30080")),
        Object::EndpointSlice(api_servers(&["172.18.0.1"], 6443)),
    ];
    objects.into_iter().for_each(|object| model.take(Event::Applied(object)));
    model.set_addresses(
        ["172.18.0.1", "203.0.113.1", "192.168.7.1", "169.254.20.10"].map(ip),
        ["172.18.255.255".parse().unwrap()],
    );
    model
}

fn words(refusals: &[Refusal]) -> Vec<String> {
    refusals.iter().map(ToString::to_string).collect()
}

/// Why a service's address is not served; `None`: it is.
fn refused(model: &Model, text: &str) -> Option<Why> {
    let place = Place::new("n1", model.own_node());
    let own = "cluster=10.96.0.99";
    let (content, refusals) = super::super::service(model, &service("asks", &format!("{own} {text}")), &place);
    let frontends = content.ports.values().flat_map(|port| port.frontends.values());
    let served = frontends.filter(|policy| [FrontendKind::External, FrontendKind::LoadBalancer].contains(&policy.kind));
    assert_eq!(served.count() + refusals.len(), 1, "{text}: {:?}", words(&refusals));
    refusals.into_iter().next().map(|refusal| refusal.why)
}

#[test]
fn s56_addresses_for_the_outside_never_cover_what_belongs_to_the_cluster() {
    let mut model = cluster(Rules {
        tunnel_port: Some(4789),
        health_port: Some(10_256),
        metadata: ["168.63.129.16", "100.100.100.200"].map(ip).to_vec(),
        ..Rules::default()
    });
    let mut checked = service("checked", "cluster=10.96.0.30 balancer=198.51.100.30 node-port=30081");
    checked.health_check_node_port = Some(32_100);
    model.take(Event::Applied(Object::Service(checked)));
    let dns = || Some(Why::ClusterIp(ObjectKey::new("shop", "dns")));
    let range = |text: &str| Some(Why::PodRange(text.parse().unwrap()));
    let front = || Some(Why::NodePort(ObjectKey::new("shop", "front")));
    for kind in ["external", "balancer"] {
        let at = |rest: &str| refused(&model, &format!("{kind}={rest}"));
        // On every port: what nobody listens at is nobody else's either.
        assert_eq!((at("10.96.0.10 port=53"), at("10.96.0.10 port=443")), (dns(), dns()));
        assert_eq!(at("10.244.2.7"), range("10.244.2.0/24"));
        assert_eq!(at("172.18.0.2 port=10250"), Some(Why::Kubelet));
        assert_eq!(at("192.168.7.1 port=10250"), Some(Why::Kubelet), "an address of this node that no object names");
        assert_eq!(at("172.18.0.1 port=6443"), Some(Why::ApiServer));
        assert_eq!(at("203.0.113.1 port=6443"), Some(Why::ApiServer), "another address of the API server's node");
        assert_eq!(at("172.18.0.2 port=30080"), front());
        for special in ["127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255"] {
            assert_eq!(at(special), Some(Why::Special), "{special}");
        }
        assert_eq!(at("172.18.255.255"), Some(Why::Broadcast));
        // What is legitimate: anything else outside, and nodes' addresses at other ports.
        for fine in
            ["198.51.100.7", "172.18.0.2", "172.18.0.2 port=443", "198.51.100.7 port=10250", "172.18.0.2 port=6443"]
        {
            assert_eq!(at(fine), None, "{fine}");
        }
        for metadata in ["168.63.129.16", "100.100.100.200 port=8080"] {
            assert_eq!(at(metadata), Some(Why::Metadata), "{metadata}");
        }
        for node in ["172.18.0.2", "192.168.7.1", "203.0.113.1"] {
            assert_eq!(at(&format!("{node} port=4789 udp")), Some(Why::Tunnel), "{node}");
            assert_eq!(at(&format!("{node} port=4789")), None, "{node}");
            assert_eq!(at(&format!("{node} port=10256")), Some(Why::Health), "{node}");
            assert_eq!(at(&format!("{node} port=32100")), Some(Why::NodePort(ObjectKey::new("shop", "checked"))));
        }
        for fine in ["198.51.100.7 port=4789 udp", "198.51.100.7 port=10256", "172.18.0.2 port=10256 udp"] {
            assert_eq!(at(fine), None, "{fine}");
        }
        assert_eq!(at("172.18.0.2 port=30080 udp"), None);
        assert_eq!(at("172.18.0.2 port=10250 udp"), None);
        assert_eq!(at("172.18.0.2 port=30099 node-port=30099"), None, "its own NodePort");
    }
}

#[test]
fn where_the_agent_reaches_the_api_server_nobody_else_is() {
    let mut model = cluster(Rules::default());
    let front = "external=198.51.100.100 port=6443";
    assert_eq!(refused(&model, front), None);
    model.use_api_server("198.51.100.100:6443".parse().unwrap());
    assert_eq!(refused(&model, front), Some(Why::ApiServer), "a load balancer in front of it");
    assert_eq!(refused(&model, "external=198.51.100.100 port=443"), None);
}

#[test]
fn a_load_balancers_address_may_be_the_services_own_cluster_address() {
    let model = cluster(Rules::default());
    let place = Place::new("n1", model.own_node());
    let tunnelled = service("asks", "cluster=10.96.0.99 balancer=10.96.0.99 external=10.96.0.99");
    let (content, refusals) = super::super::service(&model, &tunnelled, &place);
    let kinds: Vec<_> =
        content.ports.values().flat_map(|port| port.frontends.values()).map(|policy| policy.kind).collect();
    assert_eq!((kinds, refusals), (vec![FrontendKind::Cluster], vec![]));
}

#[test]
fn s57_a_setting_says_which_external_addresses_there_may_be() {
    let closed = cluster(Rules { external_ips: Some(vec![]), ..Rules::default() });
    assert_eq!(refused(&closed, "external=198.51.100.7"), Some(Why::NotPermitted));
    assert_eq!(refused(&closed, "balancer=198.51.100.7"), None, "it is about externalIPs alone");
    let some = cluster(Rules { external_ips: Some(vec!["198.51.100.0/25".parse().unwrap()]), ..Rules::default() });
    assert_eq!(refused(&some, "external=198.51.100.7"), None);
    assert_eq!(refused(&some, "external=198.51.100.200"), Some(Why::NotPermitted));
    // What is permitted covers nobody else's all the same.
    let all = cluster(Rules { external_ips: Some(vec!["0.0.0.0/0".parse().unwrap()]), ..Rules::default() });
    assert_eq!(refused(&all, "external=10.96.0.10"), Some(Why::ClusterIp(ObjectKey::new("shop", "dns"))));
    let pool = |text: &str| Rules { pod_ranges: vec![text.parse().unwrap()], ..Rules::default() };
    let pooled = cluster(pool("10.245.0.0/16"));
    assert_eq!(refused(&pooled, "external=10.245.1.1"), Some(Why::PodRange("10.245.0.0/16".parse().unwrap())));
    assert_eq!(refused(&cluster(pool("0.0.0.0/0")), "external=198.51.100.7"), None, "everything is no pool");
}

#[test]
fn a_host_port_is_at_addresses_that_the_node_has_now() {
    let mut model = cluster(Rules::default());
    let ask = |model: &Model, number, host_ip| {
        let (pod, local) = host_port(number, host_ip);
        let (content, refusals) = host_ports(model, &pod, &local);
        assert_eq!(content.ports.len() + refusals.len(), 1);
        refusals.into_iter().next().map(|refusal| refusal.why)
    };
    for fine in
        [None, Some("0.0.0.0"), Some("127.0.0.1"), Some("172.18.0.1"), Some("192.168.7.1"), Some("169.254.20.10")]
    {
        assert_eq!(ask(&model, 80, fine), None, "{fine:?}");
    }
    for foreign in ["172.18.0.2", "10.244.1.7", "10.244.2.7", "192.0.2.1"] {
        assert_eq!(ask(&model, 80, Some(foreign)), Some(Why::NotOfNode), "{foreign}");
    }
    let dns = Some(Why::ClusterIp(ObjectKey::new("shop", "dns")));
    assert_eq!(ask(&model, 53, Some("10.96.0.10")), dns);
    let front = Some(Why::NodePort(ObjectKey::new("shop", "front")));
    assert_eq!(ask(&model, 30_080, Some("172.18.0.1")), front);
    assert_eq!(ask(&model, 30_080, Some("127.0.0.1")), front);
    assert_eq!(ask(&model, 30_080, None), None, "the planner decides");
    for address in [None, Some("172.18.0.1"), Some("127.0.0.1")] {
        assert_eq!(ask(&model, 10_250, address), Some(Why::Kubelet));
        assert_eq!(ask(&model, 6443, address), Some(Why::ApiServer));
    }
    // The ports at which nodes hear each other, and load balancers them.
    let rules = Rules { tunnel_port: Some(4789), health_port: Some(10_256), ..Rules::default() };
    let guarded = cluster(rules);
    for address in [None, Some("172.18.0.1"), Some("192.168.7.1"), Some("127.0.0.1")] {
        assert_eq!(ask(&guarded, 10_256, address), Some(Why::Health));
        assert_eq!(ask(&guarded, 4789, address), None, "over TCP");
        let (mut pod, local) = host_port(4789, address);
        pod.container_ports[0].protocol = Protocol::Udp;
        let (content, refusals) = host_ports(&guarded, &pod, &local);
        assert_eq!((content.ports.len(), refusals[0].why.clone()), (0, Why::Tunnel), "{address:?}");
    }
    // kube-proxy's IPVS mode leaves cluster addresses on a device of the node.
    let _ = model.take_dirty();
    model.set_addresses(["172.18.0.1", "10.96.0.10"].map(ip), []);
    assert!(model.dirty().whole.contains(&Whole::HostPorts));
    assert_eq!(ask(&model, 53, Some("10.96.0.10")), dns);
    assert_eq!(ask(&model, 80, Some("192.168.7.1")), Some(Why::NotOfNode), "it had it");
}

/// A slice of the service `game` with these endpoints, at the tunnel's port over UDP and at another.
fn at_tunnel(addresses: &[&str]) -> EndpointSlice {
    let port = |name: &str, port, protocol| EndpointPort { name: Some(name.into()), protocol, port: Some(port) };
    let ports =
        vec![port("", 4789, Protocol::Udp), port("other", 4790, Protocol::Udp), port("tcp", 4789, Protocol::Tcp)];
    EndpointSlice {
        key: ObjectKey::new("shop", "game-1"),
        service_name: Some("game".into()),
        ports,
        ..api_servers(addresses, 0)
    }
}

#[test]
fn s66_an_endpoint_at_the_port_of_the_tunnel_of_a_node_is_not_served() {
    let rules = Rules { tunnel_port: Some(4789), ..Rules::default() };
    let mut game = service("game", "cluster=10.96.0.99 udp");
    let named = |name: &str, protocol| ServicePort { name: name.into(), protocol, port: 81, node_port: None };
    game.ports.extend([named("other", Protocol::Udp), named("tcp", Protocol::Tcp)]);
    let found = |model: &Model| {
        let (content, refusals) = super::super::service(model, &game, &Place::new("n1", None));
        let backends = content.ports.iter().map(|(name, port)| {
            let ips: Vec<_> = port.in_service.iter().map(|backend| backend.ip.to_string()).collect();
            (name.port.clone(), ips.join(" "))
        });
        (backends.collect::<BTreeMap<_, _>>(), words(&refusals))
    };
    let all = "10.244.2.9 172.18.0.2 172.18.0.3 192.168.7.1";
    let of = |texts: [(&str, &str); 3]| texts.map(|(port, ips)| (port.to_owned(), ips.to_owned())).into();
    let slice = at_tunnel(&all.split(' ').collect::<Vec<_>>());
    let mut model = cluster(rules);
    model.take(Event::Applied(Object::Service(game.clone())));
    model.take(Event::Applied(Object::EndpointSlice(slice.clone())));
    // By the address of a Node's object, and by one that the kernel of this node has.
    let (backends, refused) = found(&model);
    assert_eq!(backends, of([("", "10.244.2.9 172.18.0.3"), ("other", all), ("tcp", all)]));
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(
        refused[0]
            .starts_with("the endpoint 172.18.0.2:4789/UDP gets no traffic: it is the UDP port of the VXLAN tunnel"),
        "{refused:?}"
    );
    assert!(refused[1].starts_with("the endpoint 192.168.7.1:4789/UDP"), "{refused:?}");
    // A range of NodePorts may hold it.
    let place = Place::new("n1", model.own_node());
    for (words, is_refused) in [("udp node-port=4789", true), ("udp node-port=4790", false), ("node-port=4789", false)]
    {
        let asked = service("asks", &format!("cluster=10.96.0.99 {words}"));
        let (content, refusals) = super::super::service(&model, &asked, &place);
        let kinds = content.ports.values().flat_map(|port| port.frontends.values()).map(|policy| policy.kind);
        assert_eq!(kinds.filter(|kind| *kind == FrontendKind::NodePort).count() > 0, !is_refused, "{words}");
        assert_eq!(refusals.iter().any(|refusal| refusal.why == Why::Tunnel), is_refused, "{words}");
    }
    // A node comes later.
    Kind::ALL.into_iter().for_each(|kind| model.take(Event::Synced(kind)));
    model.take_dirty();
    model.take(Event::Applied(Object::Node(node("n3", &["172.18.0.3"], &[]))));
    assert!(model.take_dirty().services.contains(&game.key));
    assert_eq!(found(&model).0[""], "10.244.2.9");
    // So do addresses of this one.
    model.set_addresses(["10.244.2.9"].map(ip), []);
    assert!(model.take_dirty().services.contains(&game.key));
    assert_eq!(found(&model).0[""], "192.168.7.1");
    // Without a tunnel there is nothing to protect.
    let mut model = cluster(Rules::default());
    model.take(Event::Applied(Object::EndpointSlice(slice)));
    assert_eq!(found(&model), (of([("", all), ("other", all), ("tcp", all)]), vec![]));
}

#[test]
fn an_object_that_claims_much_is_told_of_in_few_words() {
    let words: Vec<_> = (1..=20).map(|host| format!("external=10.244.2.{host}")).collect();
    let model = cluster(Rules::default());
    let thief = service("thief", &format!("cluster=10.96.0.99 {}", words.join(" ")));
    let (_, refusals) = super::super::service(&model, &thief, &Place::new("n1", None));
    assert_eq!(refusals.len(), 20);
    let told = of_refusals(&Party::service(&thief.key), &refusals);
    assert_eq!(told.len(), 9);
    assert!(told[8].text.contains("12 more"), "{}", told[8].text);
}

// ---- Objects come and go.

/// A change to the cluster.
#[derive(Debug, Clone)]
enum Step {
    Apply(Box<Object>),
    Delete(Kind, ObjectKey),
    Own(Vec<IpAddr>),
}

const IPS: [&str; 6] = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "10.0.1.2", "127.0.0.1", "fd00::1"];
const PORTS: [u16; 6] = [80, 443, 4789, 6443, 10_250, 30_080];

fn any_ips(most: usize) -> impl Strategy<Value = Vec<IpAddr>> {
    proptest::sample::subsequence(IPS.map(ip).to_vec(), 0..=most)
}

fn any_service() -> impl Strategy<Value = Object> {
    let port = || proptest::sample::select(PORTS.to_vec());
    let ips = (any_ips(1), any_ips(2), any_ips(2));
    // A NodePort of the tunnel's is no claim for the outside.
    let node_port = prop::option::of(port().prop_filter("no NodePort", |port| *port != 4789));
    let ports = (port(), node_port, prop::option::of(port()));
    ("[a-c]", ips, ports, any::<[bool; 2]>()).prop_map(
        |(name, (cluster, external, balancer), (port, node_port, checked), [udp, balanced])| {
            let mut found = service(&name, if udp { "udp" } else { "" });
            found.cluster_ips = cluster;
            found.external_ips = external;
            found.ports[0].port = port;
            found.ports[0].node_port = node_port;
            if node_port.is_some() {
                found.service_type = ServiceType::NodePort;
            }
            if balanced {
                found.service_type = ServiceType::LoadBalancer;
                found.load_balancer = balancer.into_iter().map(|ip| LoadBalancerIngress { ip, vip: true }).collect();
                found.health_check_node_port = checked;
            }
            Object::Service(found)
        },
    )
}

fn apply(object: Object) -> Step {
    Step::Apply(Box::new(object))
}

fn any_step() -> impl Strategy<Value = Step> {
    let ranges = proptest::sample::subsequence(vec!["10.0.1.0/24", "10.0.0.2/32", "fd00::/64", "10.0.0.0/16"], 0..=2);
    let node = ("[m-n]", any_ips(2), ranges)
        .prop_map(|(name, ips, ranges)| Object::Node(Node { internal_ips: ips, ..node(&name, &[], &ranges) }));
    let slice = (any_ips(2), proptest::sample::select(PORTS.to_vec())).prop_map(|(ips, port)| {
        let texts: Vec<_> = ips.iter().map(ToString::to_string).collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        Object::EndpointSlice(api_servers(&texts, port))
    });
    let services =
        proptest::sample::select(vec!["a", "b", "c"]).prop_map(|name| (Kind::Service, ObjectKey::new("shop", name)));
    let nodes = proptest::sample::select(vec!["m", "n"]).prop_map(|name| (Kind::Node, ObjectKey::cluster(name)));
    let slices = Just((Kind::EndpointSlice, ObjectKey::new("default", "kubernetes")));
    prop_oneof![
        6 => any_service().prop_map(apply),
        3 => node.prop_map(apply),
        2 => slice.prop_map(apply),
        2 => prop_oneof![3 => services, 1 => nodes, 1 => slices].prop_map(|(kind, key)| Step::Delete(kind, key)),
        1 => any_ips(2).prop_map(Step::Own),
    ]
}

/// Why a claim for the outside does not count, by looking at every object.
fn naive(
    model: &Model,
    own: &[IpAddr],
    who: &Service,
    address: SocketAddr,
    protocol: Protocol,
) -> Option<&'static str> {
    let (ip, port) = (address.ip(), address.port());
    if ip.is_loopback() {
        return Some("special");
    }
    let others = || model.services().filter(|other| other.key != who.key);
    if others().any(|other| other.cluster_ips.contains(&ip)) {
        return Some("cluster");
    }
    if model.nodes().any(|node| node.pod_cidrs.iter().any(|range| range.contains(ip))) {
        return Some("pods");
    }
    let places = model.nodes().map(|node| node.internal_ips.clone()).chain([own.to_vec()]).collect::<Vec<_>>();
    let at_node = places.iter().any(|ips| ips.contains(&ip));
    let tcp = protocol == Protocol::Tcp;
    if tcp && at_node && port == 10_250 {
        return Some("kubelet");
    }
    let slices = model.slices().filter(|slice| slice.ports[0].port == Some(port));
    let api: Vec<IpAddr> = slices.flat_map(|slice| &slice.endpoints).map(|endpoint| endpoint.addresses[0]).collect();
    let beside = places.iter().any(|ips| ips.contains(&ip) && ips.iter().any(|ip| api.contains(ip)));
    if tcp && (api.contains(&ip) || beside) {
        return Some("api");
    }
    if at_node && (protocol, port) == (Protocol::Udp, 4789) {
        return Some("tunnel");
    }
    if at_node && tcp && port == 443 {
        return Some("health");
    }
    let has = |other: &&Service| {
        let kind = matches!(other.service_type, ServiceType::NodePort | ServiceType::LoadBalancer);
        let of_ports = other.ports.iter().any(|p| p.node_port == Some(port) && p.protocol == protocol);
        kind && (of_ports || tcp && other.health_check_node_port == Some(port))
    };
    (at_node && others().any(|other| has(&other))).then_some("node port")
}

fn name(why: &Why) -> &'static str {
    match why {
        Why::Special => "special",
        Why::Broadcast => "broadcast",
        Why::NotPermitted => "not permitted",
        Why::ClusterIp(_) => "cluster",
        Why::PodRange(_) => "pods",
        Why::NodePort(_) => "node port",
        Why::Kubelet => "kubelet",
        Why::ApiServer => "api",
        Why::NotOfNode => "not of node",
        Why::Metadata | Why::NoServer => "endpoint",
        Why::NodeLocalDns => "node-local DNS",
        Why::Tunnel => "tunnel",
        Why::Health => "health",
    }
}

proptest! {
    /// Compiling again what is said to have changed leaves everything as if all had been compiled again.
    #[test]
    fn what_has_to_be_compiled_again_is_told(steps in prop::collection::vec(any_step(), 1..12)) {
        let rules = Rules { tunnel_port: Some(4789), health_port: Some(443), ..Rules::default() };
        let mut model = Model::new("m").with_rules(rules);
        Kind::ALL.into_iter().for_each(|kind| model.take(Event::Synced(kind)));
        let place = Place::new("m", None);
        let mut own = vec![];
        let mut kept: BTreeMap<ObjectKey, Vec<(SocketAddr, Protocol, &str)>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Apply(object) => model.take(Event::Applied(*object)),
                Step::Delete(kind, key) => model.take(Event::Deleted(kind, key)),
                Step::Own(ips) => {
                    own.clone_from(&ips);
                    model.set_addresses(ips, []);
                }
            }
            for key in model.take_dirty().services {
                let Some(service) = model.service(&key) else {
                    kept.remove(&key);
                    continue;
                };
                let (content, refusals) = super::super::service(&model, service, &place);
                let refusals: Vec<_> = refusals.iter().map(|r| (r.address, r.protocol, name(&r.why))).collect();
                // What is refused is not served.
                let frontends = content.ports.iter().flat_map(|(name, port)| port.frontends.keys().map(move |key| (name, key)));
                for (name, key) in frontends {
                    let address = SocketAddr::new(key.addr.into(), key.port.number());
                    prop_assert!(!refusals.iter().any(|(other, protocol, _)| (*other, *protocol) == (address, name.protocol)));
                }
                kept.insert(key, refusals);
            }
            for service in model.services() {
                let mut expected = vec![];
                let port = &service.ports[0];
                let balancers = service.load_balancer.iter().map(|ingress| ingress.ip);
                for claimed in service.external_ips.iter().copied().chain(balancers) {
                    let served = service.cluster_ips.iter().any(|ip| ip.is_ipv4() == claimed.is_ipv4());
                    let address = SocketAddr::new(claimed, port.port);
                    if !served || service.cluster_ips.contains(&claimed) {
                        continue;
                    }
                    let why = naive(&model, &own, service, address, port.protocol);
                    expected.extend(why.map(|why| (address, port.protocol, why)));
                }
                expected.sort();
                expected.dedup();
                let mut found = kept[&service.key].clone();
                found.sort();
                prop_assert_eq!(found, expected, "{:?}", service);
            }
        }
    }
}

#[test]
fn s65_nobody_else_has_an_address_of_node_local_dns() {
    let node_local_dns = NodeLocalDns {
        addresses: vec![ip("169.254.20.10"), ip("fd00:90::10")],
        service: ObjectKey::new("shop", "dns"),
    };
    let model = cluster(Rules { node_local_dns, ..Rules::default() });
    assert_eq!(refused(&model, "external=fd00:90::10 cluster=fd00:10:96::99"), Some(Why::NodeLocalDns));
    assert_eq!(refused(&model, "balancer=169.254.20.10"), Some(Why::Special));
    let (pod, local) = host_port(53, Some("169.254.20.10"));
    let (_, refusals) = host_ports(&model, &pod, &local);
    assert_eq!(
        words(&refusals),
        ["the hostPort 169.254.20.10:53/TCP is not served: it is reserved by the setting `nodeLocalDns`"]
    );
    // The Service that it leads to has it.
    let dns = model.service(&ObjectKey::new("shop", "dns")).unwrap();
    let (content, refusals) = super::super::service(&model, dns, &Place::new("n1", model.own_node()));
    let kinds = content.ports.values().flat_map(|port| port.frontends.values()).map(|policy| policy.kind);
    assert_eq!(kinds.collect::<Vec<_>>(), [FrontendKind::Cluster, FrontendKind::NodeLocalDns]);
    assert_eq!(refusals, []);
}
