//! What the reference model says of the objects that the lab has now.

use std::net::IpAddr;

use fairlead_agent::compile::policy::reference::{Flow, judge};
use fairlead_agent::compile::policy::{Direction, World};
use fairlead_objects::{ClusterNetworkPolicy, Namespace, NetworkPolicy, Node, Object, Pod, directory};
use fairlead_tests::Lab;

/// The objects that policy depends on.
#[derive(Default)]
pub(crate) struct Objects {
    nodes: Vec<Node>,
    namespaces: Vec<Namespace>,
    pods: Vec<Pod>,
    policies: Vec<NetworkPolicy>,
    cluster_policies: Vec<ClusterNetworkPolicy>,
}

impl Objects {
    /// Reads the lab's objects as an agent reads them.
    pub(crate) fn read(lab: &Lab) -> Self {
        let mut objects = Self::default();
        let files = directory::read_dir(lab.objects().directory()).unwrap();
        for object in files.into_values().flatten().flatten() {
            match object {
                Object::Node(node) => objects.nodes.push(node),
                Object::Namespace(namespace) => objects.namespaces.push(namespace),
                Object::Pod(pod) => objects.pods.push(pod),
                Object::NetworkPolicy(policy) => objects.policies.push(policy),
                Object::ClusterNetworkPolicy(policy) => objects.cluster_policies.push(policy),
                Object::Service(_) | Object::EndpointSlice(_) => {}
            }
        }
        objects
    }

    /// Whether a pod may open a connection to another: P3.
    pub(crate) fn allow(&self, from: (&str, IpAddr), to: (&str, IpAddr), proto: u8, port: u16) -> bool {
        self.allow_out(from.0, to.1, proto, port) && self.allow_in(to.0, from.1, proto, port)
    }

    /// Whether a pod's egress policies let it reach an address.
    pub(crate) fn allow_out(&self, pod: &str, peer: IpAddr, proto: u8, port: u16) -> bool {
        self.judge(pod, Direction::Egress, Flow { peer, proto, port })
    }

    /// Whether a pod's ingress policies let an address reach it.
    pub(crate) fn allow_in(&self, pod: &str, peer: IpAddr, proto: u8, port: u16) -> bool {
        self.judge(pod, Direction::Ingress, Flow { peer, proto, port })
    }

    fn judge(&self, pod: &str, direction: Direction, flow: Flow) -> bool {
        let world = World {
            nodes: self.nodes.iter().collect(),
            namespaces: self.namespaces.iter().collect(),
            pods: self.pods.iter().collect(),
            policies: self.policies.iter().collect(),
            cluster_policies: self.cluster_policies.iter().collect(),
            ..World::default()
        };
        let pod = self.pods.iter().find(|each| each.key.to_string() == pod).expect("the grid has this pod");
        judge(&world, pod, direction, flow).allow()
    }
}
