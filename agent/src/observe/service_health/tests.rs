use fairlead_objects::{Object, read_str};

use super::*;

fn service(text: &str) -> Service {
    let spec = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: shop}}, spec: {{clusterIP: 10.96.0.1, \
         clusterIPs: [10.96.0.1, 'fd00::1'], ports: [{{port: 80}}], {text}}}}}"
    );
    match read_str(&spec).remove(0) {
        Ok(Object::Service(service)) => service,
        other => panic!("{other:?}"),
    }
}

fn slice(family: &str, endpoints: &str) -> EndpointSlice {
    let text = format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: web-1, namespace: shop}}, \
         addressType: {family}, ports: [{{port: 80}}, {{port: 81, name: b}}], endpoints: [{endpoints}]}}"
    );
    match read_str(&text).remove(0) {
        Ok(Object::EndpointSlice(slice)) => slice,
        other => panic!("{other:?}"),
    }
}

const LOCAL: &str = "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 31000";

#[test]
fn s50_only_load_balancers_with_local_policy_have_one() {
    assert_eq!(checks(&service(LOCAL), &[], "n1").len(), 2, "one in each family");
    for other in [
        "type: LoadBalancer, externalTrafficPolicy: Cluster, healthCheckNodePort: 31000",
        "type: LoadBalancer, externalTrafficPolicy: Local",
        "type: NodePort, externalTrafficPolicy: Local, healthCheckNodePort: 31000",
    ] {
        assert_eq!(checks(&service(other), &[], "n1"), [], "{other}");
    }
}

#[test]
fn s50_ready_endpoints_on_this_node_count_once_and_by_family() {
    let v4 = slice(
        "IPv4",
        "{addresses: [10.0.0.1], nodeName: n1}, {addresses: [10.0.0.1], nodeName: n1}, \
         {addresses: [10.0.0.2], nodeName: n2}, \
         {addresses: [10.0.0.3], nodeName: n1, conditions: {ready: false, serving: true, terminating: true}}",
    );
    let v6 = slice("IPv6", "{addresses: ['fd00::1'], nodeName: n2}");
    let found = checks(&service(LOCAL), &[&v4, &v6], "n1");
    let check = |endpoints| Check { port: 31000, endpoints };
    assert_eq!(found, [(Family::V4, check(1)), (Family::V6, check(0))]);

    // A service of one family is asked for by the node's address of the other too.
    for (ip, slice) in [
        ("10.96.0.1", slice("IPv4", "{addresses: [10.0.0.1], nodeName: n1}")),
        ("fd00::1", slice("IPv6", "{addresses: ['fd00::2'], nodeName: n1}")),
    ] {
        let mut single = service(LOCAL);
        single.cluster_ips = vec![ip.parse().unwrap()];
        assert_eq!(checks(&single, &[&slice], "n1"), [(Family::V4, check(1)), (Family::V6, check(1))], "{ip}");
    }
}

#[test]
fn s50_the_answer_is_kube_proxys() {
    let key = ObjectKey::new("shop", "web");
    let good = answer(&key, 2, true);
    assert_eq!(good.status, 200);
    assert_eq!(
        good.body,
        "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 2,\n\
         \t\"serviceProxyHealthy\": true\n}"
    );
    let header = |name| good.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
    assert_eq!(header("Content-Type"), Some("application/json"));
    assert_eq!(header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(header("X-Load-Balancing-Endpoint-Weight"), Some("2"));
    assert_eq!(answer(&key, 0, true).status, 503);
    assert_eq!(answer(&key, 2, false).status, 503);
}
