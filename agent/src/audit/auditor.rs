//! The policies in force and those in audit mode together, as tables.

use std::collections::BTreeMap;

use fairlead_datapath::peer::{self, PodWord};
use fairlead_datapath::policy::{self, is_closed};
use fairlead_objects::ObjectKey;

use super::Seen;
use crate::compile::policy::{Direction, Draft, Judge, RuleRef, World};
use crate::plan::policy::State;

/// Judges flows as if policies in audit mode were in force.
#[derive(Debug)]
pub struct Auditor {
    tables: State,
    /// The policies in audit mode that select a pod, by its slot and direction.
    selecting: BTreeMap<(u16, Direction), Vec<ObjectKey>>,
}

/// A flow that would be dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The rule that denies it; nothing if no rule of the NetworkPolicies that select the pod allows it.
    pub by: Option<RuleRef>,
    /// The policies in audit mode that select the pod in this direction.
    pub policies: Vec<ObjectKey>,
}

impl Auditor {
    /// Of the policies of a world, those in audit mode among them; nothing where none of these selects a pod of this node.
    #[must_use]
    pub fn of(world: &World<'_>) -> Option<Self> {
        let audited = world.audited();
        if audited.is_empty() {
            return None;
        }
        let draft = Draft::new(world);
        let judges = draft.pods().iter().flat_map(|(slot, pod)| pod.judges().map(|judge| (*slot, judge)));
        let selecting: BTreeMap<_, Vec<_>> = judges
            .filter_map(|(slot, (direction, judge))| {
                let Judge::Set(set) = judge else { return None };
                let policies = draft.info(set).policies.iter().filter(|policy| audited.contains(policy));
                let policies: Vec<_> = policies.cloned().collect();
                (!policies.is_empty()).then_some(((slot, direction), policies))
            })
            .collect();
        if selecting.is_empty() {
            return None;
        }
        let mut tables = State::default();
        let plan = tables.plan(&draft).ok()?;
        plan.ops.iter().for_each(|op| tables.applied(op));
        Some(Self { tables, selecting })
    }

    /// Whether a policy in audit mode selects the pod in a slot in this direction.
    #[must_use]
    pub fn selects(&self, slot: u16, direction: Direction) -> bool {
        self.selecting.contains_key(&(slot, direction))
    }

    /// Judges a flow. Nothing if it would pass, if no policy in audit mode has a say, or if they do not fit.
    #[must_use]
    pub fn judge(&self, seen: &Seen) -> Option<Denied> {
        let policies = self.selecting.get(&(seen.slot, seen.direction))?;
        let content = self.tables.content();
        let word = PodWord(content.peer.pods.get(&seen.slot)?.word);
        let set = match seen.direction {
            Direction::Ingress => word.ingress(),
            Direction::Egress => word.egress(),
        };
        if is_closed(set) {
            return None;
        }
        let class = peer::lookup(&content.peer, seen.peer).class;
        let decision = policy::decide(&content.policy, set, class, seen.proto, seen.port, seen.own, &mut 0);
        if decision.allow() {
            return None;
        }
        let by = self.tables.rule(set, decision.bit).cloned();
        // A policy in force that has come since the flow began is not in question.
        let in_question = by.as_ref().is_none_or(|rule| policies.contains(&rule.policy));
        in_question.then(|| Denied { by, policies: policies.clone() })
    }
}
