//! Addresses that are meant for the outside, and hostPorts.

use std::net::SocketAddr;

use fairlead_datapath::service::FrontendFlags as Flags;
use fairlead_objects::{ContainerPort, LoadBalancerIngress, Phase, Pod};

use super::*;

/// What a service's frontends in a family are: address, port, kind, and policies inside and outside.
fn frontends(service: &Service, family: Family) -> Vec<(String, FrontendKind, TrafficPolicy, TrafficPolicy)> {
    let content = compile_service(service, &[slice("cart-1", 8080, &["10.0.0.1 ready"])], &place());
    let (_, port) = content.ports.into_iter().find(|(key, _)| key.family == family).expect("a port of the family");
    let of = |(key, policy): (&FrontendKey, &FrontendPolicy)| {
        let address = SocketAddr::new(key.addr.into(), key.port.number());
        (address.to_string(), policy.kind, policy.inside, policy.outside)
    };
    let mut found: Vec<_> =
        port.frontends.iter().map(of).filter(|(_, kind, ..)| *kind != FrontendKind::Cluster).collect();
    found.sort_by_key(|(_, kind, ..)| *kind);
    found
}

fn balanced() -> Service {
    let ingress = |ip: &str, vip| LoadBalancerIngress { ip: ip.parse().unwrap(), vip };
    Service {
        service_type: ServiceType::LoadBalancer,
        ports: vec![ServicePort { node_port: Some(30_080), ..port("grpc", Protocol::Tcp, 80) }],
        external_ips: vec!["198.51.100.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        load_balancer: vec![ingress("203.0.113.7", true), ingress("203.0.113.8", false), ingress("2001:db8::8", true)],
        load_balancer_names: vec![],
        external_traffic_policy: TrafficPolicy::Local,
        ..service()
    }
}

#[test]
fn s4_s8_s11_s16_s28_addresses_for_the_outside_have_its_policy_outside_and_cluster_inside() {
    use FrontendKind::{External, LoadBalancer, NodePort};
    use TrafficPolicy::{Cluster, Local};
    let all = |kind, address: &str| (address.to_owned(), kind, Cluster, Local);
    assert_eq!(
        frontends(&balanced(), Family::V4),
        [all(NodePort, "0.0.0.0:30080"), all(LoadBalancer, "203.0.113.7:80"), all(External, "198.51.100.7:80")]
    );
    assert_eq!(
        frontends(&balanced(), Family::V6),
        [all(NodePort, "[::]:30080"), all(LoadBalancer, "[2001:db8::8]:80"), all(External, "[2001:db8::7]:80")]
    );
    // The families are those of the cluster addresses.
    let single = Service { cluster_ips: vec!["10.96.0.7".parse().unwrap()], ..balanced() };
    assert_eq!(compile_service(&single, &[], &place()).ports.len(), 1);
}

#[test]
fn s9_a_load_balancer_may_do_without_node_ports_and_a_plain_service_has_neither() {
    let mut service = balanced();
    service.ports[0].node_port = None;
    assert!(frontends(&service, Family::V4).iter().all(|(_, kind, ..)| *kind != FrontendKind::NodePort));
    service.service_type = ServiceType::ClusterIp;
    service.ports[0].node_port = Some(30_080);
    let kinds: Vec<_> = frontends(&service, Family::V4).into_iter().map(|(_, kind, ..)| kind).collect();
    assert_eq!(kinds, [FrontendKind::External]);
}

#[test]
fn s7_a_node_port_is_guarded_unless_endpoints_listen_at_it() {
    let service = balanced();
    let guards = |number| {
        let content = compile_service(&service, &[slice("cart-1", number, &["10.0.0.1"])], &place());
        let policies = content.ports.into_values().flat_map(|port| port.frontends.into_values());
        let (node_ports, others): (Vec<_>, Vec<_>) = policies.partition(|policy| policy.kind == FrontendKind::NodePort);
        assert!(others.iter().all(|policy| !policy.guarded && policy.flags(0) & Flags::GUARDED == 0));
        node_ports.iter().map(|policy| policy.flags(0) & Flags::GUARDED != 0).collect::<Vec<_>>()
    };
    assert_eq!(guards(8080), [true, true]);
    // A process of a node with an IPv4 address listens at `::` all the same.
    assert_eq!(guards(30_080), [false, false]);
}

#[test]
fn s10_s12_s35_flags_say_who_is_let_in_and_keeps_its_address() {
    let policy = |kind, outside| FrontendPolicy { kind, inside: TrafficPolicy::Cluster, outside, guarded: false };
    for (kind, outside, set, flags) in [
        (FrontendKind::Cluster, TrafficPolicy::Local, 7, Flags::CLUSTER),
        (FrontendKind::External, TrafficPolicy::Local, 7, Flags::KEEP_SOURCE),
        (FrontendKind::LoadBalancer, TrafficPolicy::Cluster, 7, Flags::source_set(7)),
        (FrontendKind::LoadBalancer, TrafficPolicy::Local, 0, Flags::KEEP_SOURCE),
        (FrontendKind::NodePort, TrafficPolicy::Cluster, 7, Flags::NODE_PORT),
        (FrontendKind::NodePort, TrafficPolicy::Local, 7, Flags::NODE_PORT | Flags::KEEP_SOURCE),
        (FrontendKind::HostPort, TrafficPolicy::Local, 0, Flags::HOST_PORT | Flags::KEEP_SOURCE),
    ] {
        assert_eq!(policy(kind, outside).flags(set), flags, "{kind} {outside:?}");
    }
    let mut service = balanced();
    service.source_ranges = vec!["192.0.2.0/24".parse().unwrap(), "2001:db8:1::/48".parse().unwrap()];
    let content = compile_service(&service, &[], &place());
    for (key, port) in &content.ports {
        let ranges: Vec<_> = port.source_ranges.iter().map(ToString::to_string).collect();
        assert_eq!(ranges, [if key.family == Family::V4 { "192.0.2.0/24" } else { "2001:db8:1::/48" }]);
    }
    // One port for two protocols is two service ports.
    service.ports.push(ServicePort { node_port: Some(30_080), ..port("ask", Protocol::Udp, 80) });
    assert_eq!(compile_service(&service, &[], &place()).ports.len(), 4);
}

#[test]
fn s13_a_host_port_is_a_triple() {
    let container = |number, host_ip: Option<&str>, protocol| ContainerPort {
        name: None,
        port: 8080,
        protocol,
        host_port: Some(number),
        host_ip: host_ip.map(|text| text.parse().unwrap()),
    };
    let pod = Pod {
        key: ObjectKey::new("shop", "web"),
        uid: String::new(),
        created: None,
        static_uid: None,
        bandwidth: fairlead_objects::Bandwidth::default(),
        labels: Labels::new(),
        node_name: Some(HERE.into()),
        ips: vec![],
        host_network: false,
        phase: Phase::Running,
        terminating: false,
        container_ports: vec![
            container(80, None, Protocol::Tcp),
            container(53, Some("127.0.0.1"), Protocol::Udp),
            container(53, Some("172.18.0.11"), Protocol::Udp),
            container(443, Some("0.0.0.0"), Protocol::Tcp),
            ContainerPort { host_port: None, ..container(0, None, Protocol::Tcp) },
        ],
    };
    let ips: Vec<IpAddr> = ["10.244.1.7", "fd00:10:244:1::7"].map(|text| text.parse().unwrap()).into();
    let content = compile_host_ports(&pod, &ips);
    let mut found = vec![];
    for (name, port) in &content.ports {
        assert_eq!(name.service, ObjectKey::new("shop", "pod/web"));
        let [(key, policy)] = port.frontends.iter().collect::<Vec<_>>()[..] else { panic!("one frontend") };
        assert_eq!((policy.kind, &port.cluster), (FrontendKind::HostPort, &port.local));
        let Answer::Forward(backends) = &port.cluster else { panic!("it always has the pod") };
        let address = SocketAddr::new(key.addr.into(), key.port.number());
        let backend = backends.first().unwrap();
        assert_eq!((address.is_ipv4(), backends.len(), backend.port), (backend.ip.is_ipv4(), 1, 8080));
        found.push(format!("{address}/{}", name.protocol));
    }
    found.sort_unstable();
    let expected = ["0.0.0.0:443/TCP", "0.0.0.0:80/TCP", "127.0.0.1:53/UDP", "172.18.0.11:53/UDP", "[::]:80/TCP"];
    assert_eq!(found, expected);
    for pod in [Pod { host_network: true, ..pod.clone() }, Pod { phase: Phase::Failed, ..pod.clone() }] {
        assert_eq!(compile_host_ports(&pod, &ips), ServiceContent::default());
    }
}
