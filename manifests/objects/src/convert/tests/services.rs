use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{invalid, one};
use crate::{
    AddressType, Bandwidth, ContainerPort, Endpoint, EndpointSlice, Namespace, Node, Object, ObjectKey, Phase, Pod,
    Protocol, Service, ServiceType, TrafficPolicy,
};

fn service_with(metadata: &str, spec: &str) -> (Service, Vec<String>) {
    match one(&format!("{{apiVersion: v1, kind: Service, metadata: {{name: s{metadata}}}, spec: {spec}}}")) {
        (Object::Service(service), notes) => (service, notes),
        (other, _) => panic!("{other:?}"),
    }
}

fn service(spec: &str) -> Service {
    let (service, notes) = service_with("", spec);
    assert_eq!(notes, Vec::<String>::new());
    service
}

fn broken_service(spec: &str) -> String {
    invalid(&format!("{{apiVersion: v1, kind: Service, metadata: {{name: s}}, spec: {spec}}}")).reason
}

fn slice_text(address_type: &str, rest: &str) -> String {
    let labels = "labels: {kubernetes.io/service-name: s}";
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: s-1, namespace: shop, {labels}}}, \
         addressType: {address_type}, {rest}}}"
    )
}

fn slice(address_type: &str, rest: &str) -> EndpointSlice {
    match one(&slice_text(address_type, rest)) {
        (Object::EndpointSlice(slice), notes) if notes.is_empty() => slice,
        other => panic!("{other:?}"),
    }
}

fn endpoint(text: &str) -> Endpoint {
    slice("IPv4", &format!("endpoints: [{{addresses: [10.0.0.1], {text}}}]")).endpoints.remove(0)
}

fn pod(text: &str) -> (Pod, Vec<String>) {
    match one(&format!("{{apiVersion: v1, kind: Pod, {text}}}")) {
        (Object::Pod(pod), notes) => (pod, notes),
        (other, _) => panic!("{other:?}"),
    }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn s14_headless_and_external_name_are_not_proxied() {
    for spec in ["{clusterIP: None}", "{clusterIPs: [None]}"] {
        let service = service(spec);
        assert!(service.headless && service.cluster_ips.is_empty() && !service.is_proxied());
    }
    let alias = service("{type: ExternalName, externalName: example.org}");
    assert_eq!((alias.service_type, alias.external_name.as_deref()), (ServiceType::ExternalName, Some("example.org")));
    assert!(!alias.headless && !alias.is_proxied());
}

#[test]
fn s14_headless_label_stops_proxying_and_keeps_the_address() {
    let (service, _) = service_with(", labels: {service.kubernetes.io/headless: ''}", "{clusterIP: 10.96.0.1}");
    assert!(!service.is_proxied() && !service.headless);
    assert_eq!(service.cluster_ips, ips(&["10.96.0.1"]));
}

#[test]
fn s15_proxy_name_label_counts_even_empty() {
    let (service, _) =
        service_with(", labels: {service.kubernetes.io/service-proxy-name: ''}", "{clusterIP: 10.96.0.1}");
    assert_eq!(service.proxy_name.as_deref(), Some(""));
    assert!(!service.is_proxied());
}

#[test]
fn s16_both_families_are_kept() {
    let service = service("{clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00:10:96::1']}");
    assert_eq!(service.cluster_ips, ips(&["10.96.0.1", "fd00:10:96::1"]));
    assert!(service.is_proxied());
}

#[test]
fn s1_defaults_are_applied() {
    let service =
        service("{clusterIP: 10.96.0.1, ports: [{port: 80}, {port: 53, protocol: UDP, name: dns, nodePort: 30053}]}");
    assert_eq!(service.key, ObjectKey::new("default", "s"));
    assert_eq!(service.service_type, ServiceType::ClusterIp);
    assert_eq!(service.internal_traffic_policy, TrafficPolicy::Cluster);
    assert_eq!(service.external_traffic_policy, TrafficPolicy::Cluster);
    assert_eq!((service.affinity_seconds, service.health_check_node_port), (None, None));
    let ports: Vec<_> = service.ports.iter().map(|p| (p.name.as_str(), p.protocol, p.port, p.node_port)).collect();
    assert_eq!(ports, [("", Protocol::Tcp, 80, None), ("dns", Protocol::Udp, 53, Some(30053))]);
}

#[test]
fn s38_affinity_has_a_default_and_a_range() {
    assert_eq!(service("{clusterIP: 10.96.0.1, sessionAffinity: ClientIP}").affinity_seconds, Some(10_800));
    let config = |seconds: i32| {
        format!(
            "{{clusterIP: 10.96.0.1, sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}}}"
        )
    };
    assert_eq!(service(&config(1)).affinity_seconds, Some(1));
    assert_eq!(service(&config(86_400)).affinity_seconds, Some(86_400));
    for seconds in [0, -1, 86_401] {
        assert!(broken_service(&config(seconds)).contains("out of range; use 1 to 86400"));
    }
}

#[test]
fn s8_only_vip_addresses_are_captured() {
    let text = "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {type: LoadBalancer, clusterIP: 10.96.0.1}, \
                status: {loadBalancer: {ingress: [{ip: 192.0.2.1}, {ip: 192.0.2.2, ipMode: VIP}, \
                {ip: 192.0.2.3, ipMode: Proxy}, {hostname: lb.example.org}]}}}";
    let (Object::Service(service), _) = one(text) else { panic!() };
    let vips: Vec<bool> = service.load_balancer.iter().map(|entry| entry.vip).collect();
    assert_eq!(service.load_balancer_names, ["lb.example.org"]);
    assert_eq!(vips, [true, true, false]);
}

#[test]
fn s12_source_ranges_are_trimmed_and_never_lost() {
    let ranges =
        |text: &str| format!("{{type: LoadBalancer, clusterIP: 10.96.0.1, loadBalancerSourceRanges: [{text}]}}");
    assert_eq!(service(&ranges("' 10.1.2.3/8 '")).source_ranges, ["10.0.0.0/8".parse().unwrap()]);
    let reason = broken_service(&ranges("10.0.0.0/8, everybody"));
    assert!(reason.starts_with(r#"spec.loadBalancerSourceRanges[1]: "everybody" is not a CIDR"#), "{reason}");
}

#[test]
fn unusable_services_say_why() {
    for (spec, reason) in [
        ("{clusterIP: 10.96.0.300}", r#"spec.clusterIPs[0]: "10.96.0.300" is not an IP address"#),
        ("{clusterIP: None, ports: [{port: 70000}]}", "spec.ports[0].port: 70000 is not a port"),
        ("{clusterIP: None, ports: [{name: web}]}", "spec.ports[0].port: 0 is not a port"),
        ("{clusterIP: None, ports: [{port: 1, protocol: tcp}]}", r#"spec.ports[0].protocol: "tcp" is unknown"#),
        ("{clusterIP: None, type: Headless}", r#"spec.type: "Headless" is unknown"#),
        ("{clusterIP: None, externalTrafficPolicy: Node}", r#"spec.externalTrafficPolicy: "Node" is unknown"#),
    ] {
        let given = broken_service(spec);
        assert!(given.starts_with(reason), "{given}");
    }
}

#[test]
fn a_service_without_address_is_noted() {
    let (service, notes) = service_with("", "{ports: [{port: 80}]}");
    assert_eq!(service.cluster_ips, ips(&[]));
    assert!(notes[0].starts_with("spec.clusterIP: no address; nothing allocates one"), "{notes:?}");
}

#[test]
fn s18_conditions_have_defaults() {
    let conditions = |text: &str| {
        let endpoint = endpoint(&format!("conditions: {text}"));
        (endpoint.ready, endpoint.serving, endpoint.terminating)
    };
    for absent in ["", "{}", "{ready: , serving: , terminating: }"] {
        assert_eq!(conditions(absent), (true, true, false), "{absent}");
    }
    assert_eq!(conditions("{ready: false}"), (false, false, false));
    assert_eq!(conditions("{ready: false, serving: true, terminating: true}"), (false, true, true));
    assert_eq!(conditions("{ready: true, serving: false}"), (true, false, false));
}

#[test]
fn s19_port_names_default_to_the_empty_one() {
    let slice = slice(
        "IPv4",
        "ports: [{port: 80}, {name: web, port: 8080, protocol: UDP}, {name: none}, {name: zero, port: 0}]",
    );
    let ports: Vec<_> = slice.ports.iter().map(|p| (p.name.as_deref(), p.protocol, p.port)).collect();
    assert_eq!(
        ports,
        [
            (Some(""), Protocol::Tcp, Some(80)),
            (Some("web"), Protocol::Udp, Some(8080)),
            (Some("none"), Protocol::Tcp, None),
            (Some("zero"), Protocol::Tcp, None),
        ]
    );
    assert_eq!(slice.endpoints, []);
    assert_eq!(slice.service_name.as_deref(), Some("s"));
}

#[test]
fn s20_endpoints_keep_what_decides_about_them() {
    let endpoint = endpoint(
        "hostname: db-0, nodeName: n1, zone: z, hints: {forZones: [{name: z}], forNodes: [{name: n1}]}, \
         targetRef: {kind: Pod, name: db-0}",
    );
    assert_eq!(endpoint.addresses, ips(&["10.0.0.1"]));
    assert_eq!((endpoint.hostname.as_deref(), endpoint.node_name.as_deref()), (Some("db-0"), Some("n1")));
    assert_eq!(endpoint.zone.as_deref(), Some("z"));
    assert_eq!((endpoint.zone_hints, endpoint.node_hints), (vec!["z".to_owned()], vec!["n1".to_owned()]));
    assert_eq!(endpoint.pod, Some(ObjectKey::new("shop", "db-0")));
}

#[test]
fn s16_slices_hold_one_family() {
    assert_eq!(slice("IPv6", "endpoints: [{addresses: ['fd00::1']}]").address_type, AddressType::Ipv6);
    for (kind, address) in [("IPv4", "fd00::1"), ("IPv6", "10.0.0.1"), ("IPv6", "::ffff:10.0.0.1")] {
        let reason = invalid(&slice_text(kind, &format!("endpoints: [{{addresses: ['{address}']}}]"))).reason;
        assert!(reason.contains(&format!("is not an address of type {kind}")), "{reason}");
    }
    assert_eq!(slice("FQDN", "endpoints: [{addresses: [example.org]}]").endpoints, []);
    assert!(invalid(&slice_text("IPv4", "endpoints: [{}]")).reason.contains("endpoints[0].addresses: empty"));
}

#[test]
fn p45_every_namespace_has_its_name_as_label() {
    let text =
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a, kubernetes.io/metadata.name: b}}}";
    let (Object::Namespace(Namespace { name, labels }), _) = one(text) else { panic!() };
    assert_eq!(name, "shop");
    assert_eq!(labels.get("kubernetes.io/metadata.name").map(String::as_str), Some("shop"));
    assert_eq!(labels.get("team").map(String::as_str), Some("a"));
}

#[test]
fn p26_sidecars_have_ports_and_init_containers_have_none() {
    let (pod, _) = pod(
        "metadata: {name: p}, spec: {containers: [{name: a, ports: [{containerPort: 80, name: web}]}], initContainers: \
         [{name: b, restartPolicy: Always, ports: [{containerPort: 81, name: side, protocol: UDP}]}, \
         {name: c, ports: [{containerPort: 82}]}]}",
    );
    let port = |name: &str, port, protocol| ContainerPort {
        name: Some(name.to_owned()),
        port,
        protocol,
        host_port: None,
        host_ip: None,
    };
    assert_eq!(pod.container_ports, [port("web", 80, Protocol::Tcp), port("side", 81, Protocol::Udp)]);
}

#[test]
fn p42_finished_and_host_network_pods_own_no_address() {
    for (spec, phase, owned) in
        [("", "Running", 2), ("", "Succeeded", 0), ("", "Failed", 0), ("hostNetwork: true, ", "Running", 0)]
    {
        let (pod, _) = pod(&format!(
            "metadata: {{name: p}}, spec: {{{spec}containers: []}}, status: {{phase: {phase}, podIP: 10.0.0.1, \
             podIPs: [{{ip: 10.0.0.1}}, {{ip: 'fd00::1'}}]}}"
        ));
        assert_eq!(pod.ips.len(), 2);
        assert_eq!(pod.owned_ips().len(), owned, "{spec}{phase}");
    }
}

#[test]
fn p44_a_young_pod_has_no_address() {
    let (young, _) = pod("metadata: {name: p}");
    assert_eq!((young.ips, young.phase, young.terminating), (vec![], Phase::Pending, false));
    let (old, _) = pod("metadata: {name: p, deletionTimestamp: '2026-01-01T00:00:00Z'}, status: {podIP: 10.0.0.1}");
    assert_eq!((old.ips, old.terminating), (ips(&["10.0.0.1"]), true));
}

#[test]
fn a_port_that_is_misspelt_is_left_out_and_named() {
    let (pod, notes) =
        pod("metadata: {name: p}, spec: {containers: [{name: a, ports: [{containerport: 80}, {containerPort: 81}]}]}");
    assert_eq!(pod.container_ports.len(), 1);
    assert_eq!(notes, ["spec.containers[0].ports[0].containerPort: 0 is not a port; use a number from 1 to 65535"]);
}

#[test]
fn nodes_keep_what_can_be_read() {
    let text = "{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {topology.kubernetes.io/zone: a}}, \
                spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.5/24, 'fd00:10:244:1::/64']}, status: {addresses: \
                [{type: Hostname, address: n1}, {type: InternalIP, address: 172.18.0.11}, \
                {type: InternalIP, address: node.internal}, {type: ExternalIP, address: 192.0.2.1}]}}";
    let (Object::Node(Node { zone, internal_ips, external_ips, pod_cidrs, .. }), notes) = one(text) else { panic!() };
    assert_eq!(zone.as_deref(), Some("a"));
    assert_eq!((internal_ips, external_ips), (ips(&["172.18.0.11"]), ips(&["192.0.2.1"])));
    assert_eq!(pod_cidrs, ["10.244.1.0/24".parse().unwrap(), "fd00:10:244:1::/64".parse().unwrap()]);
    assert!(notes[0].starts_with(r#"status.addresses[2].address: "node.internal" is not an IP address"#), "{notes:?}");
}

#[test]
fn s51_a_node_that_is_about_to_go_says_so() {
    let leaving = |text: &str| match one(&format!("{{apiVersion: v1, kind: Node, {text}}}")) {
        (Object::Node(node), _) => node.leaving,
        other => panic!("{other:?}"),
    };
    assert!(!leaving(
        "metadata: {name: node-1}, spec: {taints: [{key: node.kubernetes.io/unschedulable, effect: NoSchedule}]}"
    ));
    assert!(leaving(
        "metadata: {name: node-1}, spec: {taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]}"
    ));
    assert!(leaving("metadata: {name: node-1, deletionTimestamp: '2026-01-01T00:00:00Z'}"));
}

#[test]
fn s53_slices_tell_when_their_change_began() {
    let triggered = |time: &str| {
        let annotation = format!("annotations: {{endpoints.kubernetes.io/last-change-trigger-time: '{time}'}}");
        let text = slice_text("IPv4", "endpoints: []").replace("labels:", &format!("{annotation}, labels:"));
        match one(&text) {
            (Object::EndpointSlice(slice), notes) if notes.is_empty() => slice.triggered,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(triggered("2026-01-01T00:00:00.5Z"), Some("2026-01-01T00:00:00.5Z".parse().unwrap()));
    assert_eq!(triggered("yesterday"), None);
    assert_eq!(slice("IPv4", "endpoints: []").triggered, None);
}

#[test]
fn c38_a_mirror_pod_runs_under_the_hash_of_its_file() {
    let runtime = |annotations: &str| {
        let (pod, notes) = pod(&format!("metadata: {{namespace: a, name: b, uid: u, annotations: {{{annotations}}}}}"));
        assert_eq!(notes, [] as [String; 0]);
        assert_eq!(pod.uid, "u");
        pod.runtime_uid().to_owned()
    };
    let (hash, mirror) = ("kubernetes.io/config.hash: h", "kubernetes.io/config.mirror: h");
    assert_eq!(runtime(&format!("{hash}, {mirror}")), "h");
    assert_eq!(runtime(hash), "u", "anybody may write that on a pod; without a mirror it means nothing");
    assert_eq!(runtime(mirror), "u");
    assert_eq!(runtime(&format!("kubernetes.io/config.hash: '', {mirror}")), "u");
}

#[test]
fn c42_bandwidth_is_a_quantity_of_bits_within_bounds() {
    let read = |name: &str, value: &str| {
        let annotations = format!("annotations: {{kubernetes.io/{name}-bandwidth: '{value}'}}");
        pod(&format!("metadata: {{namespace: a, name: b, uid: u, {annotations}}}"))
    };
    for (value, bits) in [("1k", 1_000), ("10M", 10_000_000), ("1.5Gi", 1_610_612_736), ("1P", 1_000_000_000_000_000)] {
        let (of_egress, notes) = read("egress", value);
        assert_eq!(notes, [] as [String; 0]);
        assert_eq!(of_egress.bandwidth, Bandwidth { egress: Some(bits), ingress: None });
        assert_eq!(read("ingress", value).0.bandwidth, Bandwidth { egress: None, ingress: Some(bits) });
    }
    for value in ["", "999", "1001T", "-5M", "10Mbit", "fast"] {
        let (unlimited, notes) = read("egress", value);
        assert_eq!(unlimited.bandwidth, Bandwidth::default());
        let expected = format!("metadata.annotations[kubernetes.io/egress-bandwidth]: {value:?} is not a bandwidth");
        assert!(notes.len() == 1 && notes[0].starts_with(&expected) && notes[0].contains("10M"), "{notes:?}");
    }
}

#[test]
fn a_node_without_ranges_has_those_of_its_annotation_or_none_of_them() {
    let read = |annotation: &str, spec: &str| {
        let text = format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: n1, annotations: {{fairlead.io/pod-cidrs: '{annotation}'}}}}, \
             spec: {spec}}}"
        );
        let (Object::Node(node), notes) = one(&text) else { panic!() };
        (node.annotated.map(|annotated| annotated.ranges), notes)
    };
    let ranges = |texts: &[&str]| Some(texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNetwork>>());
    assert_eq!(read("10.244.1.0/24", "{}"), (ranges(&["10.244.1.0/24"]), vec![]));
    let both = ranges(&["10.244.1.0/24", "fd00:10:244:1::/64"]);
    assert_eq!(read(" 10.244.1.7/24, fd00:10:244:1::/64", "{}"), (both, vec![]));
    assert_eq!(read("", "{}"), (None, vec![]));
    for wrong in ["10.244.1.0", "10.244.1.0/24,10.244.2.0/24", "10.244.1.0/24;", "10.244.1.0/24,", "node-1"] {
        let (annotated, notes) = read(wrong, "{}");
        assert_eq!(annotated, None, "{wrong}");
        let expected =
            format!("metadata.annotations[fairlead.io/pod-cidrs]: {wrong:?} is not a list of ranges; write one CIDR");
        assert!(notes[0].starts_with(&expected), "{notes:?}");
    }
    let spec = "{podCIDRs: [10.244.1.0/24]}";
    assert_eq!(read("10.244.1.0/24", spec), (None, vec![]));
    let (annotated, notes) = read("10.244.2.0/24", spec);
    assert_eq!(annotated, None);
    assert!(notes[0].contains("has no effect, since spec.podCIDRs has other ranges"), "{notes:?}");
}
