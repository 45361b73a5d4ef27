//! Small clusters, what they should answer by the letter of the rows, and what the tables answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fairlead_datapath::Addr;
use fairlead_datapath::service::{From, FrontendKey, HostTables, Selection, Tables, select};
use fairlead_objects::{
    AddressType, Endpoint, EndpointPort, EndpointSlice, ObjectKey, Protocol, Service, ServicePort, ServiceType,
    TrafficPolicy,
};
use proptest::prelude::*;

use crate::compile::services::{Place, ServiceContent, compile_service};
use crate::plan::Op;

const HERE: &str = "here";

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
}

/// What a frontend answers to all random numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answers {
    NotAService,
    Forward(BTreeSet<(Addr, u16)>),
    Reject,
    Drop,
    Raced,
}

impl World {
    /// One TCP service with two addresses and three endpoints.
    pub(super) fn shop() -> Self {
        let endpoints = (1..=3).map(|host| endpoint(host, true, true, false, true)).collect();
        let addresses = vec!["10.96.0.1".parse().unwrap(), "10.96.0.2".parse().unwrap()];
        let cart = Small { name: "cart".into(), addresses, udp: false, local: false, affinity: None, endpoints };
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
    pub(super) fn expected(&self, key: &FrontendKey) -> Answers {
        let mut owners: Vec<_> = self.services.iter().filter(|s| s.keys().contains(key)).collect();
        owners.sort_by_key(|s| s.name.clone());
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
        let here = |e: &&&Endpoint| !service.local || e.node_name.as_deref() == Some(HERE);
        let ready: Vec<_> = endpoints.values().filter(|e| e.ready).collect();
        let ending: Vec<_> = endpoints.values().filter(|e| !e.ready && e.serving && e.terminating).collect();
        let mut used: Vec<_> = ready.iter().copied().filter(here).collect();
        if used.is_empty() {
            used = ending.iter().copied().filter(here).collect();
        }
        if used.is_empty() {
            return if ready.is_empty() && ending.is_empty() { Answers::Reject } else { Answers::Drop };
        }
        Answers::Forward(used.iter().map(|e| (e.addresses[0].into(), 8080u16.to_be())).collect())
    }

    /// Asserts that the tables answer as expected, for every frontend and for none beside them.
    pub(super) fn check(&self, tables: &HostTables) {
        let keys: BTreeSet<_> = self.keys().into_iter().collect();
        assert_eq!(tables.frontends.keys().copied().collect::<BTreeSet<_>>(), keys);
        for key in &keys {
            for from in [From::Inside, From::Outside] {
                assert_eq!(answers(tables, key, from), self.expected(key), "{key:?} of {self:?}");
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
        self.addresses.iter().map(|ip| FrontendKey::new((*ip).into(), 80u16.to_be(), number)).collect()
    }

    fn objects(&self) -> (Service, EndpointSlice) {
        let protocol = self.protocol();
        let service = Service {
            key: ObjectKey::new("shop", &self.name),
            service_type: ServiceType::ClusterIp,
            cluster_ips: self.addresses.clone(),
            headless: false,
            external_name: None,
            ports: vec![ServicePort { name: String::new(), protocol, port: 80, node_port: None }],
            affinity_seconds: self.affinity,
            internal_traffic_policy: if self.local { TrafficPolicy::Local } else { TrafficPolicy::Cluster },
            external_traffic_policy: TrafficPolicy::Cluster,
            external_ips: vec![],
            load_balancer: vec![],
            source_ranges: vec![],
            health_check_node_port: None,
            proxy_name: None,
        };
        let slice = EndpointSlice {
            key: ObjectKey::new("shop", format!("{}-1", self.name)),
            service_name: Some(self.name.clone()),
            address_type: AddressType::Ipv4,
            ports: vec![EndpointPort { name: Some(String::new()), protocol, port: Some(8080) }],
            endpoints: self.endpoints.clone(),
        };
        (service, slice)
    }
}

fn endpoint(host: u8, ready: bool, serving: bool, terminating: bool, local: bool) -> Endpoint {
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

/// Up to four services that share few names, addresses and endpoints, so that worlds overlap.
pub(super) fn any_world() -> impl Strategy<Value = World> {
    let endpoint = (1u8..7, prop::bool::weighted(0.7), any::<[bool; 3]>())
        .prop_map(|(host, ready, [serving, ending, local])| endpoint(host, ready, serving, ending, local));
    let service = (
        proptest::sample::subsequence(vec![1u8, 2, 3, 4, 5], 1..=3),
        any::<[bool; 2]>(),
        prop::option::of(1u32..3),
        proptest::collection::vec(endpoint, 0..6),
    );
    let services = proptest::collection::btree_map("[a-d]", service, 0..4);
    services.prop_map(|services| {
        let small = services.into_iter().map(|(name, (hosts, [udp, local], affinity, endpoints))| {
            let addresses = hosts.into_iter().map(|host| IpAddr::from([10, 96, 0, host])).collect();
            Small { name, addresses, udp, local, affinity, endpoints }
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
        Op::UdpFrontends { generation } => tables.state.udp_generation = *generation,
        Op::Barrier => {}
        other => panic!("{other:?} is not about services"),
    }
}

/// What a frontend answers to all random numbers: one for each slot.
pub(super) fn answers(tables: &impl Tables, key: &FrontendKey, from: From) -> Answers {
    let count = tables.frontend(key).map_or(1, |frontend| {
        let scope = if from == From::Inside { frontend.internal } else { frontend.external };
        scope.count().max(1)
    });
    let mut chosen = BTreeSet::new();
    for step in 0..count {
        let random = (u64::from(step) << 32).div_ceil(u64::from(count)) as u32;
        match select(tables, key.addr, key.port, key.proto, from, random) {
            Selection::NotAService => return Answers::NotAService,
            Selection::Reject => return Answers::Reject,
            Selection::Drop => return Answers::Drop,
            Selection::Raced => return Answers::Raced,
            Selection::Forward(backend) => drop(chosen.insert((backend.addr, backend.port))),
        }
    }
    Answers::Forward(chosen)
}
