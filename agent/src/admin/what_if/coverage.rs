//! Whom a comparison is about, and whom it can't be about, in words.

use std::collections::BTreeSet;

use fairlead_objects::ObjectKey;

use crate::admin::PolicyWhatIf;
use crate::compile::policy::what_if::{LeftOut, Places, Selected};

/// Names that are said of many.
const NAMED: usize = 3;

/// Says which pods have no place, and which of the given policies are about none that has.
pub(super) fn say(places: &Places<'_>, selected: &[(String, Selected)], out: &mut PolicyWhatIf) {
    for (why, pods) in places.left_out() {
        out.notes.push(format!("left out: {} {}", count(pods), reason(*why)));
    }
    let unknown = places.in_unknown_namespaces();
    if !unknown.is_empty() {
        out.notes.push(format!(
            "{} in a namespace that is not known, so nothing can select them by its labels: include the Namespace",
            count(&unknown)
        ));
    }
    let all_left_out = places.placed() == 0 && !places.left_out().is_empty();
    if all_left_out {
        out.incomplete.push(
            "the comparison includes no pod, since all are left out: see the notes, and include Nodes with \
             spec.podCIDRs and Pods with status.podIPs, as `kubectl get nodes,namespaces,pods,networkpolicies -A -o \
             yaml` writes them"
                .to_owned(),
        );
    }
    for (policy, selects) in selected {
        match selects {
            Selected { placed: 0, left_out: 0 } => out.notes.push(format!("{policy} selects no pod that is known")),
            Selected { placed: 0, left_out } if !all_left_out => out.incomplete.push(format!(
                "the pods that {policy} selects ({left_out}) are all left out: see the notes, and try again when \
                 their nodes and addresses are known"
            )),
            _ => {}
        }
    }
}

fn reason(why: LeftOut) -> &'static str {
    match why {
        LeftOut::NoAddress => "without an address in status.podIPs",
        LeftOut::NoNode => "on no node, or on an unknown node: include the Nodes",
        LeftOut::NoRange => "on a node without spec.podCIDRs",
        LeftOut::Foreign => "with addresses outside the node's spec.podCIDRs",
        LeftOut::Taken => "with addresses that belong to a node or to another pod",
    }
}

/// How many pods, and the names of some.
fn count(pods: &BTreeSet<&ObjectKey>) -> String {
    let mut names: Vec<String> = pods.iter().take(NAMED).map(ToString::to_string).collect();
    if let Some(more) = pods.len().checked_sub(NAMED).filter(|more| *more > 0) {
        names.push(format!("{more} more"));
    }
    let noun = if pods.len() == 1 { "pod" } else { "pods" };
    format!("{} {noun} ({})", pods.len(), names.join(", "))
}
