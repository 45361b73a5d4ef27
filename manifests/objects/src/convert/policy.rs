//! NetworkPolicies. What can't be read of a rule matches nothing, and never turns an entry list into an empty one, which would
//! match everything. Where it can't be read which pods are meant, those that may be are isolated, and no rule lets anybody in.

use k8s_openapi::api::networking::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::problem::{At, Problem, note};
use super::{Converted, Error, Slim, meta};
use crate::{Kind, NetworkPolicy, Object, Peer, PolicyPort, PortMatch, Protocol, Rule, Selector};

impl Slim for v1::NetworkPolicy {
    const KIND: Kind = Kind::NetworkPolicy;

    fn slim(&self) -> Converted {
        let mut notes = Vec::new();
        let empty = v1::NetworkPolicySpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let (isolates_ingress, isolates_egress) = policy_types(spec, &mut notes);
        let (pod_selector, is_known) = match &spec.pod_selector {
            Some(selector) => pods(selector, &mut notes),
            None => (Selector::everything(), true),
        };
        let ingress = isolates_ingress.then(|| {
            let rules = spec.ingress.iter().flatten().filter(|_| is_known).enumerate();
            rules
                .map(|(i, r)| {
                    rule(r.from.as_deref(), "from", r.ports.as_deref(), &format!("spec.ingress[{i}]"), &mut notes)
                })
                .collect()
        });
        let egress = isolates_egress.then(|| {
            let rules = spec.egress.iter().flatten().filter(|_| is_known).enumerate();
            rules
                .map(|(i, r)| rule(r.to.as_deref(), "to", r.ports.as_deref(), &format!("spec.egress[{i}]"), &mut notes))
                .collect()
        });
        let mode = meta::mode(&self.metadata, &mut notes);
        let policy = NetworkPolicy { key: meta::key(&self.metadata)?, mode, pod_selector, ingress, egress };
        Ok((Object::NetworkPolicy(policy), notes))
    }
}

/// The pods that are isolated, and whether these are the ones that are meant: what can't be read leaves none of those out.
fn pods(selector: &LabelSelector, notes: &mut Vec<Error>) -> (Selector, bool) {
    match meta::selector(selector, "spec.podSelector", notes) {
        Selector::Invalid => (meta::widened(selector), false),
        selector => (selector, true),
    }
}

/// Whether it isolates for ingress and for egress (`SetDefaults_NetworkPolicy` of pkg/apis/networking/v1).
fn policy_types(spec: &v1::NetworkPolicySpec, notes: &mut Vec<Error>) -> (bool, bool) {
    let Some(types) = spec.policy_types.as_deref().filter(|types| !types.is_empty()) else {
        return (true, spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()));
    };
    let mut isolates = (false, false);
    for (i, direction) in types.iter().enumerate() {
        match direction.as_str() {
            "Ingress" => isolates.0 = true,
            "Egress" => isolates.1 = true,
            other => {
                // Whichever was meant, neither stays open.
                let problem = Problem::Choice(other.to_owned(), "Ingress or Egress; until then it isolates for both");
                notes.push(problem.at(format!("spec.policyTypes[{i}]")));
                isolates = (true, true);
            }
        }
    }
    isolates
}

fn rule(
    peers: Option<&[v1::NetworkPolicyPeer]>,
    direction: &str,
    ports: Option<&[v1::NetworkPolicyPort]>,
    path: &str,
    notes: &mut Vec<Error>,
) -> Rule {
    let peers = peers.unwrap_or_default().iter().enumerate();
    let ports = ports.unwrap_or_default().iter().enumerate();
    Rule {
        peers: peers.map(|(i, p)| peer(p, &format!("{path}.{direction}[{i}]"), notes)).collect(),
        ports: ports.map(|(i, p)| policy_port(p, &format!("{path}.ports[{i}]"), notes)).collect(),
    }
}

fn peer(from: &v1::NetworkPolicyPeer, path: &str, notes: &mut Vec<Error>) -> Peer {
    match (&from.pod_selector, &from.namespace_selector, &from.ip_block) {
        (None, None, Some(block)) => ip_block(block, path, notes).unwrap_or(Peer::Nothing),
        (pods, namespaces, None) if pods.is_some() || namespaces.is_some() => Peer::Pods {
            namespaces: namespaces.as_ref().map(|s| meta::selector(s, &format!("{path}.namespaceSelector"), notes)),
            pods: match pods {
                Some(selector) => meta::selector(selector, &format!("{path}.podSelector"), notes),
                None => Selector::everything(),
            },
        },
        _ => {
            notes.push(Problem::Peer.at(path));
            Peer::Nothing
        }
    }
}

/// The block, or nothing when any part of it can't be read: without an exception it would allow too much.
fn ip_block(from: &v1::IPBlock, path: &str, notes: &mut Vec<Error>) -> Option<Peer> {
    let cidr = note(meta::cidr(&from.cidr).at(|| format!("{path}.ipBlock.cidr")), notes)?;
    let mut except = Vec::new();
    for (i, text) in from.except.iter().flatten().enumerate() {
        let path = || format!("{path}.ipBlock.except[{i}]");
        let exception = note(meta::cidr(text).at(path), notes)?;
        if exception.prefix() <= cidr.prefix() || !cidr.contains(exception.network()) {
            notes.push(Problem::NotInside(exception.to_string(), cidr.to_string()).at(path()));
        }
        except.push(exception);
    }
    except.sort_unstable();
    except.dedup();
    Some(Peer::IpBlock { cidr, except })
}

fn policy_port(from: &v1::NetworkPolicyPort, path: &str, notes: &mut Vec<Error>) -> PolicyPort {
    match note(readable_port(from, path), notes) {
        Some(port) => port,
        None => PolicyPort { protocol: Protocol::Tcp, port: PortMatch::Nothing },
    }
}

fn readable_port(from: &v1::NetworkPolicyPort, path: &str) -> Result<PolicyPort, Error> {
    let protocol = meta::protocol(from.protocol.as_deref()).at(|| format!("{path}.protocol"))?;
    let port = match (&from.port, from.end_port) {
        (None, None) => PortMatch::Any,
        (Some(IntOrString::Int(first)), end) => {
            let first = meta::port(*first).at(|| format!("{path}.port"))?;
            let last = match end {
                None => first,
                Some(end) => range_end(first, end).at(|| format!("{path}.endPort"))?,
            };
            PortMatch::Range(first, last)
        }
        (Some(IntOrString::String(name)), None) if is_port_name(name) => PortMatch::Named(name.clone()),
        (Some(IntOrString::String(name)), None) => {
            return Err(Problem::PortName(name.clone()).at(format!("{path}.port")));
        }
        (None | Some(IntOrString::String(_)), Some(end)) => {
            return Err(Problem::EndPort(end).at(format!("{path}.endPort")));
        }
    };
    Ok(PolicyPort { protocol, port })
}

fn range_end(first: u16, end: i32) -> Result<u16, Problem> {
    let last = meta::port(end)?;
    if last < first { Err(Problem::EndPort(end)) } else { Ok(last) }
}

/// `IsValidPortName` of k8s.io/apimachinery (RFC 6335, 5.1, in lower case).
fn is_port_name(name: &str) -> bool {
    name.len() <= 15
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-')
}
