//! The cluster's objects as the agents read them, and what they promise: who serves a service, who may reach whom.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, bail};
use fairlead_agent::compile::policy::reference::{Flow, judge};
use fairlead_agent::compile::policy::{Direction, World};
use fairlead_objects::{
    ClusterNetworkPolicy, Endpoint, EndpointSlice, Namespace, NetworkPolicy, Node, Object, ObjectKey, Pod, Protocol,
    Service, ServicePort, directory::read_dir,
};

/// Everything that is in the directory.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) nodes: Vec<Node>,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) services: Vec<Service>,
    pub(super) slices: Vec<EndpointSlice>,
    pub(super) pods: Vec<Pod>,
    pub(super) policies: Vec<NetworkPolicy>,
    pub(super) cluster_policies: Vec<ClusterNetworkPolicy>,
}

/// An endpoint of a service port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backend<'a> {
    pub(super) pod: &'a Pod,
    pub(super) address: SocketAddr,
}

impl Objects {
    /// Reads a directory of manifests.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let mut all = Self::default();
        for (file, found) in read_dir(directory)? {
            for object in found {
                match object.with_context(|| file.clone())? {
                    Object::Node(object) => all.nodes.push(object),
                    Object::Namespace(object) => all.namespaces.push(object),
                    Object::Service(object) => all.services.push(object),
                    Object::EndpointSlice(object) => all.slices.push(object),
                    Object::Pod(object) => all.pods.push(object),
                    Object::NetworkPolicy(object) => all.policies.push(object),
                    Object::ClusterNetworkPolicy(object) => all.cluster_policies.push(object),
                }
            }
        }
        all.services.sort_by(|a, b| a.key.cmp(&b.key));
        all.pods.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(all)
    }

    /// The world that policy is judged in.
    pub(super) fn world(&self) -> World<'_> {
        World {
            namespaces: self.namespaces.iter().collect(),
            nodes: self.nodes.iter().collect(),
            pods: self.pods.iter().collect(),
            policies: self.policies.iter().collect(),
            cluster_policies: self.cluster_policies.iter().collect(),
            ..World::default()
        }
    }

    /// A service by namespace and name.
    pub(super) fn service(&self, namespace: &str, name: &str) -> Result<&Service> {
        let key = ObjectKey::new(namespace, name);
        let found = self.services.iter().find(|service| service.key == key);
        found.with_context(|| format!("the cluster has no Service {key}"))
    }

    /// The endpoints of a service in the slices, one for each family, ready ones only.
    pub(super) fn endpoints<'a>(
        &'a self,
        service: &'a Service,
    ) -> impl Iterator<Item = (&'a EndpointSlice, &'a Endpoint)> {
        let own = move |slice: &&EndpointSlice| {
            slice.key.namespace == service.key.namespace
                && slice.service_name.as_deref() == Some(service.key.name.as_str())
        };
        let all =
            self.slices.iter().filter(own).flat_map(|slice| slice.endpoints.iter().map(move |each| (slice, each)));
        all.filter(|(_, endpoint)| endpoint.ready)
    }

    /// Who serves a port of a service, in one family.
    pub(super) fn backends<'a>(&'a self, service: &'a Service, port: &ServicePort, v4: bool) -> Vec<Backend<'a>> {
        let mut backends = Vec::new();
        for (slice, endpoint) in self.endpoints(service) {
            let same = |each: &&fairlead_objects::EndpointPort| {
                each.protocol == port.protocol && each.name.as_deref().unwrap_or_default() == port.name
            };
            let Some(number) = slice.ports.iter().find(same).and_then(|each| each.port) else { continue };
            let pod = endpoint.pod.as_ref().and_then(|key| self.pods.iter().find(|pod| pod.key == *key));
            let (Some(pod), Some(ip)) = (pod, endpoint.addresses.first()) else { continue };
            if ip.is_ipv4() == v4 {
                backends.push(Backend { pod, address: SocketAddr::new(*ip, number) });
            }
        }
        backends
    }

    /// The addresses of the cluster's DNS service, IPv4 first.
    pub(super) fn dns(&self) -> Result<[SocketAddr; 2]> {
        let service = self.service("kube-system", "kube-dns")?;
        match service.cluster_ips[..] {
            [one, two] => Ok([SocketAddr::new(one, 53), SocketAddr::new(two, 53)]),
            _ => bail!("the Service kube-dns needs an address of each family"),
        }
    }
}

/// Whether the policies let a pod reach another pod's address.
pub(super) fn allows(world: &World<'_>, from: &Pod, to: &Pod, address: SocketAddr, protocol: Protocol) -> bool {
    let Some(source) = address_of(from, address.is_ipv4()) else { return false };
    let judged = |pod, direction, peer| {
        judge(world, pod, direction, Flow { peer, proto: protocol.number(), port: address.port() }).allow()
    };
    judged(from, Direction::Egress, address.ip()) && judged(to, Direction::Ingress, source)
}

/// The pod's address of a family.
pub(super) fn address_of(pod: &Pod, v4: bool) -> Option<IpAddr> {
    pod.ips.iter().copied().find(|ip| ip.is_ipv4() == v4)
}
