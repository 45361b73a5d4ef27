//! What the rules of policies have decided on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use fairlead_objects::{Action, ObjectKey, Rule, Tier};

use super::super::Admin;
use super::super::views::PolicyRuleView;
use crate::compile::policy::{Direction, Draft, Judge, RuleId, RuleIds, SetInfo, World, describe};
use crate::network::Network;
use crate::plan::policy::{Count, CutOff, Ledger};

pub(in crate::admin) fn list(admin: &Admin, pod: Option<&str>) -> Result<Vec<PolicyRuleView>, String> {
    let (ledger, counts) = admin.shared.rule_hits.counts(&admin.tables).map_err(|error| error.to_string())?;
    let model = admin.shared.model();
    let world = World::of(&model, &Network::default());
    let draft = Draft::new(&world);
    let infos = infos(&draft, pod, &admin.shared.progress().cut_off)?;
    let mut listed = Listed {
        world: &world,
        ids: RuleIds::new(&world),
        ledger: &ledger,
        counted: ledger.counted(),
        counts: &counts,
    };
    Ok(listed.rules(&infos))
}

/// What judges the pods of this node, or one of them. The rules of a pod that is cut off are not in force.
fn infos<'a>(draft: &'a Draft<'_>, pod: Option<&str>, cut_off: &[CutOff]) -> Result<Vec<&'a SetInfo>, String> {
    let cut_off: BTreeSet<_> = cut_off.iter().map(|each| (&each.pod, each.slot, each.direction)).collect();
    let mut sets = BTreeSet::new();
    let mut is_there = pod.is_none();
    let wanted = |key: &ObjectKey| pod.is_none_or(|pod| key.to_string() == pod);
    for (slot, each) in draft.pods().iter().filter(|(_, each)| wanted(&each.local.key)) {
        is_there = true;
        sets.extend(each.judges().into_iter().filter_map(|(direction, judge)| match judge {
            Judge::Set(set) => Some(set).filter(|_| !cut_off.contains(&(&each.local.key, *slot, direction))),
            Judge::Pending | Judge::CutOff | Judge::Nobody => None,
        }));
    }
    if !is_there {
        let pod = pod.unwrap_or_default();
        return Err(format!("no pod {pod} on this node: ask on the pod's node, and give NAMESPACE/NAME"));
    }
    Ok(sets.into_iter().map(|set| draft.info(set)).collect())
}

/// What is listed, and from what.
struct Listed<'a> {
    world: &'a World<'a>,
    ids: RuleIds<'a>,
    ledger: &'a Ledger,
    /// The rules that are counted wherever they are in force.
    counted: HashSet<RuleId>,
    counts: &'a HashMap<RuleId, Count>,
}

impl Listed<'_> {
    fn rules(&mut self, infos: &[&SetInfo]) -> Vec<PolicyRuleView> {
        let judging: BTreeSet<(Direction, &ObjectKey)> =
            infos.iter().flat_map(|info| info.policies.iter().map(|policy| (info.direction, policy))).collect();
        let mut by_policy: BTreeMap<&ObjectKey, Vec<Direction>> = BTreeMap::new();
        for (direction, policy) in &judging {
            by_policy.entry(policy).or_default().push(*direction);
        }
        let mut items = Vec::new();
        for (policy, directions) in by_policy {
            for direction in directions {
                if policy.namespace.is_empty() {
                    self.cluster_policy(policy, direction, &mut items);
                } else {
                    self.network_policy(policy, direction, &mut items);
                }
            }
        }
        items
    }

    fn network_policy(&mut self, key: &ObjectKey, direction: Direction, items: &mut Vec<PolicyRuleView>) {
        let Some(policy) = self.world.policies.iter().find(|policy| policy.key == *key) else { return };
        let rules = direction.rules(policy).unwrap_or_default();
        let ids = self.ids.of_policy(false, key, direction).to_vec();
        for (at, (rule, id)) in rules.iter().zip(&ids).enumerate() {
            let view = view(key, Tier::NetworkPolicy, direction, Action::Accept, Some(rule));
            items.push(self.counted(PolicyRuleView { rule: Some(at), ..view }, *id));
        }
        let none = RuleIds::none(direction, key);
        let view = view(key, Tier::NetworkPolicy, direction, Action::Deny, None);
        items.push(self.counted(PolicyRuleView { matches: "what no rule allows".to_owned(), ..view }, none));
    }

    fn cluster_policy(&mut self, key: &ObjectKey, direction: Direction, items: &mut Vec<PolicyRuleView>) {
        let Some(policy) = self.world.cluster_policies.iter().find(|policy| policy.key == *key) else { return };
        let ids = self.ids.of_policy(true, key, direction).to_vec();
        for (at, (rule, id)) in direction.cluster_rules(policy).iter().zip(&ids).enumerate() {
            let view = view(key, policy.tier, direction, rule.action, rule.matches.as_ref());
            let view = PolicyRuleView { rule: Some(at), name: rule.name.clone(), ..view };
            items.push(self.counted(view, *id));
        }
    }

    fn counted(&self, view: PolicyRuleView, id: RuleId) -> PolicyRuleView {
        let Count { flows, denied, last } = self.counts.get(&id).copied().unwrap_or_default();
        let since = self.ledger.saved().since.get(&id).filter(|_| self.counted.contains(&id)).copied();
        PolicyRuleView { flows, denied, last_seconds: last, since_seconds: since, ..view }
    }
}

fn view(policy: &ObjectKey, tier: Tier, direction: Direction, action: Action, rule: Option<&Rule>) -> PolicyRuleView {
    let kind = if tier == Tier::NetworkPolicy { "NetworkPolicy" } else { "ClusterNetworkPolicy" };
    PolicyRuleView {
        kind: kind.to_owned(),
        policy: policy.to_string(),
        tier: tier.to_string(),
        direction: direction.to_string(),
        rule: None,
        name: String::new(),
        action: action.to_string(),
        matches: rule.map_or_else(|| "nothing: the rule can't be read".to_owned(), |rule| describe(rule, direction)),
        flows: 0,
        denied: 0,
        last_seconds: None,
        since_seconds: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::policy::testing::{Cluster, key, rule, tcp};
    use crate::plan::policy::Why;

    #[test]
    fn p73_rules_that_are_not_in_force_are_not_listed() {
        let rules = [rule(&[], &[tcp(80)])];
        let cluster = Cluster::grid().policy("x/in", "pod=a", Some(&rules), None);
        let cluster = cluster.policy("y/in", "pod=a", Some(&rules), None);
        let world = cluster.world();
        let draft = Draft::new(&world);
        let (slot, pod) = draft.pods().iter().find(|(_, pod)| pod.local.key == key("x/a")).unwrap();
        let cut_off = CutOff {
            slot: *slot,
            pod: pod.local.key.clone(),
            uid: String::new(),
            direction: Direction::Ingress,
            policies: vec![key("x/in")],
            why: Why::TooManyRules { rules: 2049, most: 2048 },
        };
        let listed = |pod, cut_off: &[CutOff]| {
            let infos = infos(&draft, pod, cut_off).unwrap();
            infos.iter().flat_map(|info| info.policies.clone()).collect::<BTreeSet<_>>()
        };
        assert_eq!(listed(None, &[]), [key("x/in"), key("y/in")].into());
        assert_eq!(listed(None, std::slice::from_ref(&cut_off)), [key("y/in")].into());
        assert!(listed(Some("x/a"), std::slice::from_ref(&cut_off)).is_empty());
        let other_direction = CutOff { direction: Direction::Egress, ..cut_off };
        assert_eq!(listed(Some("x/a"), &[other_direction]), [key("x/in")].into());
    }
}
