//! The usual Service, so that a test writes down only what is special about its own.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::node::Node;
use crate::pod::Pod;
use crate::probe::Transport;

/// A Service with its EndpointSlices, one for each family, as a control plane writes them for ready pods.
#[derive(Debug, Clone, Default)]
#[must_use = "its manifest has to be applied"]
pub struct ServiceManifest {
    key: String,
    ips: Vec<IpAddr>,
    ports: Vec<(Transport, String, u16, u16)>,
    endpoints: Vec<Value>,
    node_ports: Vec<u16>,
    spec: Vec<(String, Value)>,
    ingress: Vec<Value>,
}

impl ServiceManifest {
    /// A Service, named `namespace/name`; headless until it gets addresses.
    pub fn new(key: &str) -> Self {
        assert!(key.split('/').count() == 2, "a Service is named by namespace and name: {key}");
        Self { key: key.to_owned(), ips: Vec::new(), ports: Vec::new(), ..Self::default() }
    }

    /// Its cluster addresses.
    ///
    /// # Panics
    /// When one is no address.
    pub fn ips(mut self, ips: &[impl ToString]) -> Self {
        let texts = ips.iter().map(ToString::to_string);
        self.ips = texts.map(|ip| ip.parse().unwrap_or_else(|_| panic!("{ip:?} is no address"))).collect();
        self
    }

    /// A TCP port: its name, its number, and the number that the pods listen on.
    pub fn tcp(self, name: &str, port: u16, target: u16) -> Self {
        self.port(Transport::Tcp, name, port, target)
    }

    /// A UDP port: its name, its number, and the number that the pods listen on.
    pub fn udp(self, name: &str, port: u16, target: u16) -> Self {
        self.port(Transport::Udp, name, port, target)
    }

    /// An SCTP port, and the pods listen on the same.
    pub fn sctp(self, name: &str, port: u16) -> Self {
        self.port(Transport::Sctp, name, port, port)
    }

    fn port(mut self, transport: Transport, name: &str, port: u16, target: u16) -> Self {
        self.ports.push((transport, name.to_owned(), port, target));
        self
    }

    /// NodePorts of its ports, in order.
    pub fn node_ports(mut self, numbers: &[u16]) -> Self {
        self.node_ports = numbers.to_vec();
        if self.ingress.is_empty() { self.spec("type", json!("NodePort")) } else { self }
    }

    /// Addresses of a load balancer that leaves them to the nodes.
    pub fn balanced(self, ips: &[impl ToString]) -> Self {
        self.balanced_as(ips, "VIP")
    }

    /// Addresses of a load balancer, with the `ipMode` that it has.
    pub fn balanced_as(mut self, ips: &[impl ToString], mode: &str) -> Self {
        self.ingress.extend(ips.iter().map(|ip| json!({"ip": ip.to_string(), "ipMode": mode})));
        self.spec("type", json!("LoadBalancer"))
    }

    /// With a field of its `spec`.
    pub fn spec(mut self, field: &str, value: Value) -> Self {
        self.spec.push((field.to_owned(), value));
        self
    }

    /// A ready endpoint that is a process of a node.
    pub fn host_endpoint(mut self, node: &Node) -> Self {
        self.endpoints.push(json!({
            "ips": [node.v4(), node.v6()],
            "nodeName": node.name(),
            "zone": node.zone(),
            "conditions": {"ready": true, "serving": true, "terminating": false},
        }));
        self
    }

    /// A ready endpoint outside of the cluster.
    pub fn endpoint_outside(mut self, ips: [IpAddr; 2]) -> Self {
        self.endpoints.push(json!({
            "ips": ips,
            "conditions": {"ready": true, "serving": true, "terminating": false},
        }));
        self
    }

    /// A ready endpoint.
    pub fn endpoint(self, pod: &Pod) -> Self {
        self.endpoint_with(pod, &json!({"ready": true, "serving": true, "terminating": false}))
    }

    /// Ready endpoints.
    pub fn endpoints(self, pods: &[&Pod]) -> Self {
        pods.iter().fold(self, |service, pod| service.endpoint(pod))
    }

    /// An endpoint with these conditions.
    pub fn endpoint_with(mut self, pod: &Pod, conditions: &Value) -> Self {
        let (namespace, name) = pod.key().split_once('/').expect("pods are named so");
        self.endpoints.push(json!({
            "ips": pod.ips(),
            "nodeName": pod.node().name(),
            "zone": pod.node().zone(),
            "conditions": conditions,
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": name},
        }));
        self
    }

    /// The objects, to be applied.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut text = self.service().to_string();
        for (family, is_v4) in [("IPv4", true), ("IPv6", false)] {
            text += "\n---\n";
            text += &self.slice(family, is_v4).to_string();
        }
        text
    }

    fn service(&self) -> Value {
        let (namespace, name) = self.key.split_once('/').expect("checked when it was named");
        let port = |(number, (transport, name, port, target)): (usize, &(Transport, String, u16, u16))| {
            let mut port = json!({"name": name, "protocol": protocol(*transport), "port": port, "targetPort": target});
            if let Some(node_port) = self.node_ports.get(number) {
                port["nodePort"] = json!(node_port);
            }
            port
        };
        let families: Vec<&str> = match &self.ips[..] {
            [] => vec!["IPv4", "IPv6"],
            ips => ips.iter().map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" }).collect(),
        };
        let ips = if self.ips.is_empty() { json!(["None"]) } else { json!(self.ips) };
        let mut service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "type": "ClusterIP",
                "clusterIP": ips[0],
                "clusterIPs": ips,
                "ipFamilies": families,
                "ipFamilyPolicy": "PreferDualStack",
                "ports": self.ports.iter().enumerate().map(port).collect::<Vec<_>>(),
            },
            "status": {"loadBalancer": {"ingress": self.ingress}},
        });
        for (field, value) in &self.spec {
            service["spec"][field] = value.clone();
        }
        service
    }

    fn slice(&self, family: &str, is_v4: bool) -> Value {
        let (namespace, name) = self.key.split_once('/').expect("checked when it was named");
        let endpoint = |endpoint: &Value| {
            let mut endpoint = endpoint.clone();
            endpoint["addresses"] = json!([endpoint["ips"][usize::from(!is_v4)]]);
            if let Some(fields) = endpoint.as_object_mut() {
                fields.remove("ips");
            }
            endpoint
        };
        let port = |(transport, name, _, target): &(Transport, String, u16, u16)| json!({"name": name, "protocol": protocol(*transport), "port": target});
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": namespace,
                "name": format!("{name}-{}", family.to_lowercase()),
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": family,
            "endpoints": self.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
            "ports": self.ports.iter().map(port).collect::<Vec<_>>(),
        })
    }
}

fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
        Transport::Sctp => "SCTP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_slice() {
        let service = ServiceManifest::new("shop/web").ips(&["10.96.1.1", "fd00:10:96::1"]).tcp("http", 80, 8080);
        let objects: Vec<Value> = documents(&service.yaml());
        let kinds: Vec<&str> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
        assert_eq!(kinds, ["Service", "EndpointSlice", "EndpointSlice"]);
        assert_eq!(objects[0]["spec"]["clusterIPs"], json!(["10.96.1.1", "fd00:10:96::1"]));
        assert_eq!(objects[2]["addressType"], "IPv6");
        assert_eq!(objects[2]["ports"], json!([{"name": "http", "protocol": "TCP", "port": 8080}]));
    }

    #[test]
    fn without_addresses_it_is_headless() {
        let objects = documents(&ServiceManifest::new("shop/web").tcp("http", 80, 8080).yaml());
        assert_eq!(objects[0]["spec"]["clusterIP"], "None");
    }

    fn documents(yaml: &str) -> Vec<Value> {
        serde_saphyr::from_multiple(yaml).unwrap()
    }
}
