//! What policies in audit mode say, so that what was found with other words is told from what they say now.

use std::collections::HashMap;

use fairlead_objects::ObjectKey;

use crate::compile::policy::{Direction, RuleId, RuleIds, RuleRef, World, content_hash};

/// The rules of policies in audit mode, by their ids.
#[derive(Debug, Clone, Default)]
pub struct Texts(HashMap<(ObjectKey, Direction), Vec<RuleId>>);

impl Texts {
    /// Of the policies of a world.
    #[must_use]
    pub fn of(world: &World<'_>) -> Self {
        let mut ids = RuleIds::new(world);
        let mut texts = HashMap::new();
        for key in world.audited() {
            for direction in [Direction::Ingress, Direction::Egress] {
                let rules = ids.of_policy(key.namespace.is_empty(), key, direction).to_vec();
                texts.insert((key.clone(), direction), rules);
            }
        }
        Self(texts)
    }

    /// What a finding rests on: the rule that denies and its place, or all rules of the policies of which none allows. It is never 0.
    #[must_use]
    pub fn text(&self, direction: Direction, by: Option<&RuleRef>, policies: &[ObjectKey]) -> u64 {
        let rules = |policy: &ObjectKey| self.0.get(&(policy.clone(), direction));
        let text = match by {
            Some(rule) => content_hash(&(rule.index, rules(&rule.policy).and_then(|rules| rules.get(rule.index)))),
            None => content_hash(&policies.iter().map(|policy| (policy, rules(policy))).collect::<Vec<_>>()),
        };
        text.max(1)
    }
}
