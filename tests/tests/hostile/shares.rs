//! Objects that ask for more than there is for everybody: others keep what is theirs.

use std::net::IpAddr;
use std::time::Duration;

use fairlead_tests::{Lab, Probe, Probes, ServiceManifest};
use serde_json::{Value, json};

/// A Service with 100 ports and 2 700 endpoints: 270 000 elements of `BACKENDS`, of which there are 524 288.
fn huge() -> String {
    let name = |port: u16| format!("p{port}");
    let ports: Vec<Value> = (1..=100_u16).map(|port| json!({"name": name(port), "port": port})).collect();
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a-greedy", "name": "huge"},
        "spec": {"clusterIP": "10.96.60.1", "clusterIPs": ["10.96.60.1"], "ports": ports},
    })];
    for slice in 0..3_u8 {
        let endpoint = |n: u16| {
            let [high, low] = n.to_be_bytes();
            json!({"addresses": [IpAddr::from([10, 96 + slice, high, low])], "conditions": {"ready": true}})
        };
        objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "namespace": "a-greedy", "name": format!("huge-{slice}"),
                "labels": {"kubernetes.io/service-name": "huge"},
            },
            "ports": ports.iter().map(|port| json!({"name": port["name"], "port": port["port"], "protocol": "TCP"})).collect::<Vec<_>>(),
            "endpoints": (0..900).map(endpoint).collect::<Vec<_>>(),
        }));
    }
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

#[test]
fn s61_endpoint_slices_of_one_namespace_leave_services_of_others_theirs() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let pod = |key: &str| node.pod(key).tcp(80).start();
    let (client, first, second) = (pod("quiet/client"), pod("quiet/first"), pod("quiet/second"));
    let vip: IpAddr = "10.96.60.2".parse().expect("it is an address");
    let service = |pod| ServiceManifest::new("quiet/s").ips(&[vip]).tcp("http", 80, 80).endpoint(pod).yaml();
    let goes_to = |what: &str, name: &str| {
        lab.wait_until(what, || match client.probe(&Probe::tcp(vip, 80)) {
            Ok(reply) if reply.server.pod == name => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    lab.apply(&service(&first));
    goes_to("the service is in force", "quiet/first");
    lab.apply(&huge());
    lab.wait_within(Duration::from_secs(60), "the one that does not fit is named", || {
        let status = node.fairlead(&["status"]).stdout;
        let line = status.lines().find(|line| line.starts_with("a-greedy/huge"));
        match line {
            Some(line) if line.contains("would use 270000 entries of table BACKENDS") => Ok(()),
            _ => Err(status),
        }
    });
    lab.apply(&service(&second));
    goes_to("others follow their endpoints", "quiet/second");
}
