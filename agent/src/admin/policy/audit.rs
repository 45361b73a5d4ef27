//! What policies in audit mode would drop.

use fairlead_datapath::packet::{ICMP, ICMPV6, SCTP, TCP, UDP};
use fairlead_objects::{ObjectKey, Tier};

use super::super::Admin;
use super::super::views::{AuditedFlowView, AuditedPolicyView, PolicyAudit};
use crate::audit::{Finding, Found};
use crate::compile::policy::{RuleRef, World};
use crate::network::Network;

pub(in crate::admin) fn audit(admin: &Admin, pod: Option<&str>) -> Result<PolicyAudit, String> {
    let shared = &admin.shared;
    let model = shared.model();
    let is_there = |pod: &str| model.local().values().any(|local| local.key.to_string() == pod);
    if let Some(pod) = pod.filter(|pod| !is_there(pod)) {
        return Err(format!("no pod {pod} on this node: ask on the pod's node, and give NAMESPACE/NAME"));
    }
    let findings = shared.audit();
    let policy = |key: &ObjectKey| {
        let kind = if key.namespace.is_empty() { "ClusterNetworkPolicy" } else { "NetworkPolicy" };
        AuditedPolicyView { kind: kind.to_owned(), policy: key.to_string() }
    };
    let policies = World::with_audited(&model, &Network::default()).audited().into_iter().map(policy).collect();
    let wanted = |finding: &Finding| pod.is_none_or(|pod| finding.pod.to_string() == pod);
    Ok(PolicyAudit {
        policies,
        since_seconds: findings.since(),
        flows: findings.iter().filter(|(finding, _)| wanted(finding)).map(view).collect(),
        left_out: findings.left_out(),
    })
}

fn view((finding, found): (&Finding, &Found)) -> AuditedFlowView {
    let Finding { pod, direction, peer, proto, port, by, policies, text: _ } = finding;
    let policies: Vec<String> = match by {
        Some(rule) => vec![rule.policy.to_string()],
        None => policies.iter().map(ToString::to_string).collect(),
    };
    AuditedFlowView {
        pod: pod.to_string(),
        direction: direction.to_string(),
        peer: peer.clone(),
        protocol: protocol(*proto),
        port: *port,
        policies,
        rule: by.as_ref().map(rule),
        flows: found.flows,
        first_seconds: found.first,
        last_seconds: found.last,
    }
}

/// A rule by its place and name.
fn rule(rule: &RuleRef) -> String {
    let RuleRef { tier, policy: _, index, name } = rule;
    let tier = if *tier == Tier::NetworkPolicy { String::new() } else { format!("{tier} ") };
    if name.is_empty() { format!("{tier}rule {index}") } else { format!("{tier}rule {index} ({name})") }
}

fn protocol(number: u8) -> String {
    match number {
        TCP => "TCP".to_owned(),
        UDP => "UDP".to_owned(),
        SCTP => "SCTP".to_owned(),
        ICMP | ICMPV6 => "ICMP".to_owned(),
        other => other.to_string(),
    }
}
