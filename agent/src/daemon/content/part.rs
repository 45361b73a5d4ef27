//! A planner with its own tables and failures, and the executor that they share.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::attempts::Attempts;
use super::vain::Told;
use crate::apply::{ApplyError, apply};
use crate::bpf::Tables;
use crate::plan::{Op, policy, services};
use fairlead_datapath::catalog::TableId;
use fairlead_objects::ObjectKey;
use fairlead_objects::names::NameRules;

/// How long a table for which the kernel had no room is taken to be as large as it was then.
const FULL: Duration = Duration::from_secs(60);

/// A planner, and how it gets on.
#[derive(Debug)]
pub(super) struct Part<S> {
    pub(super) state: S,
    pub(super) attempts: Attempts,
    /// Tables for which the kernel had no room, with the elements that they had, and until when that is believed.
    pub(super) full: BTreeMap<TableId, usize>,
    pub(super) until: Option<Instant>,
}

impl<S> Part<S> {
    pub(super) fn new(state: S) -> Self {
        Self { state, attempts: Attempts::new(), full: BTreeMap::new(), until: None }
    }

    /// The kernel may have had no room for more in a table, of those whose elements are counted here. What does not fit then is
    /// left out, as it would be of a table of that size, instead of failing again and again.
    pub(super) fn note_full(&mut self, failure: &Failure, elements: &[(TableId, usize)], now: Instant) {
        let Failure::Apply(error) = failure else { return };
        let found = elements.iter().find(|(table, _)| error.full() == Some(table.info().name));
        if let Some((table, elements)) = found.copied() {
            self.full.insert(table, elements);
            self.until = Some(now + FULL);
        }
    }

    /// Takes note of what became of a plan. What failed, if it did: a part of the plan may be in force then, so everything is to
    /// be planned anew, from what the tables hold.
    pub(super) fn done(&mut self, result: Result<(), Failure>, outcome: &mut Outcome, now: Instant) -> Option<Failure> {
        let Err(failure) = result else {
            self.attempts.succeeded();
            outcome.plans += 1;
            return None;
        };
        let text = failure.to_string();
        let pause = self.attempts.failed(text.clone(), now);
        outcome.failed.push((text, pause));
        Some(failure)
    }

    /// There may be room again. Whether that was in doubt.
    pub(super) fn forget_full(&mut self, now: Instant) -> bool {
        let over = self.until.is_some_and(|until| until <= now);
        if over {
            self.full.clear();
            self.until = None;
            self.attempts.again();
        }
        over
    }
}

/// What an update did.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Outcome {
    /// Plans that were executed.
    pub(in crate::daemon) plans: u64,
    /// Operations in them.
    pub(in crate::daemon) operations: u64,
    /// Whether services were planned as a whole.
    pub(in crate::daemon) whole: bool,
    /// Whether services were planned, and the plan is in the tables.
    pub(in crate::daemon) services: bool,
    /// What policies were planned with: who is cut off, and what is left out of full tables.
    pub(in crate::daemon) policy: Option<(Vec<policy::CutOff>, BTreeMap<TableId, usize>)>,
    /// Whose answers concern the policies that are in force.
    pub(in crate::daemon) names: Option<NameRules>,
    /// The services that do not fit, if that changed.
    pub(in crate::daemon) refused: Option<BTreeMap<ObjectKey, services::PlanError>>,
    /// What objects claim in vain, if that changed.
    pub(in crate::daemon) claims: Option<Told>,
    /// What the tables about the node have no room for.
    pub(in crate::daemon) node: Option<Vec<String>>,
    /// What failed, and the pause until it is tried again.
    pub(in crate::daemon) failed: Vec<(String, Duration)>,
}

/// Executes plans, and counts.
pub(super) struct Writer<'a> {
    pub(super) tables: &'a mut Tables,
    pub(super) outcome: &'a mut Outcome,
}

impl Writer<'_> {
    pub(super) fn apply(&mut self, ops: &[Op]) -> Result<(), Failure> {
        apply(&mut &*self.tables, ops)?;
        self.outcome.operations += ops.len() as u64;
        Ok(())
    }
}

/// Why a plan is not in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Policy(#[from] policy::PlanError),
}
