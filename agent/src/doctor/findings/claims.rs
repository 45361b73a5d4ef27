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
            format!("objects claim addresses or ports that are not theirs: {}{more}", named.join("; ")),
            "such claims are not served; they are a mistake, or an attack by someone who can write these objects",
            "correct or delete the objects; `fairlead status` lists all, `fairlead service explain ADDRESS:PORT` \
             shows which object has one",
        ));
    }
    if !pod_ranges.is_empty() {
        found.push(hinders(
            format!("addresses of pods in {} are not checked (setting `podRanges`)", pod_ranges.join(", ")),
            "a compromised node can give its pods addresses of other pods in these ranges, and gets what policies \
             allow those",
            "make the podCIDRs of the Nodes cover the addresses of all pods, and remove the setting",
        ));
    }
    found
}
