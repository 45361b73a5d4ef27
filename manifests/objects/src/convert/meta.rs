//! What several kinds share: names, addresses, ports, protocols, selectors.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};

use super::problem::{At, Error, Problem};
use crate::address;
use crate::{Labels, Mode, ObjectKey, Operator, Protocol, Requirement, Selector};

/// The namespace of an object that names none, as for `kubectl apply`.
const DEFAULT_NAMESPACE: &str = "default";

/// The name of an object of the cluster.
pub(super) fn name(meta: &ObjectMeta) -> Result<String, Error> {
    meta.name.clone().filter(|name| !name.is_empty()).ok_or(Problem::NoName).at(|| "metadata.name".to_owned())
}

/// Namespace and name of an object in a namespace.
pub(super) fn key(meta: &ObjectMeta) -> Result<ObjectKey, Error> {
    let namespace = meta.namespace.as_deref().filter(|ns| !ns.is_empty()).unwrap_or(DEFAULT_NAMESPACE);
    Ok(ObjectKey::new(namespace, name(meta)?))
}

/// The labels.
pub(super) fn labels(meta: &ObjectMeta) -> Labels {
    meta.labels.clone().unwrap_or_default()
}

/// When it was created, as the API server has it; a manifest in a directory need not say.
pub(super) fn created(meta: &ObjectMeta) -> Option<Timestamp> {
    meta.creation_timestamp.as_ref().map(|time| time.0)
}

/// One label.
pub(super) fn label(meta: &ObjectMeta, key: &str) -> Option<String> {
    meta.labels.as_ref().and_then(|labels| labels.get(key)).cloned()
}

/// One annotation.
pub(super) fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether a policy is in force. One that says something else is.
pub(super) fn mode(meta: &ObjectMeta, notes: &mut Vec<Error>) -> Mode {
    match annotation(meta, Mode::ANNOTATION) {
        None | Some("enforce") => Mode::Enforce,
        Some("audit") => Mode::Audit,
        Some(other) => {
            let problem = Problem::Choice(other.to_owned(), "audit or enforce; until then the policy is enforced");
            notes.push(problem.at(format!("metadata.annotations[{}]", Mode::ANNOTATION)));
            Mode::Enforce
        }
    }
}

/// An address.
pub(super) fn ip(text: &str) -> Result<IpAddr, Problem> {
    address::parse_ip(text).ok_or_else(|| Problem::Address(text.to_owned()))
}

/// A prefix, canonical.
pub(super) fn cidr(text: &str) -> Result<IpNetwork, Problem> {
    address::parse_cidr(text).ok_or_else(|| Problem::Cidr(text.to_owned()))
}

/// A port number.
pub(super) fn port(number: i32) -> Result<u16, Problem> {
    u16::try_from(number).ok().filter(|&port| port != 0).ok_or(Problem::Port(number.into()))
}

/// A port number where 0 means none.
pub(super) fn optional_port(number: Option<i32>) -> Result<Option<u16>, Problem> {
    number.filter(|&n| n != 0).map(port).transpose()
}

/// A protocol; none is TCP.
pub(super) fn protocol(text: Option<&str>) -> Result<Protocol, Problem> {
    match text {
        None | Some("" | "TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(Problem::Choice(other.to_owned(), "TCP, UDP or SCTP")),
    }
}

/// A selector. One that can't be read selects nothing, and the reason is noted.
pub(super) fn selector(from: &LabelSelector, path: &str, notes: &mut Vec<Error>) -> Selector {
    match requirements(from, path) {
        Ok(requirements) => Selector::All(requirements),
        Err(error) => {
            notes.push(error);
            Selector::Invalid
        }
    }
}

/// What a selector requires.
pub(super) fn requirements(from: &LabelSelector, path: &str) -> Result<BTreeSet<Requirement>, Error> {
    each(from, path).collect()
}

/// What can be read of a selector: it selects all that was meant, and perhaps more.
pub(super) fn widened(from: &LabelSelector) -> Selector {
    Selector::All(each(from, "").filter_map(Result::ok).collect())
}

fn each(from: &LabelSelector, path: &str) -> impl Iterator<Item = Result<Requirement, Error>> {
    let labels = from.match_labels.iter().flatten().map(move |(key, value)| {
        let values = BTreeSet::from([value.clone()]);
        let requirement = Requirement { key: key.clone(), operator: Operator::In, values };
        checked(requirement).at(|| format!("{path}.matchLabels.{key}"))
    });
    let expressions = from.match_expressions.iter().flatten().enumerate().map(move |(i, expression)| {
        let requirement = expression_requirement(expression).and_then(checked);
        requirement.at(|| format!("{path}.matchExpressions[{i}]"))
    });
    labels.chain(expressions)
}

fn expression_requirement(from: &LabelSelectorRequirement) -> Result<Requirement, Problem> {
    let operator = match from.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => return Err(Problem::Choice(other.to_owned(), "In, NotIn, Exists or DoesNotExist")),
    };
    let values: BTreeSet<String> = from.values.iter().flatten().cloned().collect();
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            Err(Problem::Values(from.operator.clone(), "without", "at least one"))
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            Err(Problem::Values(from.operator.clone(), "with", "none"))
        }
        _ => Ok(Requirement { key: from.key.clone(), operator, values }),
    }
}

/// Refuses a requirement about labels that can't be (`labels.NewRequirement` of k8s.io/apimachinery).
fn checked(requirement: Requirement) -> Result<Requirement, Problem> {
    if !is_label_key(&requirement.key) {
        return Err(Problem::Label(requirement.key, "key"));
    }
    match requirement.values.iter().find(|value| !is_label_value(value)) {
        Some(value) => Err(Problem::Label(value.clone(), "value")),
        None => Ok(requirement),
    }
}

/// `IsQualifiedName` of k8s.io/apimachinery: a name of up to 63, after a DNS subdomain and a slash if need be.
fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_label_name(name),
        None => is_label_name(key),
    }
}

fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_label_name(value)
}

fn is_label_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    name.len() <= 63 && name.bytes().all(inner) && has_alphanumeric_ends(name)
}

fn is_subdomain(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    name.len() <= 253 && name.split('.').all(|label| label.bytes().all(inner) && has_alphanumeric_ends(label))
}

fn has_alphanumeric_ends(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}
