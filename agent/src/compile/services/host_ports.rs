//! hostPorts: ports of the node that lead to one pod of it (S13). What the CNI plugin `portmap` does elsewhere.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fairlead_datapath::service::FrontendKey;
use fairlead_datapath::{Addr, WirePort};
use fairlead_objects::{ObjectKey, Pod, TrafficPolicy};

use super::external::wildcard;
use super::{Answer, BackendAddr, Family, FrontendKind, FrontendPolicy, PortContent, PortKey, ServiceContent};

/// What the names of pods are given in front.
const PREFIX: &str = "pod/";

/// Under which key a pod's hostPorts are planned. No service has it: names have no slash.
#[must_use]
pub fn host_ports_key(pod: &ObjectKey) -> ObjectKey {
    ObjectKey::new(&pod.namespace, format!("{PREFIX}{}", pod.name))
}

/// The pod whose hostPorts are planned under a key; nothing if it is a service's.
#[must_use]
pub fn pod_of_host_ports(key: &ObjectKey) -> Option<ObjectKey> {
    key.name.strip_prefix(PREFIX).map(|name| ObjectKey::new(&key.namespace, name))
}

/// The wanted content of the tables for the hostPorts of a pod of this node, which has these addresses.
///
/// A hostPort is (hostIP, port, protocol). Without hostIP it is every address of the node in both families, with `0.0.0.0`
/// or `::` every one of that family, else that one address alone.
#[must_use]
pub fn compile_host_ports(pod: &Pod, ips: &[IpAddr]) -> ServiceContent {
    let mut content = ServiceContent::default();
    if pod.host_network || pod.phase.is_terminal() {
        return content;
    }
    let policy = FrontendPolicy {
        kind: FrontendKind::HostPort,
        inside: TrafficPolicy::Cluster,
        outside: TrafficPolicy::Local,
        guarded: false,
    };
    for port in &pod.container_ports {
        let Some(number) = port.host_port.filter(|number| *number != 0) else { continue };
        for family in [Family::V4, Family::V6] {
            let Some(ip) = ips.iter().copied().find(|ip| Family::of(ip) == family) else { continue };
            let host_ip = match port.host_ip {
                Some(ip) if Family::of(&ip) != family => continue,
                Some(ip) => ip,
                None => wildcard(family),
            };
            let name = if host_ip.is_unspecified() { number.to_string() } else { format!("{host_ip}:{number}") };
            let key = PortKey { service: host_ports_key(&pod.key), port: name, protocol: port.protocol, family };
            let backends = BTreeSet::from([BackendAddr { ip, port: port.port }]);
            let frontend = FrontendKey::new(Addr::from(host_ip), WirePort::new(number), port.protocol.number());
            // Of two containers that ask for one hostPort the first has it.
            content.ports.entry(key).or_insert_with(|| PortContent {
                affinity_seconds: 0,
                cluster: Answer::Forward(backends.clone()),
                local: Answer::Forward(backends.clone()),
                in_service: backends,
                ending: BTreeSet::new(),
                source_ranges: BTreeSet::new(),
                created: pod.created,
                frontends: [(frontend, policy)].into(),
            });
        }
    }
    content
}
