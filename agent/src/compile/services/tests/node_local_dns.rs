//! Rows about addresses of node-local DNS.

use super::*;
use crate::model::NodeLocalDns;

const ADDRESSES: [&str; 2] = ["169.254.20.10", "fd00:90::10"];

fn dns() -> NodeLocalDns {
    let addresses = ADDRESSES.map(|text| text.parse().unwrap()).into();
    NodeLocalDns { addresses, service: ObjectKey::new("shop", "cart") }
}

fn dns_service() -> Service {
    let ports =
        vec![port("dns", Protocol::Udp, 53), port("dns-tcp", Protocol::Tcp, 53), port("metrics", Protocol::Tcp, 9153)];
    Service { ports, ..service() }
}

fn slice_of(endpoints: &[&str]) -> EndpointSlice {
    let port = |name: &str, protocol, number| EndpointPort { name: Some(name.into()), protocol, port: Some(number) };
    let ports =
        vec![port("dns", Protocol::Udp, 53), port("dns-tcp", Protocol::Tcp, 53), port("metrics", Protocol::Tcp, 9153)];
    EndpointSlice { ports, ..slice("cart-1", 53, endpoints) }
}

/// What is answered at the first address and at the cluster address, each by its ports.
fn found(service: &Service, endpoints: &[&str], dns: &NodeLocalDns) -> Vec<(String, Answer)> {
    let slices = [slice_of(endpoints)];
    let slices: Vec<&EndpointSlice> = slices.iter().collect();
    let mut content = compile_service(service, slices.iter().copied(), &place());
    let before = content.clone();
    add_node_local_dns(&mut content, service, &slices, &place(), dns);
    let mut found = Vec::new();
    for (key, port) in &mut content.ports {
        let added = port.frontends.extract_if(.., |_, policy| policy.kind == FrontendKind::NodeLocalDns);
        let added: Vec<_> = added.collect();
        for (frontend, policy) in added {
            assert_eq!(policy.inside, policy.outside);
            assert_eq!(frontend.port.number(), 53);
            let ip = IpAddr::from(frontend.addr);
            assert_eq!(Family::of(&ip), key.family);
            found.push((format!("{ip} {}", key.port), port.answer(policy.inside).clone()));
        }
    }
    assert_eq!(content, before, "nothing else changes");
    found
}

fn v4_ports(answer: &Answer) -> Vec<(String, Answer)> {
    ["dns-tcp", "dns"].map(|name| (format!("169.254.20.10 {name}"), answer.clone())).into()
}

#[track_caller]
fn leads_to(endpoints: &[&str], answer: &Answer) {
    let mut found = found(&dns_service(), endpoints, &dns());
    found.retain(|(name, _)| name.starts_with("169"));
    found.sort_by_key(|one| std::cmp::Reverse(one.0.len()));
    assert_eq!(found, v4_ports(answer), "{endpoints:?}");
}

fn at_53(addresses: &[&str]) -> Answer {
    Answer::Forward(addresses.iter().map(|ip| BackendAddr { ip: ip.parse().unwrap(), port: 53 }).collect())
}

#[test]
fn s65_node_local_dns_is_the_ready_endpoint_of_this_node_else_what_the_cluster_address_is() {
    leads_to(&["10.0.0.1 ready local", "10.0.0.2 ready"], &at_53(&["10.0.0.1"]));
    leads_to(&["10.0.0.1 ready", "10.0.0.2 ready"], &at_53(&["10.0.0.1", "10.0.0.2"]));
    // One that is about to end keeps what it has, but gets nothing new while others are ready.
    leads_to(&["10.0.0.1 serving terminating local", "10.0.0.2 ready"], &at_53(&["10.0.0.2"]));
    leads_to(&["10.0.0.1 serving terminating local", "10.0.0.2"], &at_53(&["10.0.0.1"]));
    leads_to(&["10.0.0.1 local", "10.0.0.2 ready"], &at_53(&["10.0.0.2"]));
    leads_to(&["10.0.0.1 local"], &Answer::Reject);
}

#[test]
fn s65_each_family_has_its_own_address_and_port_53_alone() {
    let found = found(&dns_service(), &["fd00::1 ready local"], &dns());
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    for (name, answer) in &found {
        let wanted = if name.starts_with("fd00") { at_53(&["fd00::1"]) } else { Answer::Reject };
        assert_eq!(*answer, wanted, "{name}");
    }
}

#[test]
fn s65_without_the_setting_or_for_another_service_nothing_is_added() {
    assert_eq!(found(&dns_service(), &["10.0.0.1 ready local"], &NodeLocalDns::default()), []);
    let other = Service { key: ObjectKey::new("shop", "other"), ..dns_service() };
    assert_eq!(found(&other, &["10.0.0.1 ready local"], &dns()), []);
    let other_proxy = Service { proxy_name: Some("mine".into()), ..dns_service() };
    assert_eq!(found(&other_proxy, &["10.0.0.1 ready local"], &dns()), []);
}
