//! A planner with its own tables and failures, and the executor that they share.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::attempts::Attempts;
use super::vain::Told;
use crate::apply::{ApplyError, apply};
use crate::bpf::{BpfError, Tables};
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
    /// What failed last, if the tables have not been read since: then the state is not what they hold.
    unread: Option<Failure>,
}

impl<S> Part<S> {
    pub(super) fn new(state: S) -> Self {
        Self { state, attempts: Attempts::new(), full: BTreeMap::new(), until: None, unread: None }
    }

    /// Has the state be what the tables hold, if a plan has failed since it was: a part of that may be in force. Nothing is planned
    /// from another state: it would give ids out that are in use.
    ///
    /// # Errors
    /// They can't be read. Then this is to be tried again before the next plan.
    pub(super) fn read_back(
        &mut self,
        read: impl FnOnce(&mut Self, &Failure) -> Result<S, Failure>,
    ) -> Result<(), Failure> {
        let Some(failure) = self.unread.take() else { return Ok(()) };
        match read(self, &failure) {
            Ok(state) => {
                self.state = state;
                Ok(())
            }
            Err(error) => {
                self.unread = Some(failure);
                Err(error)
            }
        }
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

    /// Takes note of what became of a plan. Whether it is in force; else a part of it may be, so everything is to be planned anew,
    /// from what the tables hold ([`Part::read_back`]).
    pub(super) fn done(&mut self, result: Result<(), Failure>, outcome: &mut Outcome, now: Instant) -> bool {
        let Err(failure) = result else {
            self.attempts.succeeded();
            outcome.plans += 1;
            return true;
        };
        let text = failure.to_string();
        let pause = self.attempts.failed(text.clone(), now);
        outcome.failed.push((text, pause));
        // What failed before it is still to be made up for.
        self.unread.get_or_insert(failure);
        false
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
    #[error("can't read the tables back after a failure: {0}")]
    Read(#[from] BpfError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Failure {
        Failure::Read(BpfError::NoCgroup2 { below: "/".into() })
    }

    #[test]
    fn nothing_is_planned_from_a_state_that_the_tables_may_not_hold() {
        let (mut part, mut outcome, now) = (Part::new("planned"), Outcome::default(), Instant::now());
        part.read_back(|_, _| panic!("nothing has failed")).unwrap();
        assert!(part.done(Ok(()), &mut outcome, now));
        assert!(!part.done(Err(failure()), &mut outcome, now));
        // As often as it takes.
        for _ in 0..2 {
            let error = part.read_back(|_, _| Err(failure())).unwrap_err();
            assert!(!part.done(Err(error), &mut outcome, now) && !part.attempts.is_settled());
        }
        part.read_back(|_, _| Ok("held")).unwrap();
        assert_eq!(part.state, "held");
        part.read_back(|_, _| panic!("it is known")).unwrap();
        assert!(part.done(Ok(()), &mut outcome, now) && part.attempts.is_settled());
    }
}
