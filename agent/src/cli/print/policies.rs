//! The rules of policies, with what they have decided on.

use super::Table;
use crate::admin::PolicyRuleView;

const DAY: u64 = 24 * 60 * 60;

/// Whether a rule has matched nothing since counting began, or for so many days. One that is not counted says nothing, and what no
/// rule allows nobody can delete.
pub(in crate::cli) fn is_stale(rule: &PolicyRuleView, days: u32, now: u64) -> bool {
    let (Some(since), Some(_)) = (rule.since_seconds, rule.rule) else { return false };
    // It may have been counted before, and not in between.
    let quiet_for = now.saturating_sub(rule.last_seconds.unwrap_or(since).max(since));
    match days {
        0 => rule.last_seconds.is_none(),
        days => quiet_for >= u64::from(days) * DAY,
    }
}

/// The list as a table.
pub(in crate::cli) fn policies(rules: &[PolicyRuleView], now: u64, wide: bool) -> String {
    let rule = |rule: &PolicyRuleView| match (rule.rule, rule.name.as_str()) {
        (None, _) => "none".to_owned(),
        (Some(at), "") => at.to_string(),
        (Some(at), name) => format!("{at} {name}"),
    };
    let last = |rule: &PolicyRuleView| rule.last_seconds.map_or_else(|| "never".to_owned(), |last| ago(last, now));
    let since = |rule: &PolicyRuleView| rule.since_seconds.map_or_else(|| "not counted".to_owned(), |at| ago(at, now));
    if !wide {
        let mut out =
            Table::new(["policy", "direction", "rule", "action", "flows", "denied", "last matched", "counted since"]);
        for each in rules {
            let [flows, denied] = [each.flows, each.denied].map(|count| count.to_string());
            let (policy, direction, action) = (each.policy.clone(), each.direction.clone(), each.action.clone());
            out.row([policy, direction, rule(each), action, flows, denied, last(each), since(each)]);
        }
        return out.to_string();
    }
    let mut out = Table::new([
        "policy",
        "tier",
        "direction",
        "rule",
        "action",
        "matches",
        "flows",
        "denied",
        "last matched",
        "counted since",
    ]);
    for each in rules {
        out.row([
            each.policy.clone(),
            each.tier.clone(),
            each.direction.clone(),
            rule(each),
            each.action.clone(),
            each.matches.clone(),
            each.flows.to_string(),
            each.denied.to_string(),
            last(each),
            since(each),
        ]);
    }
    out.to_string()
}

/// How long ago a second was.
pub(super) fn ago(at: u64, now: u64) -> String {
    let seconds = now.saturating_sub(at);
    match seconds {
        0..=119 => format!("{seconds}s ago"),
        120..=7199 => format!("{}m ago", seconds / 60),
        7200..=172_799 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(last_seconds: Option<u64>, since_seconds: Option<u64>) -> PolicyRuleView {
        PolicyRuleView {
            kind: "NetworkPolicy".into(),
            policy: "shop/web".into(),
            tier: "NetworkPolicy".into(),
            direction: "ingress".into(),
            rule: Some(0),
            name: String::new(),
            action: "Accept".into(),
            matches: "everything".into(),
            flows: 7,
            denied: 0,
            last_seconds,
            since_seconds,
        }
    }

    #[test]
    fn p73_a_rule_is_stale_that_has_matched_nothing_for_as_long_as_it_is_counted() {
        let now = 100 * DAY;
        let never = rule(None, Some(now - 10 * DAY));
        assert!(is_stale(&never, 0, now) && is_stale(&never, 10, now) && !is_stale(&never, 11, now));
        let once = rule(Some(now - 3 * DAY), Some(now - 10 * DAY));
        assert!(!is_stale(&once, 0, now) && is_stale(&once, 3, now) && !is_stale(&once, 4, now));
        let anew = rule(Some(now - 9 * DAY), Some(now - 2 * DAY));
        assert!(!is_stale(&anew, 0, now) && is_stale(&anew, 2, now) && !is_stale(&anew, 3, now));
        let none = PolicyRuleView { rule: None, ..never };
        assert!(!is_stale(&none, 0, now) && !is_stale(&none, 1, now));
        let uncounted = rule(None, None);
        assert!(!is_stale(&uncounted, 0, now) && !is_stale(&uncounted, 1, now));
    }

    #[test]
    fn p73_the_list_says_when_a_rule_last_matched_and_since_when_it_is_counted() {
        let items = [rule(Some(990), Some(400)), PolicyRuleView { rule: None, ..rule(None, None) }];
        let text = policies(&items, 1000, false);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split("  ").filter(|word| !word.is_empty()).collect()).collect();
        assert_eq!(
            lines[1].iter().map(|word| word.trim()).collect::<Vec<_>>(),
            ["shop/web", "ingress", "0", "Accept", "7", "0", "10s ago", "10m ago"]
        );
        assert_eq!(
            lines[2].iter().map(|word| word.trim()).collect::<Vec<_>>()[2..],
            ["none", "Accept", "7", "0", "never", "not counted"]
        );
    }
}
