//! Which services there are, and what happens to connections to one.

mod list;

use std::net::{IpAddr, SocketAddr};

use fairlead_datapath::Addr;
use fairlead_datapath::catalog::TableId;
use fairlead_datapath::service::{FrontendFlags, FrontendKey, NodeAddress};
use fairlead_objects::{EndpointSlice, ObjectKey, Protocol, Service, TrafficPolicy};
use zerocopy::{FromBytes, IntoBytes};

use super::{Admin, EndpointView, ServiceExplanation, Verdict};
use crate::compile::claims::{self, Party, Refusal};
use crate::compile::services::{
    Answer, BackendAddr, FrontendPolicy, Place, PortContent, PortEndpoint, PortKey, Rank, ServiceContent, endpoints,
};
use crate::model::Model;

pub(super) use list::list;

pub(super) fn place(model: &Model) -> Place {
    Place::new(model.node_name(), model.own_node())
}

/// A port of something that has addresses.
pub(super) struct Content<'a> {
    /// The service, or the hostPorts of a pod.
    pub(super) owner: ObjectKey,
    pub(super) service: Option<&'a Service>,
    pub(super) name: PortKey,
    pub(super) content: PortContent,
}

/// Everything that has addresses: services, and the hostPorts of this node's pods, which are no service's.
pub(super) fn contents<'a>(model: &'a Model, place: &Place) -> Vec<Content<'a>> {
    Contents::new(model, place).ports
}

/// Everything that has addresses, and what is claimed in vain: by services, and by the hostPorts of this node's pods, which
/// are no service's.
#[derive(Default)]
struct Contents<'a> {
    ports: Vec<Content<'a>>,
    refusals: Vec<(Party, Refusal)>,
}

impl<'a> Contents<'a> {
    fn new(model: &'a Model, place: &Place) -> Self {
        let mut contents = Self::default();
        for service in model.services() {
            contents.add(&Party::service(&service.key), Some(service), claims::service(model, service, place));
        }
        for (pod, local) in model.host_port_pods() {
            contents.add(&Party::pod(&pod.key), None, claims::host_ports(model, pod, local));
        }
        contents
    }

    fn add(&mut self, party: &Party, service: Option<&'a Service>, found: (ServiceContent, Vec<Refusal>)) {
        let (content, refusals) = found;
        let ports = content.ports.into_iter();
        self.ports.extend(ports.map(|(name, content)| Content { owner: party.plan_key(), service, name, content }));
        self.refusals.extend(refusals.into_iter().map(|refusal| (party.clone(), refusal)));
    }

    /// What is refused at an address, by protocol.
    fn refused(&self, address: SocketAddr) -> impl Iterator<Item = (Protocol, String)> {
        let here = self.refusals.iter().filter(move |(_, refusal)| refusal.address == address);
        here.map(|(party, refusal)| (refusal.protocol, format!("{party}: {refusal}")))
    }
}

fn address(key: &FrontendKey) -> SocketAddr {
    SocketAddr::new(IpAddr::from(key.addr), key.port.number())
}

/// The frontends that connections to an address meet, as the datapath looks for them: those of the address itself, and
/// those of every address of the node where it is one.
pub(super) fn keys(admin: &Admin, address: SocketAddr) -> Vec<(Addr, Option<u32>)> {
    let own = Addr::from(address.ip());
    let kinds = if own.is_loopback() {
        FrontendFlags::WILDCARDS
    } else {
        let value = admin.tables.map(TableId::NodeAddresses).and_then(|map| map.get(own.as_bytes()));
        let value = value.ok().flatten().and_then(|bytes| NodeAddress::read_from_bytes(&bytes).ok());
        value.map_or(0, |address| address.kinds)
    };
    vec![(own, None), (own.wildcard(), Some(kinds))]
}

pub(super) fn explain(admin: &Admin, address: SocketAddr) -> Result<Vec<ServiceExplanation>, String> {
    let model = admin.shared.model();
    let place = place(&model);
    let contents = Contents::new(&model, &place);
    let mut found: Vec<Asked<'_>> = Vec::new();
    for (level, (addr, kinds)) in keys(admin, address).into_iter().enumerate() {
        for Content { owner, service, name, content } in &contents.ports {
            for (key, policy) in &content.frontends {
                let flags = policy.flags(u32::from(!content.source_ranges.is_empty()));
                let reached = kinds.is_none_or(|kinds| kinds & flags != 0);
                if key.addr == addr && key.port.number() == address.port() && reached {
                    let policy = *policy;
                    found.push(Asked { level, owner, service: *service, name, content, key, policy, flags });
                }
            }
        }
    }
    // What the address has of its own goes before what every address has.
    found.sort_by(|a, b| a.order().cmp(&b.order()));
    let explanations: Vec<_> = found
        .chunk_by(|a, b| a.name.protocol == b.name.protocol)
        .filter_map(|of_protocol| {
            let (winner, losers) = of_protocol.split_first()?;
            let slices = winner.service.map(|service| claims::endpoints(&model, service).0).unwrap_or_default();
            let slices: Vec<_> = slices.iter().map(AsRef::as_ref).collect();
            let mut explained = winner.explain(admin, address, &slices, &place);
            explained.others = losers.iter().map(|loser| loser.lost_to(winner)).collect();
            let refused = contents.refused(address).filter(|(protocol, _)| *protocol == winner.name.protocol);
            explained.others.extend(refused.map(|(_, text)| text));
            Some(explained)
        })
        .collect();
    if !explanations.is_empty() {
        return Ok(explanations);
    }
    let refused: Vec<_> = contents.refused(address).map(|(_, text)| text).collect();
    Err(if refused.is_empty() { nothing(&model, address) } else { refused.join("; ") })
}

/// Why nothing is at an address.
fn nothing(model: &Model, address: SocketAddr) -> String {
    let Some(first) = model.services().find(|service| service.cluster_ips.contains(&address.ip())) else {
        return format!("no service has the address {address}: see `fairlead service list`");
    };
    if let Some(name) = first.proxy_name.as_ref().filter(|_| !first.is_proxied()) {
        return format!(
            "service {} is handled by another proxy, {name:?} (label service.kubernetes.io/service-proxy-name)",
            first.key
        );
    }
    let ports: Vec<_> = first.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol)).collect();
    format!("service {} has no port {}, only {}", first.key, address.port(), ports.join(", "))
}

/// A frontend that was asked about.
struct Asked<'a> {
    /// 0: of the address itself; 1: of every address of the node.
    level: usize,
    owner: &'a ObjectKey,
    service: Option<&'a Service>,
    name: &'a PortKey,
    content: &'a PortContent,
    key: &'a FrontendKey,
    policy: FrontendPolicy,
    flags: u32,
}

impl Asked<'_> {
    /// By protocol, who is met first.
    fn order(&self) -> (Protocol, usize, Rank<'_>) {
        (self.name.protocol, self.level, Rank::new(self.policy.kind, self.content.created, self.name))
    }

    /// Why it is not the one that connections meet.
    fn lost_to(&self, winner: &Self) -> String {
        let (party, kind) = (Party::of_port(self.name), self.policy.kind);
        let why = match (self.level == winner.level, kind == winner.policy.kind) {
            (false, _) => format!("a {} for this specific address takes precedence", winner.policy.kind),
            (true, false) => format!("a {} takes precedence", winner.policy.kind),
            (true, true) => "the older one takes precedence".to_owned(),
        };
        format!("{party} also claims it, as its {kind}, but does not get it: {why}")
    }

    fn explain(
        &self,
        admin: &Admin,
        address: SocketAddr,
        slices: &[&EndpointSlice],
        place: &Place,
    ) -> ServiceExplanation {
        let Self { owner, name, content, policy, flags, .. } = self;
        let in_force = admin.tables.map(TableId::Frontends).and_then(|map| map.get(self.key.as_bytes()));
        let (inside, outside) = (content.answer(policy.inside), content.answer(policy.outside));
        let restricted = FrontendFlags::source_set_of(*flags) != 0;
        let ranges = content.source_ranges.iter().filter(|_| restricted);
        ServiceExplanation {
            service: owner.to_string(),
            port_name: name.port.clone(),
            address,
            protocol: name.protocol.to_string(),
            kind: policy.kind.to_string(),
            policy: word(policy.inside).to_owned(),
            verdict: verdict(inside),
            outside_policy: word(policy.outside).to_owned(),
            outside_verdict: verdict(outside),
            keeps_source: flags & FrontendFlags::KEEP_SOURCE != 0,
            source_ranges: ranges.map(ToString::to_string).collect(),
            in_force: in_force.is_ok_and(|value| value.is_some()),
            others: Vec::new(),
            endpoints: self.endpoints(slices, place),
        }
    }

    fn endpoints(&self, slices: &[&EndpointSlice], place: &Place) -> Vec<EndpointView> {
        let Self { name, content, policy, .. } = self;
        let chosen = |policy: TrafficPolicy, addr: &BackendAddr| match content.answer(policy) {
            Answer::Forward(set) => set.contains(addr),
            Answer::Reject | Answer::Drop => false,
        };
        let port = self.service.and_then(|service| {
            service.ports.iter().find(|port| port.name == name.port && port.protocol == name.protocol)
        });
        let Some(port) = port else {
            let own = content.in_service.iter().map(|addr| EndpointView {
                address: SocketAddr::new(addr.ip, addr.port),
                chosen: true,
                chosen_outside: true,
                local: true,
                why: "the pod that requests the hostPort".to_owned(),
            });
            return own.collect();
        };
        let all = endpoints(slices.iter().copied(), port, name.family, &place.node);
        let any_ready = all.iter().any(|endpoint| endpoint.ready);
        let views = all.iter().map(|endpoint| {
            let inside = chosen(policy.inside, &endpoint.addr);
            EndpointView {
                address: SocketAddr::new(endpoint.addr.ip, endpoint.addr.port),
                chosen: inside,
                chosen_outside: chosen(policy.outside, &endpoint.addr),
                local: endpoint.local,
                why: why(endpoint, inside, policy.inside, any_ready, place),
            }
        });
        views.collect()
    }
}

fn word(policy: TrafficPolicy) -> &'static str {
    match policy {
        TrafficPolicy::Cluster => "Cluster",
        TrafficPolicy::Local => "Local",
    }
}

fn verdict(answer: &Answer) -> Verdict {
    match answer {
        Answer::Forward(_) => Verdict::Forward,
        Answer::Reject => Verdict::Reject,
        Answer::Drop => Verdict::Drop,
    }
}

fn why(e: &PortEndpoint<'_>, chosen: bool, policy: TrafficPolicy, any_ready: bool, place: &Place) -> String {
    match (chosen, e.ready) {
        (true, true) => "ready".to_owned(),
        (true, false) => "terminating but still serving, and no endpoint is ready".to_owned(),
        (false, _) if policy == TrafficPolicy::Local && !e.local => {
            "on another node, and internalTrafficPolicy is Local".to_owned()
        }
        (false, true) => {
            let zone = place.zone.as_deref().unwrap_or("no zone");
            let meant = [e.node_hints, e.zone_hints].concat();
            format!("topology hints name {} (this is {} in {zone})", meant.join(", "), place.node)
        }
        (false, false) if e.is_last_resort() && any_ready => "terminating, and others are ready".to_owned(),
        (false, false) if e.terminating => "terminating, no longer serving".to_owned(),
        (false, false) => "not ready".to_owned(),
    }
}
