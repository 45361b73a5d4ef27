use std::collections::BTreeMap;
use std::fs;

use fairlead_objects::{EndpointSlice, Kind, NetworkPolicy, Object, Pod, Selector, Service, read_str};

use super::{Cluster, Manifests, Topology};

/// What an agent reads of a cluster's files. All of it is readable, to the last piece.
fn objects(files: &BTreeMap<String, String>) -> Vec<Object> {
    let read = |(name, text): (&String, &String)| {
        let results = read_str(text).into_iter();
        results.map(|result| result.unwrap_or_else(|invalid| panic!("{name}: {invalid}"))).collect::<Vec<_>>()
    };
    files.iter().flat_map(read).collect()
}

fn test_data(topology: &Topology) -> Vec<Object> {
    objects(&Cluster::of_test_data(topology).unwrap().files().unwrap())
}

fn service<'a>(objects: &'a [Object], name: &str) -> &'a Service {
    let found = objects.iter().find_map(|object| match object {
        Object::Service(service) if service.key.to_string() == name => Some(service),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no service {name}"))
}

/// The slices of a service, by name.
fn slices<'a>(objects: &'a [Object], namespace: &str, service: &str) -> Vec<&'a EndpointSlice> {
    let is_it =
        |slice: &&EndpointSlice| slice.key.namespace == namespace && slice.service_name.as_deref() == Some(service);
    let all = objects.iter().filter_map(|object| match object {
        Object::EndpointSlice(slice) => Some(slice),
        _ => None,
    });
    all.filter(is_it).collect()
}

fn pods(objects: &[Object]) -> impl Iterator<Item = &Pod> {
    objects.iter().filter_map(|object| match object {
        Object::Pod(pod) => Some(pod),
        _ => None,
    })
}

fn policies<'a>(objects: &'a [Object], namespace: &str) -> Vec<&'a NetworkPolicy> {
    let all = objects.iter().filter_map(|object| match object {
        Object::NetworkPolicy(policy) => Some(policy),
        _ => None,
    });
    all.filter(|policy| policy.key.namespace == namespace).collect()
}

#[test]
fn the_committed_cluster_is_what_the_manifests_give() {
    let dir = fairlead_tree::path("tests/data/cluster").unwrap();
    let given = Cluster::of_test_data(&Topology::default()).unwrap().files().unwrap();
    let committed: BTreeMap<String, String> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "yaml"))
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
        .collect();
    assert_eq!(given.keys().collect::<Vec<_>>(), committed.keys().collect::<Vec<_>>());
    for (name, text) in given {
        assert!(
            text == committed[&name],
            "{name} is out of date: run `cargo run -p fairlead-tests --bin fairlead-generate`"
        );
    }
}

#[test]
fn s16_every_service_has_both_families() {
    let objects = test_data(&Topology::default());
    let mut addresses = std::collections::BTreeSet::new();
    for object in &objects {
        if let Object::Service(service) = object
            && !service.headless
        {
            let families: Vec<bool> = service.cluster_ips.iter().map(std::net::IpAddr::is_ipv4).collect();
            assert_eq!(families, [true, false], "{}", service.key);
            assert!(service.cluster_ips.iter().all(|ip| addresses.insert(*ip)), "{}", service.key);
        }
    }
    assert_eq!(service(&objects, "kube-system/kube-dns").cluster_ips[0].to_string(), "10.96.0.10");
    assert_eq!(service(&objects, "sock-shop/front-end").ports[0].node_port, Some(30_001));
}

#[test]
fn pods_are_spread_over_the_nodes_and_have_addresses_of_their_own() {
    for zones in [vec!["a"], vec!["a", "a", "b"], vec!["a", "b", "c", "a", "b"]] {
        let topology = Topology::of_zones(zones.iter().copied());
        let objects = test_data(&topology);
        let mut addresses = std::collections::BTreeSet::new();
        let mut on_node: BTreeMap<&str, usize> = BTreeMap::new();
        for pod in pods(&objects) {
            assert_eq!((pod.owned_ips().len(), pod.uid.len()), (2, 36), "{}", pod.key);
            assert!(pod.ips.iter().all(|ip| addresses.insert(*ip)), "{}", pod.key);
            let node = pod.node_name.as_deref().unwrap();
            let cidrs = objects.iter().find_map(|object| match object {
                Object::Node(found) if found.name == node => Some(&found.pod_cidrs),
                _ => None,
            });
            assert!(pod.ips.iter().zip(cidrs.unwrap()).all(|(ip, cidr)| cidr.contains(*ip)), "{}", pod.key);
            *on_node.entry(node).or_default() += 1;
        }
        assert_eq!(on_node.len(), zones.len());
        assert!(on_node.values().max().unwrap() - on_node.values().min().unwrap() <= 1, "{on_node:?}");
    }
}

#[test]
fn s19_named_target_ports_are_resolved() {
    let objects = test_data(&Topology::default());
    for slice in slices(&objects, "sock-shop", "rabbitmq") {
        let ports: Vec<_> =
            slice.ports.iter().map(|port| (port.name.as_deref().unwrap(), port.port.unwrap())).collect();
        assert_eq!(ports, [("rabbitmq", 5672), ("exporter", 9090)]);
        assert_eq!(slice.endpoints.len(), 1);
    }
}

#[test]
fn a_named_port_may_differ_from_pod_to_pod() {
    let mut manifests = Manifests::default();
    let deployment = |name: &str, port: &str| {
        format!(
            "---\n{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}}}, spec: {{selector: {{}}, template: \
             {{metadata: {{labels: {{app: a}}}}, spec: {{containers: [{{name: c, ports: [{port}]}}]}}}}}}}}\n"
        )
    };
    let service = "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {selector: {app: a}, ports: [{port: 80, targetPort: web}]}}\n";
    let text = service.to_owned()
        + &deployment("old", "{name: web, containerPort: 80}")
        + &deployment("new", "{name: web, containerPort: 8080}")
        + &deployment("udp", "{name: web, containerPort: 8080, protocol: UDP}");
    manifests.add(&text, "default").unwrap();
    let objects = objects(&Cluster::new(&manifests, &Topology::default()).unwrap().files().unwrap());
    let slices = slices(&objects, "default", "s");
    let mut ports: Vec<_> = slices.iter().map(|s| (s.ports.first().and_then(|p| p.port), s.endpoints.len())).collect();
    ports.sort_unstable();
    assert_eq!(ports, [(None, 1), (None, 1), (Some(80), 1), (Some(80), 1), (Some(8080), 1), (Some(8080), 1)]);
}

#[test]
fn d7_members_of_a_stateful_set_have_host_names() {
    let objects = test_data(&Topology::default());
    assert!(service(&objects, "extra/db").headless);
    let slices_of_db = slices(&objects, "extra", "db");
    assert_eq!(slices_of_db.len(), 2);
    for slice in slices_of_db {
        let names: Vec<_> = slice.endpoints.iter().map(|endpoint| endpoint.hostname.as_deref().unwrap()).collect();
        assert_eq!(names, ["db-0", "db-1", "db-2"]);
    }
    // Their host name is in the domain of one service alone.
    assert!(slices(&objects, "extra", "db-read").iter().all(|s| s.endpoints.iter().all(|e| e.hostname.is_none())));
}

#[test]
fn s30_dns_prefers_its_own_node() {
    let objects = test_data(&Topology::default());
    for slice in slices(&objects, "kube-system", "kube-dns") {
        assert_eq!(slice.endpoints.len(), 3);
        for endpoint in &slice.endpoints {
            assert_eq!(endpoint.node_hints, [endpoint.node_name.clone().unwrap()]);
            assert_eq!(endpoint.zone_hints, [endpoint.zone.clone().unwrap()]);
        }
    }
    assert!(slices(&objects, "extra", "echo").iter().all(|s| s.endpoints.iter().all(|e| e.node_hints.is_empty())));
}

#[test]
fn the_manifests_keep_their_mistakes() {
    let objects = test_data(&Topology::default());
    let shop = policies(&objects, "sock-shop");
    let selected = |policy: &NetworkPolicy| {
        pods(&objects)
            .filter(|pod| pod.key.namespace == "sock-shop" && policy.pod_selector.matches(&pod.labels))
            .count()
    };
    let find = |name: &str| *shop.iter().find(|policy| policy.key.name == name).unwrap();
    assert_eq!(selected(find("cart-access")), 0);
    assert_eq!(find("cortex-access").pod_selector, Selector::everything());
    assert_eq!((shop.len(), policies(&objects, "online-boutique").len()), (13, 13));
}

#[test]
fn a_service_without_pods_has_empty_slices_and_one_without_selector_has_none() {
    let mut manifests = Manifests::default();
    let text = "{apiVersion: v1, kind: Service, metadata: {name: lonely}, spec: {selector: {app: a}, ports: [{port: 80}]}}\n---\n\
                {apiVersion: v1, kind: Service, metadata: {name: manual}, spec: {ports: [{port: 80}]}}\n";
    manifests.add(text, "default").unwrap();
    let objects = objects(&Cluster::new(&manifests, &Topology::default()).unwrap().files().unwrap());
    assert!(slices(&objects, "default", "lonely").iter().all(|slice| slice.endpoints.is_empty()));
    assert_eq!(objects.iter().filter(|object| object.kind() == Kind::EndpointSlice).count(), 2);
}

#[test]
fn a_misspelt_container_port_is_named_and_left_out() {
    let mut manifests = Manifests::default();
    manifests.add(include_str!("../../data/mistakes/misspelt-port.yaml"), "default").unwrap();
    let files = Cluster::new(&manifests, &Topology::default()).unwrap().files().unwrap();
    let (found, said): (Vec<_>, Vec<_>) = read_str(&files["in-helloworld.yaml"]).into_iter().partition(Result::is_ok);
    let said: Vec<String> = said.into_iter().map(|said| said.unwrap_err().reason).collect();
    assert_eq!(said, ["spec.containers[0].ports[1].containerPort: 0 is not a port; use a number from 1 to 65535"]);
    let found: Vec<Object> = found.into_iter().map(Result::unwrap).collect();
    let ports: Vec<usize> = pods(&found).map(|pod| pod.container_ports.len()).collect();
    assert_eq!(ports, [1, 4]);
}
