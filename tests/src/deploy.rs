//! Ready-made objects deployed in a lab: their pods are made, and their addresses are replaced by those that the pods got.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::manifests::Manifests;
use crate::node::Node;
use crate::pod::Pod;

/// Pods of a deployment, by namespace and name. Pods of the host's network are not among them: they are processes of
/// their nodes.
pub type Pods = BTreeMap<String, Pod>;

/// The ports of a pod.
#[derive(Debug, Default)]
struct Ports {
    tcp: BTreeSet<u16>,
    udp: BTreeSet<u16>,
}

/// Deploys objects: all but Nodes, which a lab has already.
pub(crate) fn deploy(
    manifests: &Manifests,
    nodes: &[Arc<Node>],
    yaml: &str,
    serves: &(dyn Fn(&Value) -> bool + Sync),
) -> Result<Pods> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
    let of_kind = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).collect::<Vec<_>>();
    let (pods, slices) = (of_kind("Pod"), of_kind("EndpointSlice"));
    for object in &objects {
        if !["Node", "Pod", "EndpointSlice"].contains(&object["kind"].as_str().unwrap_or_default()) {
            manifests.apply(&object.to_string());
        }
    }
    let ports = ports(&pods, &slices);
    // One thread for each node, as each has its own runtime.
    let made = thread::scope(|scope| {
        let threads: Vec<_> = nodes
            .iter()
            .map(|node| {
                let (own, ports) = (pods.iter().filter(|pod| pod["spec"]["nodeName"] == node.name()), &ports);
                scope
                    .spawn(move || own.filter_map(|pod| start(manifests, node, pod, ports, serves)).collect::<Vec<_>>())
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|each| each.join().unwrap_or_else(|reason| std::panic::resume_unwind(reason)))
            .collect::<Vec<_>>()
    });
    let mut addresses = BTreeMap::new();
    let mut deployed = Pods::new();
    for (object, pod) in made {
        let families = object["status"]["podIPs"].as_array().into_iter().flatten();
        for old in families.filter_map(|ip| ip["ip"].as_str()) {
            let new = if old.contains(':') { pod.v6().to_string() } else { pod.v4().to_string() };
            addresses.insert(old.to_owned(), new);
        }
        deployed.insert(pod.key().to_owned(), pod);
    }
    if deployed.len() + pods.iter().filter(|pod| on_host(pod)).count() != pods.len() {
        bail!("a pod is bound to a node that this lab does not have, or two have one name");
    }
    for object in pods.into_iter().chain(slices) {
        let mut object = object.clone();
        replace(&mut object, &addresses);
        manifests.apply(&object.to_string());
    }
    Ok(deployed)
}

/// Makes a pod, or its servers where it has the host's network.
fn start<'a>(
    manifests: &Manifests,
    node: &Arc<Node>,
    object: &'a Value,
    ports: &BTreeMap<String, Ports>,
    serves: &(dyn Fn(&Value) -> bool + Sync),
) -> Option<(&'a Value, Pod)> {
    let key = key(object);
    let none = Ports::default();
    let ports = ports.get(&key).filter(|_| serves(object)).unwrap_or(&none);
    if on_host(object) {
        let [tcp, udp] = [&ports.tcp, &ports.udp].map(|ports| ports.iter().copied().collect::<Vec<_>>());
        node.serve(&key, &tcp, &udp);
        return None;
    }
    let mut pending = object.clone();
    pending["status"] = json!({"phase": "Pending"});
    manifests.apply(&pending.to_string());
    let builder = node.pod(&key).without_object();
    let builder = ports.tcp.iter().fold(builder, |builder, port| builder.tcp(*port));
    Some((object, ports.udp.iter().fold(builder, |builder, port| builder.udp(*port)).start()))
}

/// The ports that pods declare, and those that slices say they have.
fn ports(pods: &[&Value], slices: &[&Value]) -> BTreeMap<String, Ports> {
    let mut all: BTreeMap<String, Ports> = BTreeMap::new();
    for pod in pods {
        let containers = ["containers", "initContainers"].map(|kind| pod["spec"][kind].as_array());
        let declared = containers.into_iter().flatten().flatten().filter_map(|each| each["ports"].as_array()).flatten();
        for port in declared {
            all.entry(key(pod)).or_default().add(&port["protocol"], &port["containerPort"]);
        }
    }
    for slice in slices {
        let namespace = slice["metadata"]["namespace"].as_str().unwrap_or_default();
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            let Some(name) = endpoint["targetRef"]["name"].as_str() else { continue };
            for port in slice["ports"].as_array().into_iter().flatten() {
                all.entry(format!("{namespace}/{name}")).or_default().add(&port["protocol"], &port["port"]);
            }
        }
    }
    all
}

impl Ports {
    fn add(&mut self, protocol: &Value, port: &Value) {
        let Some(port) = port.as_u64().and_then(|port| u16::try_from(port).ok()) else { return };
        match protocol.as_str() {
            None | Some("TCP") => drop(self.tcp.insert(port)),
            Some("UDP") => drop(self.udp.insert(port)),
            Some(_) => {}
        }
    }
}

fn on_host(pod: &Value) -> bool {
    pod["spec"]["hostNetwork"] == true
}

fn key(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or("default").to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

/// Replaces every text that is an address, wherever it is.
fn replace(value: &mut Value, addresses: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => {
            if let Some(new) = addresses.get(text) {
                text.clone_from(new);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| replace(value, addresses)),
        Value::Object(fields) => fields.values_mut().for_each(|value| replace(value, addresses)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
