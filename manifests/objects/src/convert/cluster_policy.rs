//! ClusterNetworkPolicies (sigs.k8s.io/network-policy-api v0.3.0: apis/v1beta1 and apis/v1alpha2, which have one shape).
//!
//! A field that is not known may change what the rest means, and the API server has checked what it knows. So nothing here
//! is passed over: "fail closed" is upstream's word for it, a rule that accepts then matches nothing, and one that denies or
//! passes denies everything.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;
use serde_json::Value;

use super::problem::{At, Problem};
use super::{Converted, Error, Slim, meta};
use crate::{
    Action, ClusterNetworkPolicy as Policy, ClusterRule, DomainName, Kind, Object, ObjectKey, Peer, PolicyPort,
    PortMatch, Protocol, Rule, Selector, Subject, Tier,
};

/// A ClusterNetworkPolicy as the API has it: of v1beta1, or of v1alpha2.
#[derive(Debug, Clone, Deserialize)]
pub struct ClusterNetworkPolicy<const BETA: bool> {
    /// Its name.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it says.
    #[serde(default)]
    pub spec: Value,
}

impl<const BETA: bool> k8s_openapi::Resource for ClusterNetworkPolicy<BETA> {
    const API_VERSION: &'static str =
        if BETA { "policy.networking.k8s.io/v1beta1" } else { "policy.networking.k8s.io/v1alpha2" };
    const GROUP: &'static str = "policy.networking.k8s.io";
    const KIND: &'static str = "ClusterNetworkPolicy";
    const VERSION: &'static str = if BETA { "v1beta1" } else { "v1alpha2" };
    const URL_PATH_SEGMENT: &'static str = "clusternetworkpolicies";
    type Scope = k8s_openapi::ClusterResourceScope;
}

impl<const BETA: bool> k8s_openapi::Metadata for ClusterNetworkPolicy<BETA> {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What a policy is until it can be read.
const CLOSED: &str = "until then its rules deny what they match, before all others, and accept nothing";
/// Whom a policy is for until that can be read.
const FOR_ALL: &str =
    "until then it applies to every pod that it may select: its rules deny what they match, and accept nothing";
/// What a rule that accepts is until it can be read.
const NOTHING: &str = "until then the rule accepts nothing";
/// What any other rule is until it can be read.
const EVERYTHING: &str = "until then the rule denies everything";
/// What a rule is until its action can be read.
const DENIES: &str = "until then the rule denies what it matches";

const PEERS: &str = "namespaces, pods, networks, nodes or domainNames";

/// Most names of a peer.
const NAMES: usize = 25;

impl<const BETA: bool> Slim for ClusterNetworkPolicy<BETA> {
    const KIND: Kind = Kind::ClusterNetworkPolicy;

    fn slim(&self) -> Converted {
        let key = ObjectKey::cluster(meta::name(&self.metadata)?);
        let mut notes = Vec::new();
        let spec = members(&self.spec, "spec")?;
        let named = spec.get("subject").copied().unwrap_or(&Value::Null);
        let known = ["tier", "priority", "subject", "ingress", "egress"];
        let place = unknown(&spec, &known, "spec").map_or_else(|| place(&spec), Err);
        let subject = subject(named, "spec.subject");
        let is_closed = place.is_err() || subject.is_err();
        let subject = subject.unwrap_or_else(|error| {
            notes.push(with_effect(error, FOR_ALL));
            widened(named)
        });
        let (tier, priority) = place.map_or_else(
            |error| {
                notes.push(with_effect(error, CLOSED));
                (Tier::Admin, None)
            },
            |(tier, priority)| (tier, Some(priority)),
        );
        let mut rules = |direction| {
            let mut rules = rules(spec.get(direction).copied(), direction, &mut notes);
            if is_closed {
                rules.iter_mut().for_each(close);
            }
            rules
        };
        let (ingress, egress) = (rules("ingress"), rules("egress"));
        let mode = meta::mode(&self.metadata, &mut notes);
        let policy = Policy { key, mode, tier, priority, subject, ingress, egress };
        Ok((Object::ClusterNetworkPolicy(policy), notes))
    }
}

/// Lets a rule open nothing, nor hand on to somebody who may.
fn close(rule: &mut ClusterRule) {
    match rule.action {
        Action::Accept => rule.matches = None,
        Action::Deny | Action::Pass => rule.action = Action::Deny,
    }
}

fn with_effect(error: Error, effect: &'static str) -> Error {
    Problem::Until(Box::new(error.problem), effect).at(error.path)
}

/// The members of an object; null is absent.
fn members<'a>(value: &'a Value, path: &str) -> Result<BTreeMap<&'a str, &'a Value>, Error> {
    let Value::Object(map) = value else { return Err(Problem::Type("an object").at(path)) };
    Ok(map.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.as_str(), value)).collect())
}

/// The first member that is none of those known.
fn unknown(members: &BTreeMap<&str, &Value>, known: &[&str], path: &str) -> Option<Error> {
    let name = members.keys().find(|name| !known.contains(name))?;
    Some(Problem::Unknown.at(format!("{path}.{name}")))
}

/// The members of an object that has no others than these.
fn only<'a>(value: &'a Value, known: &[&str], path: &str) -> Result<BTreeMap<&'a str, &'a Value>, Error> {
    let members = members(value, path)?;
    unknown(&members, known, path).map_or(Ok(members), Err)
}

/// The only member of an object: one of those known.
fn one<'a>(value: &'a Value, known: &[&str], path: &str, of: &'static str) -> Result<(&'a str, &'a Value), Error> {
    let members = only(value, known, path)?;
    match members.into_iter().collect::<Vec<_>>()[..] {
        [only] => Ok(only),
        _ => Err(Problem::OneOf(of).at(path)),
    }
}

/// A list with an entry at least.
fn entries<'a>(value: Option<&'a Value>, path: &str) -> Result<&'a [Value], Error> {
    match value {
        Some(Value::Array(entries)) if !entries.is_empty() => Ok(entries),
        None | Some(Value::Array(_)) => Err(Problem::Empty.at(path)),
        Some(_) => Err(Problem::Type("a list").at(path)),
    }
}

fn text<'a>(value: &'a Value, path: &str) -> Result<&'a str, Error> {
    value.as_str().ok_or(Problem::Type("a text").at(path))
}

fn number(value: Option<&Value>, path: &str) -> Result<i64, Error> {
    let value = value.ok_or(Problem::Missing.at(path))?;
    value.as_i64().ok_or(Problem::Type("a number").at(path))
}

/// Tier and priority.
fn place(spec: &BTreeMap<&str, &Value>) -> Result<(Tier, u16), Error> {
    let tier = match text(spec.get("tier").copied().ok_or(Problem::Missing.at("spec.tier"))?, "spec.tier")? {
        "Admin" => Tier::Admin,
        "Baseline" => Tier::Baseline,
        other => return Err(Problem::Choice(other.to_owned(), "Admin or Baseline").at("spec.tier")),
    };
    let priority = number(spec.get("priority").copied(), "spec.priority")?;
    let valid = u16::try_from(priority).ok().filter(|priority| *priority <= 1000);
    Ok((tier, valid.ok_or(Problem::Range(priority, 0, 1000).at("spec.priority"))?))
}

fn subject(value: &Value, path: &str) -> Result<Subject, Error> {
    let (name, value) = one(value, &["namespaces", "pods"], path, "namespaces or pods")?;
    let path = format!("{path}.{name}");
    let (namespaces, pods) = match name {
        "namespaces" => (selector(value, &path)?, Selector::everything()),
        _ => namespaced_pods(value, &path)?,
    };
    Ok(Subject { namespaces, pods })
}

/// Every pod that a subject may be for which can't be read: a selector that can be read counts.
fn widened(value: &Value) -> Subject {
    let read =
        |value: Option<&Value>| value.and_then(|value| selector(value, "").ok()).unwrap_or(Selector::everything());
    let is_alone = value.as_object().is_some_and(|members| members.len() == 1);
    let pods = value.get("pods").filter(|_| is_alone);
    let part = |name: &str| read(pods.and_then(|pods| pods.get(name)));
    Subject { namespaces: part("namespaceSelector"), pods: part("podSelector") }
}

/// The selectors of namespaces and of pods. The first may be left out; the zero value of the second is no answer.
fn namespaced_pods(value: &Value, path: &str) -> Result<(Selector, Selector), Error> {
    let members = only(value, &["namespaceSelector", "podSelector"], path)?;
    let namespaces = members.get("namespaceSelector");
    let pods = members.get("podSelector").ok_or(Problem::Missing.at(format!("{path}.podSelector")))?;
    let namespaces =
        namespaces.map_or(Ok(Selector::everything()), |value| selector(value, &format!("{path}.namespaceSelector")))?;
    Ok((namespaces, selector(pods, &format!("{path}.podSelector"))?))
}

fn selector(value: &Value, path: &str) -> Result<Selector, Error> {
    let members = only(value, &["matchLabels", "matchExpressions"], path)?;
    if let Some(Value::Array(expressions)) = members.get("matchExpressions") {
        for (i, expression) in expressions.iter().enumerate() {
            only(expression, &["key", "operator", "values"], &format!("{path}.matchExpressions[{i}]"))?;
        }
    }
    let parsed = LabelSelector::deserialize(value).map_err(|_| Problem::Type("a label selector").at(path))?;
    meta::requirements(&parsed, path).map(Selector::All)
}

fn rules(value: Option<&Value>, direction: &str, notes: &mut Vec<Error>) -> Vec<ClusterRule> {
    let path = format!("spec.{direction}");
    match value {
        None => Vec::new(),
        Some(Value::Array(rules)) => {
            rules.iter().enumerate().map(|(i, value)| rule(value, direction, &format!("{path}[{i}]"), notes)).collect()
        }
        Some(_) => {
            notes.push(with_effect(Problem::Type("a list").at(path), EVERYTHING));
            vec![closed_rule(Action::Deny, String::new())]
        }
    }
}

/// A rule that can't be read.
fn closed_rule(action: Action, name: String) -> ClusterRule {
    match action {
        Action::Accept => ClusterRule { name, action, matches: None },
        Action::Deny | Action::Pass => {
            let matches = Some(Rule { peers: Vec::new(), ports: Vec::new() });
            ClusterRule { name, action: Action::Deny, matches }
        }
    }
}

fn rule(value: &Value, direction: &str, path: &str, notes: &mut Vec<Error>) -> ClusterRule {
    let named = |name: &str| value.get(name).and_then(Value::as_str);
    let name = named("name").unwrap_or_default().to_owned();
    let action = match named("action") {
        Some("Accept") => Action::Accept,
        Some("Deny") => Action::Deny,
        Some("Pass") => Action::Pass,
        other => {
            let problem = Problem::Choice(other.unwrap_or_default().to_owned(), "Accept, Deny or Pass");
            notes.push(with_effect(problem.at(format!("{path}.action")), DENIES));
            Action::Deny
        }
    };
    match matches(value, direction, path).and_then(|rule| accepts_names(rule, action, path)) {
        Ok(rule) => ClusterRule { name, action, matches: Some(rule) },
        Err(error) => {
            let effect = if action == Action::Accept { NOTHING } else { EVERYTHING };
            notes.push(with_effect(error, effect));
            closed_rule(action, name)
        }
    }
}

/// Names of domains are for rules that accept: what is not known of them can't be denied.
fn accepts_names(rule: Rule, action: Action, path: &str) -> Result<Rule, Error> {
    let is_named = rule.peers.iter().any(|peer| matches!(peer, Peer::DomainNames(_)));
    if is_named && action != Action::Accept { Err(Problem::NamesAccept.at(format!("{path}.to"))) } else { Ok(rule) }
}

fn matches(value: &Value, direction: &str, path: &str) -> Result<Rule, Error> {
    let list = if direction == "ingress" { "from" } else { "to" };
    let members = only(value, &["name", "action", list, "protocols"], path)?;
    // Null here is a list whose entries were taken out, not one that was never there: no protocols would be all of them.
    if value.get("protocols").is_some_and(Value::is_null) {
        return Err(Problem::Empty.at(format!("{path}.protocols")));
    }
    let mut rule = Rule { peers: Vec::new(), ports: Vec::new() };
    for (i, value) in entries(members.get(list).copied(), &format!("{path}.{list}"))?.iter().enumerate() {
        rule.peers.extend(peers(value, direction, &format!("{path}.{list}[{i}]"))?);
    }
    if let Some(protocols) = members.get("protocols") {
        for (i, value) in entries(Some(protocols), &format!("{path}.protocols"))?.iter().enumerate() {
            rule.ports.extend(ports(value, &format!("{path}.protocols[{i}]"))?);
        }
    }
    let nameless = |peer: &Peer| !matches!(peer, Peer::Pods { .. });
    let is_named = |port: &PolicyPort| matches!(port.port, PortMatch::Named(_));
    if rule.peers.iter().any(nameless) && rule.ports.iter().any(is_named) {
        return Err(Problem::NoPortNames.at(format!("{path}.protocols")));
    }
    Ok(rule)
}

fn peers(value: &Value, direction: &str, path: &str) -> Result<Vec<Peer>, Error> {
    let (known, of): (&[_], _) = match direction {
        "ingress" => (&["namespaces", "pods"], "namespaces or pods"),
        _ => (&["namespaces", "pods", "networks", "nodes", "domainNames"], PEERS),
    };
    let (name, value) = one(value, known, path, of)?;
    let path = format!("{path}.{name}");
    match name {
        "namespaces" => {
            let namespaces = Some(selector(value, &path)?);
            Ok(vec![Peer::Pods { namespaces, pods: Selector::everything() }])
        }
        "pods" => {
            let (namespaces, pods) = namespaced_pods(value, &path)?;
            Ok(vec![Peer::Pods { namespaces: Some(namespaces), pods }])
        }
        "nodes" => Ok(vec![Peer::Nodes(selector(value, &path)?)]),
        "networks" => {
            let network = |(i, value)| network(value, &format!("{path}[{i}]"));
            entries(Some(value), &path)?.iter().enumerate().map(network).collect()
        }
        _ => Ok(vec![Peer::DomainNames(domain_names(value, &path)?)]),
    }
}

fn domain_names(value: &Value, path: &str) -> Result<BTreeSet<DomainName>, Error> {
    let names = entries(Some(value), path)?;
    if names.len() > NAMES {
        return Err(Problem::TooMany(names.len(), NAMES).at(path));
    }
    let name = |(i, value)| {
        let path = format!("{path}[{i}]");
        let text = text(value, &path)?;
        DomainName::parse(text).ok_or_else(|| Problem::DomainName(text.to_owned()).at(path))
    };
    names.iter().enumerate().map(name).collect()
}

/// A prefix without bits of a host, in the form of today: what CEL's `isCIDR` takes.
fn network(value: &Value, path: &str) -> Result<Peer, Error> {
    let text = text(value, path)?;
    let strict = || {
        let (ip, len) = text.split_once('/')?;
        let network = IpNetwork::new(ip.parse().ok()?, len.parse().ok()?).ok()?;
        let is_plain = network.ip() == network.network() && !matches!(network, IpNetwork::V6(v6) if is_mapped(v6.ip()));
        is_plain.then_some(network)
    };
    let cidr = strict().ok_or_else(|| Problem::Network(text.to_owned())).at(|| path.to_owned())?;
    Ok(Peer::IpBlock { cidr, except: Vec::new() })
}

fn is_mapped(ip: std::net::Ipv6Addr) -> bool {
    ip.to_ipv4_mapped().is_some()
}

fn ports(value: &Value, path: &str) -> Result<Vec<PolicyPort>, Error> {
    let known = ["tcp", "udp", "sctp", "destinationNamedPort"];
    let (name, value) = one(value, &known, path, "tcp, udp, sctp or destinationNamedPort")?;
    let path = format!("{path}.{name}");
    let protocol = match name {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        // A name is one of any protocol.
        _ => {
            let name = text(value, &path)?;
            let port = |protocol| PolicyPort { protocol, port: PortMatch::Named(name.to_owned()) };
            return Ok([Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(port).into());
        }
    };
    let (_, value) = one(value, &["destinationPort"], &path, "destinationPort")?;
    let path = format!("{path}.destinationPort");
    let (name, value) = one(value, &["number", "range"], &path, "number or range")?;
    let path = format!("{path}.{name}");
    let port = match name {
        "number" => port(Some(value), &path).map(|port| PortMatch::Range(port, port))?,
        _ => {
            let range = only(value, &["start", "end"], &path)?;
            let start = port(range.get("start").copied(), &format!("{path}.start"))?;
            let end = port(range.get("end").copied(), &format!("{path}.end"))?;
            if start >= end {
                return Err(Problem::PortRange(start, end).at(path));
            }
            PortMatch::Range(start, end)
        }
    };
    Ok(vec![PolicyPort { protocol, port }])
}

fn port(value: Option<&Value>, path: &str) -> Result<u16, Error> {
    let number = number(value, path)?;
    u16::try_from(number).ok().filter(|port| *port != 0).ok_or(Problem::Port(number).at(path))
}
