//! What a person names an end of a flow by, and its addresses.

use std::net::IpAddr;

use fairlead_objects::{ObjectKey, Protocol};

use super::super::views::PortRef;
use crate::compile::policy::World;
use crate::model::Model;

/// An end of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// A pod by name.
    Pod(ObjectKey),
    /// A Service by name.
    Service(ObjectKey),
    /// A node by name.
    Node(String),
    /// An address.
    Address(IpAddr),
}

/// A port's name, protocol and number.
type NamedPort<'a> = (Option<&'a str>, Protocol, u16);

/// The addresses of an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) ips: Vec<IpAddr>,
    /// What a person may not expect of them.
    pub(super) said: Option<String>,
}

impl End {
    /// Reads one. NAMESPACE/NAME is a pod, or else a Service; `pod/`, `service/` and `node/` before a name leave no doubt.
    pub(super) fn find(model: &Model, text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Address(ip.to_canonical()));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let pod = |key: &ObjectKey| model.pod(key).is_some();
        let service = |key: &ObjectKey| model.service(key).is_some();
        let node = |name: &str| model.nodes().any(|node| node.name == name);
        let known_if = |known: bool, end: Self, kind: &str| {
            if known { Ok(end) } else { Err(format!("no {kind} {} is known{}", parts[1..].join("/"), hint(kind))) }
        };
        match parts.as_slice() {
            [_, ""] | ["", ..] | [_, "", ..] | [_, _, ""] => Err(usage(text)),
            ["pod", namespace, name] => {
                let key = ObjectKey::new(*namespace, *name);
                known_if(pod(&key), Self::Pod(key), "pod")
            }
            ["service" | "svc", namespace, name] => {
                let key = ObjectKey::new(*namespace, *name);
                known_if(service(&key), Self::Service(key), "Service")
            }
            [namespace, name] => {
                let key = ObjectKey::new(*namespace, *name);
                if pod(&key) {
                    Ok(Self::Pod(key))
                } else if service(&key) {
                    Ok(Self::Service(key))
                } else if *namespace == "node" {
                    known_if(node(name), Self::Node((*name).to_owned()), "node")
                } else {
                    Err(format!("no pod or Service {text} is known{}", hint("pod")))
                }
            }
            _ => Err(usage(text)),
        }
    }

    /// Its addresses, at least one.
    pub(super) fn addresses(&self, model: &Model, world: &World<'_>) -> Result<Addresses, String> {
        let of_node = |name: &str| {
            let node = model.nodes().find(|node| node.name == name);
            node.map(|node| node.internal_ips.clone()).unwrap_or_default()
        };
        let mut said = None;
        let ips = match self {
            Self::Address(ip) => vec![*ip],
            Self::Node(name) => of_node(name),
            Self::Service(key) => return of_service(model, key),
            Self::Pod(key) => {
                let pod = model.pod(key).filter(|pod| pod.host_network);
                if let Some(name) = pod.and_then(|pod| pod.node_name.as_deref()) {
                    said = Some(format!(
                        "{key} is in the host network of node {name}: no policy selects it, and its packets are the \
                         node's"
                    ));
                    of_node(name)
                } else {
                    let attached = world.local.iter().find(|local| local.key == *key);
                    let object = model.pod(key).map(|pod| world.ranges().owned(pod).collect());
                    attached.map(|local| local.ips.clone()).or(object).unwrap_or_default()
                }
            }
        };
        if ips.is_empty() {
            return Err(format!("{self} has no address (not yet, or no longer): give an address instead"));
        }
        Ok(Addresses { ips, said })
    }

    /// The number of a port of it.
    pub(super) fn port(&self, model: &Model, world: &World<'_>, port: &PortRef, protocol: u8) -> Result<u16, String> {
        let name = match port {
            PortRef::Number(port) => return Ok(*port),
            PortRef::Name(name) => name,
        };
        let word = |protocol: Protocol| protocol.as_str();
        let (owner, ports): (String, Vec<NamedPort<'_>>) = match self {
            Self::Node(_) => return Err(format!("{self} has no named ports: give a number instead of {name:?}")),
            Self::Service(key) => {
                let ports = model.service(key).into_iter().flat_map(|service| &service.ports);
                (self.to_string(), ports.map(|port| (Some(port.name.as_str()), port.protocol, port.port)).collect())
            }
            Self::Pod(_) | Self::Address(_) => {
                let pod = match self {
                    Self::Pod(key) => model.pod(key),
                    Self::Address(ip) => world.owner(*ip),
                    Self::Service(_) | Self::Node(_) => None,
                };
                let pod =
                    pod.ok_or_else(|| format!("{self} does not belong to a pod: give a number instead of {name:?}"))?;
                let ports = pod.container_ports.iter().map(|port| (port.name.as_deref(), port.protocol, port.port));
                (format!("pod {}", pod.key), ports.collect())
            }
        };
        let named = ports.iter().find(|(own, of, _)| *own == Some(name) && of.number() == protocol);
        named.map(|(_, _, number)| *number).ok_or_else(|| {
            let known: Vec<_> = ports
                .iter()
                .filter_map(|(own, of, number)| {
                    Some(format!("{} {number}/{}", (*own).filter(|n| !n.is_empty())?, word(*of)))
                })
                .collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            format!("{owner} has no port {name:?} of that protocol; its named ports: {known}")
        })
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod(key) => write!(f, "pod {key}"),
            Self::Service(key) => write!(f, "Service {key}"),
            Self::Node(name) => write!(f, "node {name}"),
            Self::Address(ip) => write!(f, "{ip}"),
        }
    }
}

fn of_service(model: &Model, key: &ObjectKey) -> Result<Addresses, String> {
    let Some(service) = model.service(key) else { return Err(format!("no Service {key} is known")) };
    if !service.cluster_ips.is_empty() {
        return Ok(Addresses { ips: service.cluster_ips.clone(), said: None });
    }
    if let Some(name) = &service.external_name {
        return Err(format!("Service {key} is an ExternalName for {name}: give an address of that host"));
    }
    let endpoints = model.slices_of(key).into_iter().flat_map(|slice| &slice.endpoints);
    let mut ips: Vec<String> =
        endpoints.flat_map(|endpoint| &endpoint.addresses).map(ToString::to_string).take(4).collect();
    ips.dedup();
    let ips = if ips.is_empty() { "none at present".to_owned() } else { format!("such as {}", ips.join(", ")) };
    Err(format!(
        "Service {key} has no cluster IP: clients connect to its endpoints ({ips}); give an endpoint's address and port"
    ))
}

fn usage(text: &str) -> String {
    format!("{text:?} is not NAMESPACE/POD, NAMESPACE/SERVICE, node/NAME or an address")
}

fn hint(kind: &str) -> &'static str {
    if kind == "pod" {
        ": give it as NAMESPACE/NAME, or give an address (pods of other nodes are known only while there is a \
         NetworkPolicy)"
    } else {
        ""
    }
}
