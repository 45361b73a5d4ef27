//! Small clusters, what they should answer by the letter of the rows, and what the tables answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fairlead_datapath::service::{
    From, FrontendFlags, FrontendKey, HostTables, Selection, Tables, admits, select, service_port,
};
use fairlead_datapath::{Addr, WirePort};
use fairlead_objects::{
    AddressType, Endpoint, EndpointPort, EndpointSlice, LoadBalancerIngress, ObjectKey, Protocol, Service, ServicePort,
    ServiceType, TrafficPolicy,
};
use ipnetwork::IpNetwork;
use proptest::prelude::*;

use crate::compile::services::{Place, ServiceContent, compile_service};
use crate::plan::Op;

pub(super) const HERE: &str = "here";

/// The services of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct World {
    pub(super) services: Vec<Small>,
}

/// A service with one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Small {
    pub(super) name: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) udp: bool,
    pub(super) local: bool,
    pub(super) affinity: Option<u32>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) outside: Outside,
    /// Seconds since 1970, where it says.
    pub(super) created: Option<i64>,
}

/// What a service is for clients outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outside {
    pub(super) node_port: Option<u16>,
    pub(super) balancers: Vec<IpAddr>,
    pub(super) local: bool,
    pub(super) ranges: Vec<&'static str>,
}

/// A client: where it is, and its address.
pub(super) type Client = (From, Addr);

/// Clients of all sorts: which source ranges hold them differs.
pub(super) fn clients() -> [Client; 4] {
    let client = |from, text: &str| (from, text.parse::<IpAddr>().unwrap().into());
    [
        client(From::Inside, "10.0.9.9"),
        client(From::Outside, "192.0.2.1"),
        client(From::Outside, "192.0.2.200"),
        client(From::Outside, "203.0.113.1"),
    ]
}

/// What a frontend answers to all random numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answers {
    NotAService,
    /// Backends, and whether the client keeps its address on its way to one of this node.
    Forward(BTreeSet<(Addr, WirePort)>, bool),
    Denied,
    Reject,
    Drop,
    Raced,
}

impl World {
    /// One TCP service with two addresses and three endpoints.
    pub(super) fn shop() -> Self {
        let endpoints = (1..=3).map(|host| endpoint(host, true, true, false, true)).collect();
        let addresses = vec!["10.96.0.1".parse().unwrap(), "10.96.0.2".parse().unwrap()];
        let cart = Small {
            name: "cart".into(),
            addresses,
            udp: false,
            local: false,
            affinity: None,
            endpoints,
            outside: Outside::default(),
            created: None,
        };
        Self { services: vec![cart] }
    }

    pub(super) fn content(&self) -> BTreeMap<ObjectKey, ServiceContent> {
        let place = Place { node: HERE.into(), zone: None };
        let services = self.services.iter().map(Small::objects);
        services.map(|(service, slice)| (service.key.clone(), compile_service(&service, [&slice], &place))).collect()
    }

    pub(super) fn keys(&self) -> Vec<FrontendKey> {
        self.services.iter().flat_map(Small::keys).collect()
    }

    pub(super) fn is_contested(&self) -> bool {
        let keys = self.keys();
        keys.iter().collect::<BTreeSet<_>>().len() < keys.len()
    }

    /// What the rows say, without any of the code that is tested.
    pub(super) fn expected(&self, key: &FrontendKey, (from, client): Client) -> Answers {
        let mut owners: Vec<_> = self.services.iter().filter(|s| s.keys().contains(key)).collect();
        // By kind, then by age, then by name.
        let of_cluster = |s: &Small| s.addresses.iter().any(|ip| Addr::from(*ip) == key.addr);
        owners.sort_by_key(|s| (!of_cluster(s), s.created.unwrap_or(i64::MAX), s.name.clone()));
        let Some(service) = owners.first() else { return Answers::NotAService };
        let family = |e: &&Endpoint| e.addresses[0].is_ipv4() == key.addr.is_v4();
        // S21: one entry an address, the local one if there is one, then the one that is more alive.
        let mut endpoints: BTreeMap<IpAddr, &Endpoint> = BTreeMap::new();
        for endpoint in service.endpoints.iter().filter(family) {
            let better = |old: &&Endpoint| rank(endpoint) > rank(old);
            if endpoints.get(&endpoint.addresses[0]).is_none_or(better) {
                endpoints.insert(endpoint.addresses[0], endpoint);
            }
        }
        let of_cluster = service.addresses.iter().any(|ip| Addr::from(*ip) == key.addr);
        let local = match (of_cluster, from) {
            (true, _) => service.local,
            (false, From::Inside) => false,
            (false, From::Outside) => service.outside.local,
        };
        let here = |e: &&&Endpoint| !local || e.node_name.as_deref() == Some(HERE);
        let ready: Vec<_> = endpoints.values().filter(|e| e.ready).collect();
        let ending: Vec<_> = endpoints.values().filter(|e| !e.ready && e.serving && e.terminating).collect();
        let mut used: Vec<_> = ready.iter().copied().filter(here).collect();
        if used.is_empty() {
            used = ending.iter().copied().filter(here).collect();
        }
        if used.is_empty() {
            return if ready.is_empty() && ending.is_empty() { Answers::Reject } else { Answers::Drop };
        }
        let outside = &service.outside;
        let balancer = !of_cluster && outside.balancers.iter().any(|ip| Addr::from(*ip) == key.addr);
        let held = |range: &&str| range.parse::<IpNetwork>().unwrap().contains(IpAddr::from(client));
        if balancer && !outside.ranges.is_empty() && !outside.ranges.iter().any(held) {
            return Answers::Denied;
        }
        let backends = used.iter().map(|e| (e.addresses[0].into(), WirePort::new(8080))).collect();
        Answers::Forward(backends, !of_cluster && outside.local)
    }

    /// Asserts that the tables answer as expected, for every frontend and for none beside them.
    pub(super) fn check(&self, tables: &HostTables) {
        let keys: BTreeSet<_> = self.keys().into_iter().collect();
        assert_eq!(tables.frontends.keys().copied().collect::<BTreeSet<_>>(), keys);
        let known = |key: &FrontendKey| {
            service_port(key.port, key.proto).is_some_and(|(index, bit)| tables.service_ports(index) & bit != 0)
        };
        assert!(keys.iter().all(known));
        for key in &keys {
            for client in clients() {
                let expected = self.expected(key, client);
                assert_eq!(answers(tables, key, client), expected, "{client:?} of {key:?} of {self:?}");
            }
        }
    }
}

fn rank(e: &Endpoint) -> (bool, bool, bool) {
    (e.node_name.as_deref() == Some(HERE), e.ready, e.serving)
}

impl Small {
    fn protocol(&self) -> Protocol {
        if self.udp { Protocol::Udp } else { Protocol::Tcp }
    }

    fn keys(&self) -> Vec<FrontendKey> {
        let number = self.protocol().number();
        let at = |ip: &IpAddr, port: u16| FrontendKey::new((*ip).into(), WirePort::new(port), number);
        let own = self.addresses.iter().chain(&self.outside.balancers).map(|ip| at(ip, 80)).collect::<BTreeSet<_>>();
        own.into_iter().chain(self.outside.node_port.map(|port| at(&IpAddr::from([0, 0, 0, 0]), port))).collect()
    }

    pub(super) fn objects(&self) -> (Service, EndpointSlice) {
        let protocol = self.protocol();
        let service = Service {
            key: ObjectKey::new("shop", &self.name),
            created: self.created.map(|seconds| jiff::Timestamp::from_second(seconds).unwrap()),
            service_type: match &self.outside {
                Outside { balancers, .. } if !balancers.is_empty() => ServiceType::LoadBalancer,
                Outside { node_port: Some(_), .. } => ServiceType::NodePort,
                _ => ServiceType::ClusterIp,
            },
            cluster_ips: self.addresses.clone(),
            headless: false,
            external_name: None,
            ports: vec![ServicePort { name: String::new(), protocol, port: 80, node_port: self.outside.node_port }],
            affinity_seconds: self.affinity,
            internal_traffic_policy: if self.local { TrafficPolicy::Local } else { TrafficPolicy::Cluster },
            external_traffic_policy: if self.outside.local { TrafficPolicy::Local } else { TrafficPolicy::Cluster },
            external_ips: vec![],
            load_balancer: self.outside.balancers.iter().map(|ip| LoadBalancerIngress { ip: *ip, vip: true }).collect(),
            load_balancer_names: vec![],
            source_ranges: self.outside.ranges.iter().map(|text| text.parse().unwrap()).collect(),
            health_check_node_port: None,
            proxy_name: None,
        };
        let slice = EndpointSlice {
            key: ObjectKey::new("shop", format!("{}-1", self.name)),
            service_name: Some(self.name.clone()),
            address_type: AddressType::Ipv4,
            ports: vec![EndpointPort { name: Some(String::new()), protocol, port: Some(8080) }],
            endpoints: self.endpoints.clone(),
            triggered: None,
        };
        (service, slice)
    }
}

pub(super) fn endpoint(host: u8, ready: bool, serving: bool, terminating: bool, local: bool) -> Endpoint {
    Endpoint {
        addresses: vec![IpAddr::from([10, 0, 0, host])],
        ready,
        serving,
        terminating,
        hostname: None,
        node_name: local.then(|| HERE.into()),
        zone: None,
        zone_hints: vec![],
        node_hints: vec![],
        pod: None,
    }
}

/// As [`any_world`], without what is for clients outside: fewer frontends for what looks at every moment of a plan.
pub(super) fn any_world_inside() -> impl Strategy<Value = World> {
    any_world().prop_map(|mut world| {
        world.services.iter_mut().for_each(|service| service.outside = Outside::default());
        world
    })
}

/// Up to four services that share few names, addresses and endpoints, so that worlds overlap.
pub(super) fn any_world() -> impl Strategy<Value = World> {
    let endpoint = (1u8..7, prop::bool::weighted(0.7), any::<[bool; 3]>())
        .prop_map(|(host, ready, [serving, ending, local])| endpoint(host, ready, serving, ending, local));
    let outside = (
        prop::option::of(30_000u16..30_002),
        proptest::sample::subsequence(vec![1u8, 2, 3], 0..=2),
        any::<bool>(),
        proptest::sample::subsequence(vec!["192.0.2.0/24", "192.0.2.0/25", "10.0.0.0/8", "203.0.113.1/32"], 0..=2),
    );
    let outside = outside.prop_map(|(node_port, hosts, local, ranges)| {
        // One is somebody's cluster address, or its own.
        let balancer = |host| if host == 3 { IpAddr::from([10, 96, 0, 1]) } else { IpAddr::from([198, 51, 100, host]) };
        let balancers = hosts.into_iter().map(balancer).collect();
        Outside { node_port, balancers, local, ranges }
    });
    let service = (
        proptest::sample::subsequence(vec![1u8, 2, 3, 4, 5], 1..=3),
        any::<[bool; 2]>(),
        prop::option::of(1u32..3),
        proptest::collection::vec(endpoint, 0..6),
        outside,
        prop::option::of(1i64..3),
    );
    let services = proptest::collection::btree_map("[a-d]", service, 0..4);
    services.prop_map(|services| {
        let small = services.into_iter().map(|(name, (hosts, [udp, local], affinity, endpoints, outside, created))| {
            let addresses = hosts.into_iter().map(|host| IpAddr::from([10, 96, 0, host])).collect();
            Small { name, addresses, udp, local, affinity, endpoints, outside, created }
        });
        World { services: small.collect() }
    })
}

/// The services whose content differs.
pub(super) fn changes(from: &World, to: &World) -> Vec<ObjectKey> {
    let (old, new) = (from.content(), to.content());
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    keys.into_iter().filter(|key| old.get(key) != new.get(key)).cloned().collect()
}

/// Does to tables in memory what the kernel's do.
pub(super) fn apply(tables: &mut HostTables, op: &Op) {
    match op {
        Op::Frontend { key, value: Some(value) } => drop(tables.frontends.insert(*key, *value)),
        Op::Frontend { key, value: None } => drop(tables.frontends.remove(key)),
        Op::Slots { offset, ids } => tables.write_slots(*offset, ids),
        Op::Backend { id, value } => tables.write_backend(*id, *value),
        Op::BackendState { id, state } => tables.write_backend_state(*id, *state),
        Op::ServicePorts { index, bits } => drop(tables.service_ports.insert(*index, *bits)),
        Op::SourceRange { key, present: true } => drop(tables.source_ranges.insert(*key)),
        Op::SourceRange { key, present: false } => drop(tables.source_ranges.remove(key)),
        Op::UdpFrontends { generation } => tables.state.udp_generation = *generation,
        Op::Barrier => {}
        other => panic!("{other:?} is not about services"),
    }
}

/// What a frontend answers a client to all random numbers: one for each slot.
pub(super) fn answers(tables: &impl Tables, key: &FrontendKey, (from, client): Client) -> Answers {
    let count = tables.frontend(key).map_or(1, |frontend| {
        let scope = if from == From::Inside { frontend.internal } else { frontend.external };
        scope.count().max(1)
    });
    let (mut chosen, mut keeps) = (BTreeSet::new(), false);
    for step in 0..count {
        let random = (u64::from(step) << 32).div_ceil(u64::from(count)) as u32;
        match select(tables, key.addr, key.port, key.proto, from, random) {
            Selection::NotAService => return Answers::NotAService,
            Selection::Reject => return Answers::Reject,
            Selection::Drop => return Answers::Drop,
            Selection::Raced => return Answers::Raced,
            Selection::Forward(backend) if !admits(tables, &backend, client) => return Answers::Denied,
            Selection::Forward(backend) => {
                keeps = backend.flags & FrontendFlags::KEEP_SOURCE != 0;
                chosen.insert((backend.addr, backend.port));
            }
        }
    }
    Answers::Forward(chosen, keeps)
}
