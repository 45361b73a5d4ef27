//! Services with the addresses and ports that the API server would have given them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

/// Numbers below are for services that choose an address themselves.
const FIRST_ADDRESS: u16 = 32;
/// Node ports below are for services that choose one themselves.
const FIRST_NODE_PORT: i32 = 31_000;

/// What is taken.
#[derive(Debug, Default)]
struct Taken {
    addresses: BTreeSet<IpAddr>,
    node_ports: BTreeSet<i32>,
}

/// Gives each service what it lacks: addresses of both families, node ports, defaults.
///
/// # Errors
/// When a service has no spec, or the addresses run out.
pub(super) fn services(manifests: &[Service]) -> Result<Vec<Service>> {
    let mut taken = Taken::default();
    for spec in manifests.iter().filter_map(|service| service.spec.as_ref()) {
        let addresses = spec.cluster_ips.iter().flatten().filter_map(|text| text.parse::<IpAddr>().ok());
        taken.addresses.extend(addresses);
        taken.node_ports.extend(spec.ports.iter().flatten().filter_map(|port| port.node_port));
    }
    manifests.iter().map(|service| taken.complete(service.clone())).collect()
}

impl Taken {
    fn complete(&mut self, mut service: Service) -> Result<Service> {
        let spec = service.spec.as_mut().context("a Service without spec")?;
        let type_ = spec.type_.get_or_insert_with(|| "ClusterIP".to_owned()).clone();
        for port in spec.ports.iter_mut().flatten() {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
        if type_ != "ExternalName" {
            self.addresses(spec)?;
        }
        if type_ == "NodePort" || type_ == "LoadBalancer" {
            spec.external_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
            for port in spec.ports.iter_mut().flatten() {
                port.node_port = Some(port.node_port.unwrap_or_else(|| self.node_port()));
            }
        }
        service.metadata.annotations = None;
        Ok(service)
    }

    fn addresses(&mut self, spec: &mut ServiceSpec) -> Result<()> {
        spec.session_affinity.get_or_insert_with(|| "None".to_owned());
        spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
        spec.ip_families = Some(vec!["IPv4".to_owned(), "IPv6".to_owned()]);
        spec.ip_family_policy = Some("PreferDualStack".to_owned());
        if spec.cluster_ip.as_deref() == Some("None") {
            spec.cluster_ips = Some(vec!["None".to_owned()]);
        } else if spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
            let (ipv4, ipv6) = self.free().context("no service address is free")?;
            spec.cluster_ip = Some(ipv4.to_string());
            spec.cluster_ips = Some(vec![ipv4.to_string(), ipv6.to_string()]);
        }
        Ok(())
    }

    /// The next pair with the same number: 10.96.0.32 and fd00:10:96::20.
    fn free(&mut self) -> Option<(Ipv4Addr, Ipv6Addr)> {
        let pairs = (FIRST_ADDRESS..u16::MAX).map(|number| {
            let [high, low] = number.to_be_bytes();
            (Ipv4Addr::new(10, 96, high, low), Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, number))
        });
        let is_free = |ip: IpAddr| !self.addresses.contains(&ip);
        let (ipv4, ipv6) = pairs.into_iter().find(|(v4, v6)| is_free((*v4).into()) && is_free((*v6).into()))?;
        self.addresses.extend([IpAddr::from(ipv4), IpAddr::from(ipv6)]);
        Some((ipv4, ipv6))
    }

    fn node_port(&mut self) -> i32 {
        let mut port = FIRST_NODE_PORT;
        while !self.node_ports.insert(port) {
            port += 1;
        }
        port
    }
}
