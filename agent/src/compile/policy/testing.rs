//! Small clusters for tests: by hand, and any that there can be.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fairlead_datapath::policy::decide;
use fairlead_datapath::{Addr, WirePort, peer};
use fairlead_objects::{
    Action, ClusterNetworkPolicy, ClusterRule, ContainerPort, DomainName, Event, Labels, Mode, Namespace,
    NetworkPolicy, Node, Object, ObjectKey, Operator, Peer, Phase, Pod, PolicyPort, PortMatch, Protocol, Requirement,
    Rule, Selector, Subject, Tier,
};
use proptest::prelude::*;

use super::reference::{Flow, judge};
use super::{Direction, Draft, RuleRef, World};
use crate::masquerade::OwnSources;
use crate::model::{LocalPod, Model};
use crate::names::{Answer, Names};
use crate::network::Network;
use crate::parts::Parts;
use crate::plan::policy::{Content, Plan, State};

/// A cluster as node `n1` sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cluster {
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) policies: Vec<NetworkPolicy>,
    pub(crate) cluster_policies: Vec<ClusterNetworkPolicy>,
    pub(crate) local: Vec<LocalPod>,
    /// Where pods go with their own addresses.
    pub(crate) own_sources: OwnSources,
    /// What pods were told.
    pub(crate) names: Names,
    /// What runs here.
    pub(crate) parts: Parts,
}

pub(crate) fn key(text: &str) -> ObjectKey {
    let (namespace, name) = text.split_once('/').unwrap();
    ObjectKey::new(namespace, name)
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `"app=web,tier=front"`
pub(crate) fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

pub(crate) fn requirement(key: &str, operator: Operator, values: &[&str]) -> Requirement {
    Requirement { key: key.to_owned(), operator, values: values.iter().map(ToString::to_string).collect() }
}

/// A selector of labels that must be there: `"app=web"`.
pub(crate) fn select(text: &str) -> Selector {
    Selector::All(labels(text).iter().map(|(k, v)| requirement(k, Operator::In, &[v])).collect())
}

/// Peers of the policy's own namespace.
pub(crate) fn pods(text: &str) -> Peer {
    Peer::Pods { namespaces: None, pods: select(text) }
}

/// Peers of selected namespaces.
pub(crate) fn pods_of(namespaces: &str, pods: &str) -> Peer {
    Peer::Pods { namespaces: Some(select(namespaces)), pods: select(pods) }
}

pub(crate) fn block(cidr: &str, except: &[&str]) -> Peer {
    Peer::IpBlock { cidr: cidr.parse().unwrap(), except: except.iter().map(|e| e.parse().unwrap()).collect() }
}

pub(crate) fn tcp(port: u16) -> PolicyPort {
    PolicyPort { protocol: Protocol::Tcp, port: PortMatch::Range(port, port) }
}

pub(crate) fn udp(port: u16) -> PolicyPort {
    PolicyPort { protocol: Protocol::Udp, port: PortMatch::Range(port, port) }
}

pub(crate) fn named(protocol: Protocol, name: &str) -> PolicyPort {
    PolicyPort { protocol, port: PortMatch::Named(name.to_owned()) }
}

pub(crate) fn rule(peers: &[Peer], ports: &[PolicyPort]) -> Rule {
    Rule { peers: peers.to_vec(), ports: ports.to_vec() }
}

/// A policy of the cluster for the pods of namespaces with these labels: `"Admin/10/name"`.
pub(crate) fn cnp(
    place: &str,
    namespaces: &str,
    ingress: &[ClusterRule],
    egress: &[ClusterRule],
) -> ClusterNetworkPolicy {
    let [tier, priority, name] = place.split('/').collect::<Vec<_>>()[..] else { panic!("{place}") };
    ClusterNetworkPolicy {
        key: ObjectKey::cluster(name),
        mode: Mode::Enforce,
        tier: if tier == "Admin" { Tier::Admin } else { Tier::Baseline },
        priority: Some(priority.parse().unwrap()),
        subject: Subject { namespaces: select(namespaces), pods: Selector::everything() },
        ingress: ingress.to_vec(),
        egress: egress.to_vec(),
    }
}

/// A rule of a policy of the cluster.
pub(crate) fn does(action: Action, peers: &[Peer], ports: &[PolicyPort]) -> ClusterRule {
    ClusterRule { name: String::new(), action, matches: Some(rule(peers, ports)) }
}

/// The addresses of nodes.
pub(crate) fn nodes(text: &str) -> Peer {
    Peer::Nodes(select(text))
}

/// What a pod was told for these names.
pub(crate) fn named_by(texts: &[&str]) -> Peer {
    Peer::DomainNames(texts.iter().map(|text| DomainName::parse(text).unwrap()).collect())
}

pub(crate) fn declared(name: &str, port: u16, protocol: Protocol) -> ContainerPort {
    ContainerPort { name: Some(name.to_owned()), port, protocol, host_port: None, host_ip: None }
}

impl Cluster {
    /// Namespaces x, y and z; nodes n1 (ours) and n2.
    pub(crate) fn new() -> Self {
        let mut cluster = Self::default();
        for name in ["x", "y", "z"] {
            let labels = labels(&format!("ns={name},kubernetes.io/metadata.name={name}"));
            cluster.namespaces.push(Namespace { name: name.to_owned(), labels });
        }
        for n in 1..=2 {
            cluster.nodes.push(Node {
                name: format!("n{n}"),
                labels: Labels::new(),
                zone: None,
                internal_ips: vec![ip(&format!("172.18.0.{n}")), ip(&format!("fd00:172:18::{n}"))],
                external_ips: Vec::new(),
                annotated: None,
                leaving: false,
                pod_cidrs: vec![
                    format!("10.244.{n}.0/24").parse().unwrap(),
                    format!("fd00:10:244:{n}::/64").parse().unwrap(),
                ],
            });
        }
        cluster
    }

    /// Adds a pod of node n1 or n2 whose addresses end in a number; on n1 it is attached.
    pub(crate) fn pod(mut self, name: &str, node: u8, number: u16, pod_labels: &str) -> Self {
        let ips = vec![ip(&format!("10.244.{node}.{number}")), ip(&format!("fd00:10:244:{node}::{number:x}"))];
        if node == 1 {
            self.local.push(LocalPod {
                foreign: None,
                slot: number,
                key: key(name),
                uid: String::new(),
                ips: ips.clone(),
                pod_mac: [2, 0, 0, 0, 0, number as u8],
                host_mac: [2, 0, 0, 0, 1, number as u8],
            });
        }
        self.pods.push(Pod {
            key: key(name),
            uid: String::new(),
            created: None,
            static_uid: None,
            bandwidth: fairlead_objects::Bandwidth::default(),
            labels: labels(pod_labels),
            node_name: Some(format!("n{node}")),
            ips,
            host_network: false,
            phase: Phase::Running,
            terminating: false,
            container_ports: Vec::new(),
        });
        self
    }

    /// The cluster of the upstream suites: pods a, b and c in each of x, y and z, each with a label `pod`, all here.
    pub(crate) fn grid() -> Self {
        let mut cluster = Self::new();
        for (n, namespace) in ["x", "y", "z"].into_iter().enumerate() {
            for (p, pod) in ["a", "b", "c"].into_iter().enumerate() {
                let number = (n * 3 + p + 10) as u16;
                cluster = cluster.pod(&format!("{namespace}/{pod}"), 1, number, &format!("pod={pod}"));
            }
        }
        cluster
    }

    /// Adds a policy.
    pub(crate) fn policy(
        mut self,
        name: &str,
        selector: &str,
        ingress: Option<&[Rule]>,
        egress: Option<&[Rule]>,
    ) -> Self {
        self.policies.push(NetworkPolicy {
            key: key(name),
            mode: Mode::Enforce,
            pod_selector: select(selector),
            ingress: ingress.map(<[_]>::to_vec),
            egress: egress.map(<[_]>::to_vec),
        });
        self
    }

    /// Adds a policy of the cluster.
    pub(crate) fn cluster_policy(mut self, policy: ClusterNetworkPolicy) -> Self {
        self.cluster_policies.push(policy);
        self
    }

    /// Changes a pod.
    pub(crate) fn with(mut self, name: &str, change: impl Fn(&mut Pod)) -> Self {
        self.pods.iter_mut().filter(|pod| pod.key == key(name)).for_each(change);
        self
    }

    /// The same without policies in audit mode.
    pub(crate) fn in_force(&self) -> Self {
        let mut cluster = self.clone();
        cluster.policies.retain(|policy| policy.mode == Mode::Enforce);
        cluster.cluster_policies.retain(|policy| policy.mode == Mode::Enforce);
        cluster
    }

    /// The same where rules with names match nothing by them.
    fn without_names(mut self) -> Self {
        let rules = self.cluster_policies.iter_mut().flat_map(|policy| &mut policy.egress);
        for peer in rules.filter_map(|rule| rule.matches.as_mut()).flat_map(|rule| &mut rule.peers) {
            if matches!(peer, Peer::DomainNames(_)) {
                *peer = Peer::Nothing;
            }
        }
        self
    }

    /// Tells a model that knows another cluster what is so here.
    pub(crate) fn tell(&self, before: &Self, model: &mut Model) {
        for slot in before.local.iter().map(|local| local.slot) {
            if !self.local.iter().any(|local| local.slot == slot) {
                model.detach(slot);
            }
        }
        let now: BTreeSet<_> = self.objects().map(|object| (object.kind(), object.key())).collect();
        for gone in before.objects().map(|object| (object.kind(), object.key())).filter(|key| !now.contains(key)) {
            model.take(Event::Deleted(gone.0, gone.1));
        }
        self.objects().for_each(|object| model.take(Event::Applied(object)));
        self.local.iter().for_each(|local| model.attach(local.clone()));
        model.names_mut().clone_from(&self.names);
    }

    fn objects(&self) -> impl Iterator<Item = Object> {
        let nodes = self.nodes.iter().cloned().map(Object::Node);
        let namespaces = self.namespaces.iter().cloned().map(Object::Namespace);
        let policies = self.policies.iter().cloned().map(Object::NetworkPolicy);
        let of_cluster = self.cluster_policies.iter().cloned().map(Object::ClusterNetworkPolicy);
        nodes.chain(namespaces).chain(policies).chain(of_cluster).chain(self.pods.iter().cloned().map(Object::Pod))
    }

    pub(crate) fn world(&self) -> World<'_> {
        World {
            node: "n1",
            network: Network { ifindex: 2, ..Network::default() },
            namespaces: self.namespaces.iter().collect(),
            nodes: self.nodes.iter().collect(),
            pods: self.pods.iter().collect(),
            policies: self.policies.iter().collect(),
            cluster_policies: self.cluster_policies.iter().collect(),
            local: self.local.iter().collect(),
            pod_ranges: &[],
            closed: &[],
            tunnel_port: None,
            own_sources: self.own_sources.clone(),
            senders: Default::default(),
            parts: self.parts,
            names: Some(&self.names),
            inside: INSIDE.iter().map(|text| ip(text)).collect(),
        }
    }

    /// The tables of a node that starts with nothing.
    pub(crate) fn tables(&self) -> State {
        let mut state = State::default();
        advance(&mut state, self);
        state
    }

    /// The first address of a pod, or the second.
    pub(crate) fn ip_of(&self, name: &str, family: usize) -> IpAddr {
        self.pods.iter().find(|pod| pod.key == key(name)).unwrap().ips[family]
    }
}

/// Plans.
pub(crate) fn plan(state: &mut State, cluster: &Cluster) -> Plan {
    let world = cluster.world();
    state.plan(&Draft::new(&world)).unwrap()
}

/// Plans and applies.
pub(crate) fn advance(state: &mut State, cluster: &Cluster) {
    for op in plan(state, cluster).ops {
        state.applied(&op);
    }
}

/// What tables answer: whether the flow may pass, and the bit and set that say so.
pub(crate) fn ask(content: &Content, slot: u16, direction: Direction, flow: Flow) -> (bool, u32, u16) {
    let word = peer::PodWord(content.peer.pods.get(&slot).map_or(0, |pod| pod.word));
    let set = if direction == Direction::Ingress { word.ingress() } else { word.egress() };
    let class = peer::lookup(&content.peer, Addr::from(flow.peer)).class;
    let own = content.peer.pods.get(&slot).is_some_and(|pod| [pod.v4, pod.v6].contains(&Addr::from(flow.peer)));
    let decision = decide(&content.policy, set, class, flow.proto, WirePort::new(flow.port), own, &mut 0);
    (decision.allow(), set, decision.bit)
}

/// What tables answer about a flow that is known, when it is asked about again.
pub(crate) fn ask_again(content: &Content, slot: u16, flow: Flow) -> bool {
    let set = peer::PodWord(content.peer.pods.get(&slot).map_or(0, |pod| pod.word)).egress();
    let class = peer::lookup(&content.peer, Addr::from(flow.peer)).known_class();
    let own = content.peer.pods.get(&slot).is_some_and(|pod| [pod.v4, pod.v6].contains(&Addr::from(flow.peer)));
    decide(&content.policy, set, class, flow.proto, WirePort::new(flow.port), own, &mut 0).allow()
}

/// What the model answers, with the rule that decides.
pub(crate) fn model(cluster: &Cluster, local: &LocalPod, direction: Direction, flow: Flow) -> (bool, Option<RuleRef>) {
    let world = cluster.world();
    let Some(pod) = world.object_of(local).filter(|pod| !world.is_in_unknown_namespace(pod)) else {
        return (false, None);
    };
    let judgement = judge(&world, pod, direction, flow);
    (judgement.allow(), judgement.decided_by().cloned())
}

/// Every judgement of this node's pods that tells something: other pods, nodes, outsiders, near the prefixes in use.
pub(crate) fn flows(cluster: &Cluster, ports: &[(u8, u16)]) -> Vec<(LocalPod, Direction, Flow)> {
    let mut peers: BTreeSet<IpAddr> = cluster.pods.iter().flat_map(|pod| pod.ips.clone()).collect();
    peers.extend(cluster.local.iter().flat_map(|local| local.ips.clone()));
    peers.extend(cluster.nodes.iter().flat_map(|node| node.internal_ips.clone()));
    peers.extend(EXTERNAL.iter().map(|text| ip(text)));
    let mut flows = Vec::new();
    for local in &cluster.local {
        for direction in [Direction::Ingress, Direction::Egress] {
            for peer in &peers {
                for (proto, port) in ports {
                    flows.push((local.clone(), direction, Flow { peer: *peer, proto: *proto, port: *port }));
                }
            }
        }
    }
    flows
}

const EXTERNAL: &[&str] = &[
    "192.0.2.1",
    "10.244.1.200",
    "10.244.2.200",
    "10.0.0.1",
    "2001:db8::1",
    "fd00:10:244:2::200",
    "::1",
    INSIDE[0],
    // 10.244.2.12 and the address above through NAT64, and one that is nobody's.
    "64:ff9b::af4:20c",
    "64:ff9b::cb00:7107",
    "64:ff9b::c000:201",
];

/// What names don't open beside pods and nodes.
const INSIDE: [&str; 1] = ["203.0.113.7"];

/// Protocols and ports where generated rules differ.
pub(crate) const PORTS: &[(u8, u16)] = &[
    (6, 80),
    (6, 81),
    (6, 53),
    (6, 100),
    (6, 8080),
    (6, 0),
    (6, 65_535),
    (17, 53),
    (17, 80),
    (17, 443),
    (132, 80),
    (1, 0),
    (58, 80),
];

const KEYS: [&str; 3] = ["k0", "k1", "k2"];
const VALUES: [&str; 3] = ["v0", "v1", "v2"];
const NAMES: [&str; 2] = ["web", "dns"];

pub(crate) fn any_labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map(0..3_usize, 0..3_usize, 0..3)
        .prop_map(|map| map.into_iter().map(|(k, v)| (KEYS[k].to_owned(), VALUES[v].to_owned())).collect())
}

fn any_requirement() -> impl Strategy<Value = Requirement> {
    let operator = prop::sample::select(vec![
        Operator::In,
        Operator::In,
        Operator::NotIn,
        Operator::Exists,
        Operator::DoesNotExist,
    ]);
    (0..3_usize, operator, prop::collection::btree_set(0..3_usize, 1..3)).prop_map(|(k, operator, values)| {
        Requirement {
            key: KEYS[k].to_owned(),
            operator,
            values: match operator {
                Operator::In | Operator::NotIn => values.into_iter().map(|v| VALUES[v].to_owned()).collect(),
                _ => BTreeSet::new(),
            },
        }
    })
}

pub(crate) fn any_selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        8 => prop::collection::btree_set(any_requirement(), 0..3).prop_map(Selector::All),
        1 => Just(Selector::Invalid),
    ]
}

fn any_peer() -> impl Strategy<Value = Peer> {
    const V4: [(&str, u8); 4] = [("10.244.1.10", 32), ("10.244.2.0", 24), ("10.0.0.0", 8), ("0.0.0.0", 0)];
    const V6: [(&str, u8); 4] = [("fd00:10:244:1::a", 128), ("fd00:10:244:2::", 64), ("fd00::", 8), ("::", 0)];
    let network = |(text, len): (&str, u8)| format!("{text}/{len}").parse().unwrap();
    prop_oneof![
        6 => (prop::option::of(any_selector()), any_selector())
            .prop_map(|(namespaces, pods)| Peer::Pods { namespaces, pods }),
        3 => (any::<bool>(), 0..4_usize, prop::collection::btree_set(0..4_usize, 0..2)).prop_map(
            move |(six, index, except)| {
                let list = if six { V6 } else { V4 };
                let except = except.into_iter().filter(|e| *e < index).map(|e| network(list[e])).collect();
                Peer::IpBlock { cidr: network(list[index]), except }
            }
        ),
        1 => Just(Peer::Nothing),
    ]
}

fn any_protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(vec![Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}

fn any_port() -> impl Strategy<Value = PolicyPort> {
    const EDGES: [u16; 9] = [1, 53, 79, 80, 81, 85, 100, 8080, 65_535];
    let port = prop_oneof![
        4 => prop::sample::select(EDGES.to_vec()).prop_map(|port| PortMatch::Range(port, port)),
        2 => (0..9_usize, 0..9_usize).prop_map(|(a, b)| PortMatch::Range(EDGES[a.min(b)], EDGES[a.max(b)])),
        2 => Just(PortMatch::Any),
        3 => (0..2_usize).prop_map(|name| PortMatch::Named(NAMES[name].to_owned())),
        1 => Just(PortMatch::Nothing),
    ];
    (any_protocol(), port).prop_map(|(protocol, port)| PolicyPort { protocol, port })
}

fn any_rules() -> impl Strategy<Value = Option<Vec<Rule>>> {
    let rule = (prop::collection::vec(any_peer(), 0..3), prop::collection::vec(any_port(), 0..3))
        .prop_map(|(peers, ports)| Rule { peers, ports });
    prop::option::weighted(0.7, prop::collection::vec(rule, 0..4))
}

/// Names that pods are told, and what rules have of them.
pub(crate) const TOLD: [&str; 3] = ["a.example.org", "b.example.org", "x.b.example.org"];
const PATTERNS: [&str; 3] = ["a.example.org", "*.b.example.org", "*.example.org"];

fn any_cluster_rules() -> impl Strategy<Value = Vec<ClusterRule>> {
    let names = prop::collection::btree_set(0..3_usize, 1..3)
        .prop_map(|names| named_by(&names.into_iter().map(|n| PATTERNS[n]).collect::<Vec<_>>()));
    let peer = prop_oneof![6 => any_peer(), 1 => any_selector().prop_map(Peer::Nodes), 2 => names];
    // Peers of no namespace of their own.
    let peer = peer.prop_map(|peer| match peer {
        Peer::Pods { namespaces: None, pods } => Peer::Pods { namespaces: Some(Selector::everything()), pods },
        other => other,
    });
    let action = prop::sample::select(vec![Action::Accept, Action::Deny, Action::Pass]);
    let matches = (prop::collection::vec(peer, 0..3), prop::collection::vec(any_port(), 0..3))
        .prop_map(|(peers, ports)| Rule { peers, ports });
    let rule = (action, prop::option::weighted(0.95, matches)).prop_map(|(action, matches)| ClusterRule {
        name: String::new(),
        action,
        matches,
    });
    prop::collection::vec(rule, 0..4)
}

fn any_cluster_policy() -> impl Strategy<Value = ClusterNetworkPolicy> {
    let subject = (any_selector(), any_selector()).prop_map(|(namespaces, pods)| Subject { namespaces, pods });
    let tier = prop::sample::select(vec![Tier::Admin, Tier::Admin, Tier::Baseline]);
    (0..100_u8, tier, 0..4_u16, subject, any_cluster_rules(), any_cluster_rules()).prop_map(
        |(name, tier, priority, subject, mut ingress, mut egress)| {
            // Names are for egress, and to accept.
            let others = egress.iter_mut().filter(|rule| rule.action != Action::Accept);
            for rule in ingress.iter_mut().chain(others).filter_map(|rule| rule.matches.as_mut()) {
                rule.peers.retain(|peer| !matches!(peer, Peer::DomainNames(_)));
            }
            ClusterNetworkPolicy {
                key: ObjectKey::cluster(format!("c{name}")),
                mode: Mode::Enforce,
                tier,
                priority: Some(priority),
                subject,
                ingress,
                egress,
            }
        },
    )
}

fn any_policy() -> impl Strategy<Value = NetworkPolicy> {
    (0..3_usize, 0..100_u8, any_selector(), any_rules(), any_rules()).prop_map(
        |(namespace, name, pod_selector, ingress, egress)| NetworkPolicy {
            key: ObjectKey::new(["x", "y", "z"][namespace], format!("p{name}")),
            mode: Mode::Enforce,
            pod_selector,
            ingress,
            egress,
        },
    )
}

/// A pod without a name: namespace, node, labels, ports, and how it is.
fn any_pod() -> impl Strategy<Value = (usize, u8, Labels, Vec<ContainerPort>, u8)> {
    let port = (0..2_usize, prop::sample::select(vec![80, 81, 53, 8080]), any_protocol())
        .prop_map(|(name, port, protocol)| declared(NAMES[name], port, protocol));
    (0..3_usize, 1..=2_u8, any_labels(), prop::collection::vec(port, 0..3), 0..12_u8)
}

/// Puts a pod into a place of the cluster: its name and addresses are the place's.
fn place(cluster: &mut Cluster, place: u16, pod: (usize, u8, Labels, Vec<ContainerPort>, u8)) {
    let (namespace, node, labels, container_ports, state) = pod;
    let name = format!("{}/pod{place}", ["x", "y", "z"][namespace]);
    let number = 10 + place;
    cluster.pods.retain(|pod| !pod.key.name.ends_with(&format!("pod{place}")));
    cluster.local.retain(|local| local.slot != number);
    *cluster = std::mem::take(cluster).pod(&name, node, number, "").with(&name, |pod| {
        pod.labels.clone_from(&labels);
        pod.container_ports.clone_from(&container_ports);
        pod.terminating = state == 1;
        pod.phase = if state == 2 && node == 2 { Phase::Succeeded } else { Phase::Running };
        pod.host_network = state == 3 && node == 2;
    });
    if state == 4 {
        // Attached, and its object is not known yet.
        cluster.pods.retain(|pod| pod.key != key(&name));
    }
}

/// Any small cluster.
pub(crate) fn any_cluster() -> impl Strategy<Value = Cluster> {
    let pods = prop::collection::vec(any_pod(), 2..9);
    let namespaces = prop::collection::vec(any_labels(), 3);
    let of_cluster = prop::collection::vec(any_cluster_policy(), 0..5);
    let policies = (prop::collection::vec(any_policy(), 0..8), prop_oneof![1 => Just(Vec::new()), 3 => of_cluster]);
    let told = prop::collection::vec(any_told(), 0..6);
    (pods, namespaces, policies, told).prop_map(|(pods, namespaces, (policies, cluster_policies), told)| {
        let mut cluster = Cluster { policies, cluster_policies, ..Cluster::new() };
        unique(&mut cluster);
        for (namespace, labels) in cluster.namespaces.iter_mut().zip(namespaces) {
            namespace.labels.extend(labels);
        }
        for (n, pod) in (0..).zip(pods) {
            place(&mut cluster, n, pod);
        }
        for told in told {
            tell(&mut cluster, &told);
        }
        cluster
    })
}

fn unique(cluster: &mut Cluster) {
    let mut seen = BTreeSet::new();
    cluster.policies.retain(|policy| seen.insert(policy.key.clone()));
    cluster.cluster_policies.retain(|policy| seen.insert(policy.key.clone()));
}

/// Something that happens to a cluster.
#[derive(Debug, Clone)]
enum Edit {
    Pod(u16, (usize, u8, Labels, Vec<ContainerPort>, u8)),
    Relabel(usize, Labels),
    Delete(usize),
    Namespace(usize, Labels),
    /// A namespace is not known, as before its watch has told of it.
    DropNamespace(usize),
    Policy(NetworkPolicy),
    Rules(usize, Option<Vec<Rule>>, Option<Vec<Rule>>),
    DeletePolicy(usize),
    ClusterPolicy(ClusterNetworkPolicy),
    DeleteClusterPolicy(usize),
    /// A policy is in audit mode, or is no more.
    Mode(usize),
    /// The labels of a node.
    RelabelNode(usize, Labels),
    Node(bool),
    /// A pod's status, or the Node n2, names an address of whoever.
    Claim(Option<usize>, IpAddr),
    /// A pod is told of something by DNS.
    Told(Told),
}

/// What becomes of what pods are told.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// A pod, a name and an address.
    Learn(usize, usize, IpAddr),
    /// What ends has ended, but what these pods were told since.
    Expire,
    /// What lingers is in use where a bit says so.
    Keep(u8),
}

pub(crate) fn any_told() -> impl Strategy<Value = Told> {
    prop_oneof![
        6 => (0..10_usize, 0..3_usize, any_claim()).prop_map(|(pod, name, ip)| Told::Learn(pod, name, ip)),
        2 => Just(Told::Expire),
        1 => any::<u8>().prop_map(Told::Keep),
    ]
}

/// Changes what pods are told, and gives the addresses of which something changed, and whether something was added.
pub(crate) fn tell(cluster: &mut Cluster, told: &Told) -> (BTreeSet<IpAddr>, bool) {
    match told {
        Told::Learn(pod, name, ip) => {
            let Some(pod) = cluster.local.get(pod % cluster.local.len().max(1)) else { return Default::default() };
            let answer = Answer { pod: &pod.key, uid: &pod.uid, name: TOLD[*name], addresses: &[*ip], until: 10 };
            (cluster.names.learn(&answer, 0), true)
        }
        Told::Expire => (cluster.names.expire(10), false),
        Told::Keep(bits) => {
            let is_used = |_: &ObjectKey, ip: IpAddr| {
                let last = match ip {
                    IpAddr::V4(ip) => ip.octets()[3],
                    IpAddr::V6(ip) => ip.octets()[15],
                };
                bits >> (last % 8) & 1 == 1
            };
            (cluster.names.keep(is_used), false)
        }
    }
}

fn any_edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        2 => (0..10_u16, any_pod()).prop_map(|(n, pod)| Edit::Pod(n, pod)),
        3 => (0..10_usize, any_labels()).prop_map(|(n, labels)| Edit::Relabel(n, labels)),
        1 => (0..10_usize).prop_map(Edit::Delete),
        2 => (0..3_usize, any_labels()).prop_map(|(n, labels)| Edit::Namespace(n, labels)),
        1 => (0..3_usize).prop_map(Edit::DropNamespace),
        2 => any_policy().prop_map(Edit::Policy),
        2 => (0..8_usize, any_rules(), any_rules()).prop_map(|(n, i, e)| Edit::Rules(n, i, e)),
        2 => (0..8_usize).prop_map(Edit::DeletePolicy),
        3 => any_cluster_policy().prop_map(Edit::ClusterPolicy),
        2 => (0..5_usize).prop_map(Edit::DeleteClusterPolicy),
        1 => (0..8_usize).prop_map(Edit::Mode),
        1 => (0..2_usize, any_labels()).prop_map(|(n, labels)| Edit::RelabelNode(n, labels)),
        1 => any::<bool>().prop_map(Edit::Node),
        1 => (prop::option::of(0..10_usize), any_claim()).prop_map(|(who, ip)| Edit::Claim(who, ip)),
        3 => any_told().prop_map(Edit::Told),
    ]
}

fn any_claim() -> impl Strategy<Value = IpAddr> {
    let pods = (1..3_u8, 10..20_u16).prop_map(|(node, number)| ip(&format!("10.244.{node}.{number}")));
    prop_oneof![2 => pods, 1 => prop::sample::select(EXTERNAL.to_vec()).prop_map(ip)]
}

fn edit(cluster: &mut Cluster, edit: Edit) {
    match edit {
        Edit::Told(told) => drop(tell(cluster, &told)),
        Edit::Claim(Some(n), ip) => {
            let count = cluster.pods.len().max(1);
            if let Some(pod) = cluster.pods.get_mut(n % count) {
                pod.ips = vec![ip];
            }
        }
        Edit::Claim(None, ip) => {
            if let Some(node) = cluster.nodes.get_mut(1) {
                node.external_ips = vec![ip];
            }
        }
        Edit::Pod(n, pod) => place(cluster, n, pod),
        Edit::Relabel(n, labels) => {
            let count = cluster.pods.len().max(1);
            if let Some(pod) = cluster.pods.get_mut(n % count) {
                pod.labels = labels;
            }
        }
        Edit::Delete(n) => {
            if n < cluster.pods.len() {
                let gone = cluster.pods.remove(n);
                cluster.local.retain(|local| local.key != gone.key);
            }
        }
        Edit::Namespace(n, labels) => {
            let mut namespace = Cluster::new().namespaces.swap_remove(n);
            namespace.labels.retain(|key, _| !KEYS.contains(&key.as_str()));
            namespace.labels.extend(labels);
            cluster.namespaces.retain(|other| other.name != namespace.name);
            cluster.namespaces.push(namespace);
        }
        Edit::DropNamespace(n) => {
            let name = &Cluster::new().namespaces[n].name;
            cluster.namespaces.retain(|namespace| namespace.name != *name);
        }
        Edit::Policy(policy) => {
            cluster.policies.insert(0, policy);
            unique(cluster);
        }
        Edit::Rules(n, ingress, egress) => {
            if let Some(policy) = cluster.policies.get_mut(n) {
                (policy.ingress, policy.egress) = (ingress, egress);
            }
        }
        Edit::DeletePolicy(n) => {
            if n < cluster.policies.len() {
                cluster.policies.remove(n);
            }
        }
        Edit::ClusterPolicy(policy) => {
            cluster.cluster_policies.insert(0, policy);
            unique(cluster);
        }
        Edit::DeleteClusterPolicy(n) => {
            if n < cluster.cluster_policies.len() {
                cluster.cluster_policies.remove(n);
            }
        }
        Edit::Mode(n) => {
            if let Some(policy) = cluster.policies.get_mut(n) {
                policy.mode = if policy.mode == Mode::Audit { Mode::Enforce } else { Mode::Audit };
            }
        }
        Edit::RelabelNode(n, labels) => {
            if let Some(node) = cluster.nodes.get_mut(n) {
                node.labels = labels;
            }
        }
        Edit::Node(there) => {
            cluster.nodes.truncate(1);
            if there {
                cluster.nodes = Cluster::new().nodes;
            }
        }
    }
}

/// Something that happens to pods elsewhere, or to policies and namespaces.
fn any_edit_elsewhere() -> impl Strategy<Value = Edit> {
    let pod = || {
        (20..26_u16, any_pod())
            .prop_map(|(n, (namespace, _, labels, ports, state))| (n, (namespace, 2, labels, ports, state)))
    };
    let claim = (2..3_u8, 30..36_u16).prop_map(|(node, number)| ip(&format!("10.244.{node}.{number}")));
    prop_oneof![
        5 => pod().prop_map(|(n, pod)| Edit::Pod(n, pod)),
        3 => (0..10_usize, any_labels()).prop_map(|(n, labels)| Edit::Relabel(n, labels)),
        3 => (0..10_usize).prop_map(Edit::Delete),
        2 => (0..10_usize, claim).prop_map(|(who, ip)| Edit::Claim(Some(who), ip)),
        1 => (0..10_usize, any_claim()).prop_map(|(who, ip)| Edit::Claim(Some(who), ip)),
        1 => (0..3_usize, any_labels()).prop_map(|(n, labels)| Edit::Namespace(n, labels)),
        1 => any_policy().prop_map(Edit::Policy),
        1 => (0..8_usize).prop_map(Edit::Mode),
    ]
}

/// A cluster of which some pods are here, and what becomes of it, mostly by what happens elsewhere.
pub(crate) fn any_history_elsewhere(steps: usize) -> impl Strategy<Value = Vec<Cluster>> {
    history_of(any_edit_elsewhere().prop_map(|edit| (true, edit)), steps)
}

/// The same, mostly by pods of this node that come and go.
pub(crate) fn any_history_here(steps: usize) -> impl Strategy<Value = Vec<Cluster>> {
    let pod = (10..20_u16, any_pod())
        .prop_map(|(n, (namespace, _, labels, ports, state))| Edit::Pod(n, (namespace, 1, labels, ports, state)));
    let here = prop_oneof![4 => pod, 1 => (0..10_usize).prop_map(Edit::Delete)].prop_map(|edit| (false, edit));
    history_of(prop_oneof![4 => here, 1 => any_edit_elsewhere().prop_map(|edit| (true, edit))], steps)
}

/// What becomes of a cluster mostly by these, each with whether it is to befall pods elsewhere alone. Most have no rules with names.
fn history_of(edits: impl Strategy<Value = (bool, Edit)>, steps: usize) -> impl Strategy<Value = Vec<Cluster>> {
    let edits = prop_oneof![
        6 => prop::collection::vec(edits, 1..4),
        1 => prop::collection::vec(any_edit().prop_map(|edit| (false, edit)), 1..3),
    ];
    let has_names = prop::bool::weighted(0.2);
    (any_cluster(), prop::collection::vec(edits, steps), has_names).prop_map(|(first, steps, has_names)| {
        let named = |cluster: Cluster| if has_names { cluster } else { cluster.without_names() };
        let mut history = vec![named(first)];
        for edits in steps {
            let mut next = history.last().unwrap().clone();
            for (elsewhere, change) in edits {
                // Those that are attached come last, so that others are chosen.
                let local: BTreeSet<_> = next.local.iter().map(|local| local.key.clone()).collect();
                next.pods.sort_by_key(|pod| local.contains(&pod.key));
                let others = next.pods.iter().filter(|pod| !local.contains(&pod.key)).count();
                let change = match change {
                    Edit::Relabel(n, labels) if elsewhere && others > 0 => Edit::Relabel(n % others, labels),
                    Edit::Delete(n) if elsewhere && others > 0 => Edit::Delete(n % others),
                    Edit::Claim(Some(n), ip) if elsewhere && others > 0 => Edit::Claim(Some(n % others), ip),
                    Edit::Relabel(..) | Edit::Delete(_) | Edit::Claim(..) if elsewhere => continue,
                    change => change,
                };
                edit(&mut next, change);
            }
            history.push(named(next));
        }
        history
    })
}

/// Any small cluster, and what becomes of it by a few changes at once, so many times.
pub(crate) fn any_history(steps: usize) -> impl Strategy<Value = Vec<Cluster>> {
    (any_cluster(), prop::collection::vec(prop::collection::vec(any_edit(), 1..6), steps)).prop_map(|(first, steps)| {
        let mut history = vec![first];
        for edits in steps {
            let mut next = history.last().unwrap().clone();
            edits.into_iter().for_each(|e| edit(&mut next, e));
            history.push(next);
        }
        history
    })
}
