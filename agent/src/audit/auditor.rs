//! The policies in force and those in audit mode together, as tables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fairlead_datapath::peer::{self, PodWord};
use fairlead_datapath::policy::{self, Decision, NO_BIT, is_closed};
use fairlead_objects::ObjectKey;

use super::{Seen, Texts};
use crate::compile::policy::{Direction, Draft, Judge, RuleRef, World};
use crate::names::Names;
use crate::plan::policy::{State, Teller};

/// Judges flows as if policies in audit mode were in force.
#[derive(Debug)]
pub struct Auditor {
    tables: Compiled,
    /// What is in force alone.
    in_force: Compiled,
    texts: Texts,
    /// The policies in audit mode that select a pod, by its slot and direction.
    selecting: BTreeMap<(u16, Direction), Vec<ObjectKey>>,
}

/// A flow that would be dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The rule that denies it; nothing if no rule of the NetworkPolicies that select the pod allows it.
    pub by: Option<RuleRef>,
    /// The policies in audit mode that deny it: that of the rule, or those of which no rule allows it, with the one that passed it
    /// on to them.
    pub policies: Vec<ObjectKey>,
    /// What that rests on, as [`Texts::text`] says.
    pub text: u64,
}

/// Tables, and who tells them what pods are told by DNS.
#[derive(Debug)]
struct Compiled {
    tables: State,
    teller: Teller,
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
        let in_force = world.in_force();
        let in_force = compiled(&Draft::new(&in_force))?;
        Some(Self { tables: compiled(&draft)?, in_force, texts: Texts::of(world), selecting })
    }

    /// Whether what pods are told by DNS changes what it says.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.tables.teller.has_names() || self.in_force.teller.has_names()
    }

    /// What pods were told of these addresses by DNS has changed. Whether there was room for all of it.
    pub fn tell(&mut self, names: &Names, changed: &BTreeSet<IpAddr>) -> bool {
        let mut has_room = true;
        for Compiled { tables, teller } in [&mut self.tables, &mut self.in_force] {
            let tell = teller.tell(names, changed, false);
            tell.ops.iter().chain(&teller.reclaim()).for_each(|op| tables.applied(op));
            has_room &= tell.left_out.is_empty();
        }
        has_room
    }

    /// Whether a policy in audit mode selects the pod in a slot in this direction.
    #[must_use]
    pub fn selects(&self, slot: u16, direction: Direction) -> bool {
        self.selecting.contains_key(&(slot, direction))
    }

    /// Judges a flow. Nothing if it would pass, if what is in force denies it anyway, if no policy in audit mode has a say, or if
    /// they do not fit.
    #[must_use]
    pub fn judge(&self, seen: &Seen) -> Option<Denied> {
        let audited = self.selecting.get(&(seen.slot, seen.direction))?;
        let (set, decision, passed) = ask(&self.tables.tables, seen)?;
        if decision.allow() {
            return None;
        }
        // One that has come since the flow began: it drops the flow, and nothing is found by those in audit mode.
        if !ask(&self.in_force.tables, seen)?.1.allow() {
            return None;
        }
        let by = self.tables.tables.rule(set, decision.bit).cloned();
        let passed = self.tables.tables.rule(set, passed).map(|rule| &rule.policy);
        let policies: Vec<ObjectKey> = match &by {
            Some(rule) => audited.iter().filter(|policy| **policy == rule.policy).cloned().collect(),
            // No rule of NetworkPolicies allows it. Those of the cluster isolate nobody.
            None => audited.iter().filter(|key| !key.namespace.is_empty() || Some(*key) == passed).cloned().collect(),
        };
        let text = self.texts.text(seen.direction, by.as_ref(), &policies);
        (!policies.is_empty()).then_some(Denied { by, policies, text })
    }
}

fn compiled(draft: &Draft<'_>) -> Option<Compiled> {
    let mut tables = State::default();
    let plan = tables.plan(draft).ok()?;
    plan.ops.iter().for_each(|op| tables.applied(op));
    let mut teller = Teller::default();
    let _nothing = teller.begin(tables.take_view());
    let _nothing = teller.finish();
    Some(Compiled { tables, teller })
}

/// The set that judges a flow, what it says, and the bit of the rule that passed it on. A flow is there, so what a name opened that
/// has ended still counts.
fn ask(tables: &State, seen: &Seen) -> Option<(u32, Decision, u16)> {
    let content = tables.content();
    let word = PodWord(content.peer.pods.get(&seen.slot)?.word);
    let set = match seen.direction {
        Direction::Ingress => word.ingress(),
        Direction::Egress => word.egress(),
    };
    if is_closed(set) {
        return None;
    }
    let class = peer::lookup(&content.peer, seen.peer).known_class();
    let mut passed = u32::from(NO_BIT);
    let decision = policy::decide(&content.policy, set, class, seen.proto, seen.port, seen.own, &mut passed);
    Some((set, decision, u16::try_from(passed).unwrap_or(NO_BIT)))
}
