//! Whether a flow may pass, and why: what the datapath does with it, from the objects, and whether that is in force.
//!
//! An address of a Service is translated first, as in the datapath, and policy is judged for each of its endpoints.

mod audit;
mod ends;
mod rules;
mod tables;

use std::net::{IpAddr, SocketAddr};

use fairlead_datapath::Addr;
use fairlead_datapath::drop::DropReason;
use fairlead_datapath::service::FrontendFlags;

use super::service::{Content, contents, keys, place};
use super::views::{PolicyExplanation, PolicyVerdict, PortRef};
use super::{Admin, Request};
use crate::compile::policy::{Direction, Explanation, Judged, Path, World, explain as explain_path, refused};
use crate::compile::services::{Answer, FrontendPolicy, Rank};
use crate::model::Model;
use crate::network::Network;
use crate::plan::policy::CutOff;
pub(super) use audit::audit;
use ends::End;
pub(super) use rules::list;
use tables::InKernel;

/// Endpoints of a Service that are said one by one.
const SHOWN: usize = 8;

/// What an explanation is made from.
struct Asked<'a> {
    model: &'a Model,
    world: World<'a>,
    /// The same with policies in audit mode, if there are any.
    audited: Option<World<'a>>,
    contents: Vec<Content<'a>>,
    /// The frontends that an address is looked for under.
    keys: &'a dyn Fn(SocketAddr) -> Vec<(Addr, Option<u32>)>,
    /// What the tables in force say.
    tables: &'a dyn Fn(&Judged) -> Option<bool>,
    /// Whoever is, nothing passes, whatever its policies say.
    cut_off: &'a [CutOff],
    proto: u8,
    port: u16,
}

/// What becomes of a flow of one family.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// For each way that it may take, why it is dropped, if it is.
    dropped: Vec<Option<DropReason>>,
    lines: Vec<String>,
    near_misses: Vec<String>,
    judged: Vec<Judged>,
}

pub(super) fn explain(admin: &Admin, request: &Request) -> Result<PolicyExplanation, String> {
    let Request::PolicyExplain { from, to, port, protocol } = request else {
        return Err("not a policy request".to_owned());
    };
    let (model, cut_off) = (admin.shared.model(), admin.shared.progress().cut_off);
    let kernel = InKernel(&admin.tables);
    let asked = Asked {
        model: &model,
        world: World::of(&model, &Network::default()),
        audited: audited(&model),
        contents: contents(&model, &place(&model)),
        keys: &|address| keys(admin, address),
        tables: &|judged| kernel.verdict(judged),
        cut_off: &cut_off,
        proto: *protocol,
        port: 0,
    };
    asked.explain(from, to, port)
}

/// The world with policies in audit mode, if there are any.
fn audited(model: &Model) -> Option<World<'_>> {
    let world = World::with_audited(model, &Network::default());
    (!world.audited().is_empty()).then_some(world)
}

impl Asked<'_> {
    fn explain(mut self, from: &str, to: &str, port: &PortRef) -> Result<PolicyExplanation, String> {
        let (from, to) = (End::find(self.model, from)?, End::find(self.model, to)?);
        if let End::Service(key) = &from {
            return Err(format!("Service {key} opens no connections: give a pod, a node or an address as --from"));
        }
        self.port = to.port(self.model, &self.world, port, self.proto)?;
        let (from, to_ends) = (from.addresses(self.model, &self.world)?, to.addresses(self.model, &self.world)?);
        let of = |ips: &[IpAddr], v4: bool| ips.iter().copied().find(|ip| ip.is_ipv4() == v4);
        let outcomes: Vec<Outcome> = [true, false]
            .into_iter()
            .filter_map(|v4| Some(self.between(of(&from.ips, v4)?, of(&to_ends.ips, v4)?)))
            .collect();
        if outcomes.is_empty() {
            return Err("the two ends have no address family in common: no traffic is possible".to_owned());
        }
        let here = from.ips.iter().chain(&to_ends.ips).any(|ip| self.is_local(*ip));
        let said = from.said.into_iter().chain(to_ends.said);
        Ok(self.summary(said.collect(), &outcomes, here))
    }

    /// One family's way, or ways.
    fn between(&self, from: IpAddr, to: IpAddr) -> Outcome {
        let is_pod = |ip| self.world.owner(ip).is_some() || self.is_local(ip);
        let mut out = Outcome::default();
        let found = if is_pod(from) && refused(to).is_some() { None } else { self.frontend(to) };
        let Some((content, policy, flags)) = found else {
            out.take(None, self.path(from, to, self.port, false));
            out.lines.extend(self.remark(to));
            return out;
        };
        let Content { owner, service, name, content } = content;
        let address = SocketAddr::new(to, self.port);
        let what = if service.is_some() { format!("Service {owner}") } else { owner.to_string() };
        let of_node =
            |ip: IpAddr| self.world.nodes.iter().any(|node| self.world.ranges().addresses(node).any(|own| own == ip));
        let inside = is_pod(from) || of_node(from);
        let restricted = FrontendFlags::source_set_of(flags) != 0;
        if restricted && !of_node(from) && !content.source_ranges.iter().any(|range| range.contains(from)) {
            let reason = DropReason::SourceRange;
            out.say(reason, format!("{from} is not in the source ranges of {what} ({})", reason.as_str()));
            return out;
        }
        match content.answer(if inside { policy.inside } else { policy.outside }) {
            Answer::Reject => {
                let reason = DropReason::Rejected;
                let text = format!("{address} is {what}, which has no endpoints: refused ({})", reason.as_str());
                out.say(reason, text);
            }
            Answer::Drop => {
                let reason = DropReason::NoEndpoint;
                let text =
                    format!("{address} is {what}, with no endpoint that this client may use ({})", reason.as_str());
                out.say(reason, text);
            }
            Answer::Forward(backends) => {
                let port = if name.port.is_empty() { String::new() } else { format!(" port {}", name.port) };
                let number = backends.len();
                let plural = if number == 1 { "endpoint" } else { "endpoints" };
                out.lines.push(format!("{address} is {what}{port}: policy is evaluated for its {number} {plural}"));
                for backend in backends {
                    let shown = SocketAddr::new(backend.ip, backend.port).to_string();
                    out.take(Some(&shown), self.path(from, backend.ip, backend.port, true));
                }
            }
        }
        out
    }

    fn is_local(&self, ip: IpAddr) -> bool {
        self.world.local.iter().any(|local| local.ips.iter().any(|own| own.to_canonical() == ip.to_canonical()))
    }

    /// The frontend that a packet to an address meets: its own before one of every address.
    fn frontend(&self, to: IpAddr) -> Option<(&Content<'_>, FrontendPolicy, u32)> {
        (self.keys)(SocketAddr::new(to, self.port)).into_iter().find_map(|(addr, kinds)| {
            let met = self.contents.iter().flat_map(|content| {
                content.content.frontends.iter().filter_map(move |(key, policy)| {
                    let flags = policy.flags(u32::from(!content.content.source_ranges.is_empty()));
                    let met = key.addr == addr
                        && key.port.number() == self.port
                        && content.name.protocol.number() == self.proto
                        && kinds.is_none_or(|kinds| kinds & flags != 0);
                    met.then_some((content, *policy, flags))
                })
            });
            met.min_by(|(a, of_a, _), (b, of_b, _)| {
                Rank::new(of_a.kind, a.content.created, &a.name).cmp(&Rank::new(of_b.kind, b.content.created, &b.name))
            })
        })
    }

    /// What a person may have expected of an address that is not translated here.
    fn remark(&self, to: IpAddr) -> Option<String> {
        if let Some(service) = self.model.services().find(|service| service.cluster_ips.contains(&to)) {
            let ports: Vec<_> = service.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol)).collect();
            let ports = ports.join(", ");
            let key = &service.key;
            return Some(if self.port == 0 {
                format!(
                    "{to} is the cluster IP of Service {key}: give one of its ports, {ports}, or it is not translated"
                )
            } else {
                format!(
                    "{to} is the cluster IP of Service {key}, which does not have this port, only {ports}: not translated"
                )
            });
        }
        let mut others = self.world.nodes.iter().filter(|node| node.name != self.world.node);
        if let Some(node) = others.clone().find(|node| node.pod_cidrs.iter().any(|range| range.contains(to)))
            && self.world.owner(to).is_none()
        {
            return Some(format!("{to} is in the pod range of node {}: ask there whether a pod has it", node.name));
        }
        let node = others.find(|node| node.internal_ips.contains(&to))?;
        let wildcard = Addr::from(to).wildcard();
        let content = self.contents.iter().find(|content| {
            content.name.protocol.number() == self.proto
                && content.content.frontends.keys().any(|key| key.addr == wildcard && key.port.number() == self.port)
        })?;
        Some(format!(
            "this may be the NodePort of {}, which node {} translates: run this there to check ingress to its \
             endpoints",
            content.owner, node.name
        ))
    }

    /// A way between two addresses, with what is cut off.
    fn path(&self, from: IpAddr, to: IpAddr, port: u16, service: bool) -> Explanation {
        let path = Path { from, to, proto: self.proto, port, service };
        let mut out = explain_path(&self.world, path);
        if out.dropped.is_none()
            && let Some(other) = self.audited.as_ref().map(|world| explain_path(world, path))
            && other.dropped.is_some()
        {
            let new = other.lines.into_iter().filter(|line| !out.lines.contains(line));
            let new: Vec<_> = new.map(|line| format!("with policies in audit mode: {line}")).collect();
            out.lines.extend(new);
        }
        for (ip, direction, reason) in
            [(from, Direction::Egress, DropReason::EgressPolicy), (to, Direction::Ingress, DropReason::IngressPolicy)]
        {
            let key = self.world.owner(ip).map(|pod| &pod.key);
            let here =
                self.cut_off.iter().filter(|cut_off| cut_off.direction == direction && Some(&cut_off.pod) == key);
            for cut_off in here {
                out.dropped.get_or_insert(reason);
                out.lines.push(format!("dropped anyway: {cut_off}"));
                // That is in force, and the tables say so.
                let judged = out.judged.iter_mut().filter(|judged| judged.direction == direction);
                judged.for_each(|judged| judged.allow = false);
            }
        }
        out
    }

    /// `here`: whether an end is a pod of this node.
    fn summary(&self, said: Vec<String>, outcomes: &[Outcome], here: bool) -> PolicyExplanation {
        let dropped: Vec<_> = outcomes.iter().flat_map(|outcome| outcome.dropped.iter().copied()).collect();
        let judged: Vec<Judged> = outcomes.iter().flat_map(|outcome| outcome.judged.iter().copied()).collect();
        let verdict = if dropped.iter().all(Option::is_none) {
            PolicyVerdict::Allowed
        } else if dropped.iter().any(Option::is_none) {
            PolicyVerdict::Partly
        } else if dropped.iter().all(|reason| *reason == Some(DropReason::Rejected)) {
            PolicyVerdict::Refused
        } else {
            PolicyVerdict::Dropped
        };
        let mut reasons: Vec<String> = Vec::new();
        for reason in dropped.iter().flatten().map(|reason| reason.as_str().to_owned()) {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        let (mut lines, mut near_misses) = (said, Vec::<String>::new());
        let same = outcomes.windows(2).all(|pair| pair[0].lines == pair[1].lines);
        for (outcome, family) in outcomes.iter().zip(["IPv4: ", "IPv6: "]) {
            let family = if same { "" } else { family };
            lines.extend(outcome.lines.iter().map(|line| format!("{family}{line}")));
            near_misses.extend(
                outcome.near_misses.iter().filter(|near| !near_misses.contains(near)).cloned().collect::<Vec<_>>(),
            );
            if same {
                break;
            }
        }
        let in_force = self.in_force(&judged, &mut lines, here);
        let allow = verdict == PolicyVerdict::Allowed;
        PolicyExplanation { verdict, allow, reasons, lines, near_misses, in_force }
    }

    /// Whether the tables say the same, where a pod of this node is concerned.
    fn in_force(&self, judged: &[Judged], lines: &mut Vec<String>, here: bool) -> Option<bool> {
        if judged.is_empty() && here {
            // What no policy is asked about needs no table.
            return None;
        }
        if judged.is_empty() {
            lines.push(format!(
                "neither end is a pod of node {}: run this on the pod's node to see what is in force",
                self.world.node
            ));
            return None;
        }
        let mut other = None;
        for each in judged {
            match (self.tables)(each) {
                Some(verdict) if verdict == each.allow => {}
                Some(_) => other = other.or(Some(each)),
                None => {
                    lines.push("can't tell whether this is in force: the tables can't be read".to_owned());
                    return None;
                }
            }
        }
        lines.push(match other {
            None => "in force: the tables of this node say the same".to_owned(),
            Some(Judged { slot, direction, .. }) => {
                let pod = self.world.local.iter().find(|local| local.slot == *slot);
                let pod = pod.map(|local| local.key.to_string()).unwrap_or_default();
                format!(
                    "not in force: the tables of this node differ for {direction} of {pod}; a change is pending, or \
                     failed (see `fairlead status`)"
                )
            }
        });
        Some(other.is_none())
    }
}

impl Outcome {
    fn say(&mut self, reason: DropReason, line: String) {
        self.dropped.push(Some(reason));
        self.lines.push(line);
    }

    /// Adds a way, under a name where there are several.
    fn take(&mut self, name: Option<&str>, explanation: Explanation) {
        let Explanation { dropped, lines, near_misses, judged } = explanation;
        let number = self.dropped.len();
        self.dropped.push(dropped);
        self.judged.extend(judged);
        match name {
            None => self.lines.extend(lines),
            Some(name) if number < SHOWN => self.lines.extend(lines.iter().map(|line| format!("{name}: {line}"))),
            Some(_) => {
                let more = self.dropped.split_off(SHOWN);
                let open = more.iter().filter(|dropped| dropped.is_none()).count();
                if number > SHOWN {
                    self.lines.pop();
                }
                self.lines.push(format!("and {} more, {open} of them allowed", more.len()));
                self.dropped.extend(more);
            }
        }
        for near in near_misses {
            if !self.near_misses.contains(&near) {
                self.near_misses.push(near);
            }
        }
    }
}

#[cfg(test)]
mod tests;
