//! Who has which addresses and ports, so that claims of others can be looked up.
//!
//! Kept up to date with every object, since Services are compiled one by one: what changes here says which of those that
//! claim something have to be compiled again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fairlead_objects::{EndpointSlice, Node, ObjectKey, Protocol, Service, ServiceType};
use ipnetwork::IpNetwork;

use super::{Dirty, Whole};

/// The port of kubelets, which is TCP.
pub const KUBELET_PORT: u16 = 10_250;

/// Who has it, by what is had.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holders<K: Eq + Hash>(HashMap<K, BTreeSet<ObjectKey>>);

impl<K: Eq + Hash> Default for Holders<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Copy + Ord + Hash> Holders<K> {
    /// Somebody has this now instead of that. What is different.
    fn replace(&mut self, who: &ObjectKey, old: &BTreeSet<K>, new: &BTreeSet<K>) -> Vec<K> {
        for gone in old.difference(new) {
            if let Some(holders) = self.0.get_mut(gone) {
                holders.remove(who);
                if holders.is_empty() {
                    self.0.remove(gone);
                }
            }
        }
        for come in new.difference(old) {
            self.0.entry(*come).or_default().insert(who.clone());
        }
        old.symmetric_difference(new).copied().collect()
    }

    fn of(&self, key: K) -> impl Iterator<Item = &ObjectKey> + use<'_, K> {
        self.0.get(&key).into_iter().flatten()
    }
}

/// Addresses and ports that belong to somebody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reserved {
    cluster_ips: Holders<IpAddr>,
    node_ports: Holders<(u16, Protocol)>,
    node_ips: Holders<IpAddr>,
    pod_ranges: Holders<IpNetwork>,
    /// Endpoints of `default/kubernetes`, by slice.
    api_servers: Holders<SocketAddr>,
    /// Where the agent has reached one: a load balancer in front of them is no endpoint.
    used_servers: BTreeSet<SocketAddr>,
    /// This node's addresses, as the kernel has them now.
    own: BTreeSet<IpAddr>,
    /// Addresses that mean all hosts of a network that it is on.
    broadcasts: BTreeSet<Ipv4Addr>,
    /// UDP port of the tunnel between nodes, if there is one.
    tunnel_port: Option<u16>,
    /// Slices with endpoints at that port, and the Services that they are of.
    at_tunnel: BTreeMap<ObjectKey, ObjectKey>,
    /// External and load balancers' addresses: the Services that claim them.
    claims: Holders<IpAddr>,
    /// The same by their ports.
    claimed_ports: Holders<u16>,
}

impl Reserved {
    /// The Services that have a ClusterIP, in order.
    pub fn cluster_ip(&self, ip: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        self.cluster_ips.of(ip)
    }

    /// Every ClusterIP, with the first of the Services that have it.
    #[must_use]
    pub fn all_cluster_ips(&self) -> BTreeMap<IpAddr, ObjectKey> {
        let held = self.cluster_ips.0.iter();
        held.filter_map(|(ip, holders)| Some((*ip, holders.first()?.clone()))).collect()
    }

    /// Every ClusterIP, with the namespace of the first of the Services that have it.
    pub fn cluster_ips_of(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        let held = self.cluster_ips.0.iter();
        held.filter_map(|(ip, holders)| Some((&*holders.first()?.namespace, *ip)))
    }

    /// The Services that have a NodePort, that of health checks included, in order.
    pub fn node_port(&self, port: u16, protocol: Protocol) -> impl Iterator<Item = &ObjectKey> {
        self.node_ports.of((port, protocol))
    }

    /// Whether a node has an address, as its object says, or this one by the kernel.
    #[must_use]
    pub fn is_node(&self, ip: IpAddr) -> bool {
        self.node_ips.0.contains_key(&ip) || self.is_own(ip)
    }

    /// Whether a port of an address is where a node takes what others send it through the tunnel.
    #[must_use]
    pub fn is_tunnel(&self, ip: IpAddr, port: u16, protocol: Protocol) -> bool {
        self.is_tunnel_port(port, protocol) && self.is_node(ip)
    }

    /// Whether a port is the tunnel's, at any address of a node.
    #[must_use]
    pub fn is_tunnel_port(&self, port: u16, protocol: Protocol) -> bool {
        protocol == Protocol::Udp && self.tunnel_port == Some(port)
    }

    /// Whether this node has an address, as the kernel says.
    #[must_use]
    pub fn is_own(&self, ip: IpAddr) -> bool {
        self.own.contains(&ip)
    }

    /// Whether an address means all hosts of a network that this node is on.
    #[must_use]
    pub fn is_broadcast(&self, ip: IpAddr) -> bool {
        matches!(ip, IpAddr::V4(ip) if self.broadcasts.contains(&ip))
    }

    /// The longest of the nodes' pod ranges that holds an address.
    #[must_use]
    pub fn pod_range(&self, ip: IpAddr) -> Option<IpNetwork> {
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        (0..=longest).rev().find_map(|length| {
            let outer = IpNetwork::new(ip, length).ok()?;
            let range = IpNetwork::new(outer.network(), length).ok()?;
            self.pod_ranges.0.contains_key(&range).then_some(range)
        })
    }

    /// Whether an API server is reached there (TCP): where the agent reaches it, an endpoint of `default/kubernetes`, or its
    /// port at any address of the node that has it.
    #[must_use]
    pub fn is_api_server(&self, ip: IpAddr, port: u16) -> bool {
        if self.used_servers.contains(&SocketAddr::new(ip, port)) {
            return true;
        }
        let at_port = self.api_servers.0.keys().filter(|endpoint| endpoint.port() == port).map(SocketAddr::ip);
        at_port.into_iter().any(|endpoint| endpoint == ip || self.share_a_node(endpoint, ip))
    }

    /// Addresses of this node, as the kernel says, and of API servers.
    pub fn of_the_cluster(&self) -> impl Iterator<Item = IpAddr> {
        let servers = self.api_servers.0.keys().chain(&self.used_servers).map(SocketAddr::ip);
        self.own.iter().copied().chain(servers).map(|ip| ip.to_canonical())
    }

    /// Whether an API server listens at a port of this node (TCP).
    #[must_use]
    pub fn is_own_api_server(&self, port: u16) -> bool {
        self.api_servers.0.keys().any(|endpoint| endpoint.port() == port && self.is_own(endpoint.ip()))
    }

    fn share_a_node(&self, a: IpAddr, b: IpAddr) -> bool {
        let by_object = self.node_ips.of(a).any(|node| self.node_ips.of(b).any(|other| other == node));
        by_object || (self.is_own(a) && self.is_own(b))
    }

    pub(super) fn change_service(
        &mut self,
        key: &ObjectKey,
        old: Option<&Service>,
        new: Option<&Service>,
        dirty: &mut Dirty,
    ) {
        self.claims.replace(key, &set(old, claimed), &set(new, claimed));
        self.claimed_ports.replace(key, &set(old, claimed_ports), &set(new, claimed_ports));
        for ip in self.cluster_ips.replace(key, &set(old, cluster_ips), &set(new, cluster_ips)) {
            dirty.whole.extend([Whole::HostPorts, Whole::Routes]);
            dirty.services.extend(self.claims.of(ip).cloned());
        }
        for (port, _) in self.node_ports.replace(key, &set(old, node_ports), &set(new, node_ports)) {
            dirty.whole.insert(Whole::HostPorts);
            dirty.services.extend(self.claimed_ports.of(port).cloned());
        }
    }

    pub(super) fn change_node(&mut self, key: &ObjectKey, old: Option<&Node>, new: Option<&Node>, dirty: &mut Dirty) {
        let (before, after) = (set(old, node_ips), set(new, node_ips));
        if !self.node_ips.replace(key, &before, &after).is_empty() {
            // With one address that comes, an API server's port may be protected at the others.
            let touched = before.union(&after);
            dirty.services.extend(touched.flat_map(|ip| self.claims.of(*ip)).cloned());
            dirty.services.extend(self.at_tunnel.values().cloned());
        }
        for range in self.pod_ranges.replace(key, &set(old, pod_ranges), &set(new, pod_ranges)) {
            let inside = self.claims.0.iter().filter(|(ip, _)| range.contains(**ip));
            dirty.services.extend(inside.flat_map(|(_, services)| services).cloned());
        }
    }

    pub(super) fn change_slice(
        &mut self,
        key: &ObjectKey,
        old: Option<&EndpointSlice>,
        new: Option<&EndpointSlice>,
        dirty: &mut Dirty,
    ) {
        if !self.api_servers.replace(key, &set(old, api_servers), &set(new, api_servers)).is_empty() {
            self.touch_all(dirty);
        }
        let service = new.filter(|slice| {
            let mut ports = slice.ports.iter().filter_map(|port| Some((port.port?, port.protocol)));
            ports.any(|(port, protocol)| self.is_tunnel_port(port, protocol))
        });
        match service.and_then(|slice| slice.service_name.as_deref()) {
            Some(service) => drop(self.at_tunnel.insert(key.clone(), ObjectKey::new(&key.namespace, service))),
            None => drop(self.at_tunnel.remove(key)),
        }
    }

    pub(super) fn set_tunnel_port(&mut self, port: Option<u16>) {
        self.tunnel_port = port;
    }

    /// This node has these addresses now.
    pub(super) fn set_own(&mut self, addresses: BTreeSet<IpAddr>, broadcasts: BTreeSet<Ipv4Addr>, dirty: &mut Dirty) {
        if self.own != addresses || self.broadcasts != broadcasts {
            (self.own, self.broadcasts) = (addresses, broadcasts);
            self.touch_all(dirty);
        }
    }

    pub(super) fn use_api_server(&mut self, server: SocketAddr, dirty: &mut Dirty) {
        if self.used_servers.insert(server) {
            self.touch_all(dirty);
        }
    }

    fn touch_all(&self, dirty: &mut Dirty) {
        dirty.whole.extend([Whole::HostPorts, Whole::Names]);
        dirty.services.extend(self.claims.0.values().flatten().chain(self.at_tunnel.values()).cloned());
    }
}

fn set<T, K: Ord>(object: Option<&T>, of: impl Fn(&T) -> BTreeSet<K>) -> BTreeSet<K> {
    object.map(of).unwrap_or_default()
}

/// Whoever proxies the Service: an address that DNS gives out is nobody else's.
fn cluster_ips(service: &Service) -> BTreeSet<IpAddr> {
    service.cluster_ips.iter().copied().filter(|ip| !ip.is_unspecified()).collect()
}

fn node_ports(service: &Service) -> BTreeSet<(u16, Protocol)> {
    let has = matches!(service.service_type, ServiceType::NodePort | ServiceType::LoadBalancer);
    let ports = service.ports.iter().map(|port| (port.node_port, port.protocol));
    // The node itself answers there, and the API server gives it out with NodePorts.
    let all = ports.chain([(service.health_check_node_port, Protocol::Tcp)]).filter(|_| has && service.is_proxied());
    all.filter_map(|(port, protocol)| Some((port.filter(|number| *number != 0)?, protocol))).collect()
}

fn claimed(service: &Service) -> BTreeSet<IpAddr> {
    let balancers = service.load_balancer.iter().map(|ingress| ingress.ip);
    service.external_ips.iter().copied().chain(balancers).collect()
}

fn claimed_ports(service: &Service) -> BTreeSet<u16> {
    let claims = !claimed(service).is_empty();
    service.ports.iter().filter(|_| claims).map(|port| port.port).collect()
}

fn node_ips(node: &Node) -> BTreeSet<IpAddr> {
    node.internal_ips.iter().chain(&node.external_ips).copied().collect()
}

fn pod_ranges(node: &Node) -> BTreeSet<IpNetwork> {
    node.pod_cidrs.iter().copied().collect()
}

fn api_servers(slice: &EndpointSlice) -> BTreeSet<SocketAddr> {
    if slice.key.namespace != "default" || slice.service_name.as_deref() != Some("kubernetes") {
        return BTreeSet::new();
    }
    let ports: Vec<u16> =
        slice.ports.iter().filter(|port| port.protocol == Protocol::Tcp).filter_map(|port| port.port).collect();
    let ips = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    ips.flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port))).collect()
}
