//! What policies in audit mode would drop.

use super::Table;
use super::policies::ago;
use crate::admin::{AuditedFlowView, PolicyAudit};

/// As a table, below a sentence on what is audited.
pub(in crate::cli) fn audit(audit: &PolicyAudit, now: u64) -> String {
    let PolicyAudit { policies, since_seconds, flows, left_out } = audit;
    let names: Vec<&str> = policies.iter().map(|policy| policy.policy.as_str()).collect();
    if names.is_empty() {
        return "no policy is in audit mode: annotate one with fairlead.io/mode=audit\n".to_owned();
    }
    let since = since_seconds.map_or_else(|| "from now on".to_owned(), |at| format!("since {}", ago(at, now)));
    let mut text = format!("in audit mode {since}: {}\n", names.join(", "));
    if flows.is_empty() {
        return text + "they would have dropped nothing of what was seen on this node\n";
    }
    let mut table = Table::new(["pod", "direction", "peer", "port", "flows", "last seen", "policy", "rule"]);
    for AuditedFlowView { pod, direction, peer, protocol, port, policies, rule, flows, last_seconds, .. } in flows {
        let port = if *port == 0 { protocol.clone() } else { format!("{port}/{protocol}") };
        let rule = rule.clone().unwrap_or_else(|| "none allows it".to_owned());
        let last = ago(*last_seconds, now);
        let (pod, direction, peer) = (pod.clone(), direction.clone(), peer.clone());
        table.row([pod, direction, peer, port, flows.to_string(), last, policies.join(", "), rule]);
    }
    text += &table.to_string();
    if *left_out > 0 {
        text += &format!("and {left_out} more, which were not seen for longer\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::AuditedPolicyView;

    #[test]
    fn what_would_be_dropped_is_a_table_and_its_absence_a_sentence() {
        assert!(audit(&PolicyAudit::default(), 1000).contains("fairlead.io/mode=audit"));
        let flow = AuditedFlowView {
            pod: "shop/web".to_owned(),
            direction: "ingress".to_owned(),
            peer: "192.0.2.1".to_owned(),
            protocol: "TCP".to_owned(),
            port: 80,
            policies: vec!["shop/closed".to_owned()],
            rule: None,
            flows: 3,
            first_seconds: 900,
            last_seconds: 990,
        };
        let policy = AuditedPolicyView { kind: "NetworkPolicy".to_owned(), policy: "shop/closed".to_owned() };
        let quiet = PolicyAudit { policies: vec![policy], since_seconds: Some(900), ..PolicyAudit::default() };
        let expected = "in audit mode since 100s ago: shop/closed\n\
                        they would have dropped nothing of what was seen on this node\n";
        assert_eq!(audit(&quiet, 1000), expected);
        let ping = AuditedFlowView { port: 0, protocol: "ICMP".to_owned(), ..flow.clone() };
        let text = audit(&PolicyAudit { flows: vec![flow, ping], left_out: 2, ..quiet }, 1000);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        let words: Vec<_> = lines[2].split_whitespace().collect();
        assert_eq!(words[..6], ["shop/web", "ingress", "192.0.2.1", "80/TCP", "3", "10s"]);
        assert!(lines[2].ends_with("shop/closed  none allows it") && lines[3].contains(" ICMP "), "{text}");
        assert!(lines[4].starts_with("and 2 more"));
    }
}
