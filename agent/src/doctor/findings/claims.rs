//! What objects claim in vain, and what is not checked.

use super::{Finding, hinders};

/// Claims that are named one by one.
const NAMED: usize = 8;

pub(super) fn claims(claims: &[(String, String)], pod_ranges: &[String]) -> Vec<Finding> {
    let mut found = Vec::new();
    if !claims.is_empty() {
        let named: Vec<_> = claims.iter().take(NAMED).map(|(object, why)| format!("{object}: {why}")).collect();
        let more = claims.len().saturating_sub(NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        found.push(hinders(
            format!("objects claim addresses in vain: {}{more}", named.join("; ")),
            "what belongs to somebody else does not count; it is a mistake, or an attack by whoever may write these objects",
            "correct or delete the objects; `fairlead status` lists all, `fairlead service explain ADDRESS:PORT` tells who has one",
        ));
    }
    if !pod_ranges.is_empty() {
        found.push(hinders(
            format!("addresses of pods in {} are not checked (setting `podRanges`)", pod_ranges.join(", ")),
            "a compromised node can give its pods the addresses of others there, and with them what policies allow those",
            "let Nodes' podCIDRs hold the addresses of all pods, and remove the setting",
        ));
    }
    found
}
