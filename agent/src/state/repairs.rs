//! What was found undone and was put right, and what can't be.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::repair::{Broken, Kind, Looked, Repair};

/// Repairs that are kept to be shown.
const KEPT: usize = 16;

/// What is looked at, each by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Programs, their links, and pins. While something of that is wrong the node is not ready.
    Programs,
    /// Links, routes and neighbours of pods.
    Pods,
    /// Routes, neighbours, settings and the tunnel of the node.
    Node,
}

/// Counts and the last repairs.
#[derive(Debug, Default)]
pub struct Repairs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<Kind, u64>,
    last: VecDeque<(Timestamp, Repair)>,
    broken: BTreeMap<Subject, Vec<Broken>>,
}

impl Repairs {
    /// Notes what a look found. Gives what can't be put right and was not known before.
    pub(super) fn note(&self, subject: Subject, looked: &Looked) -> Vec<Broken> {
        let mut state = self.state();
        let now = Timestamp::now();
        for repair in &looked.repaired {
            *state.counts.entry(repair.kind).or_default() += 1;
        }
        for repair in looked.summary() {
            if state.last.len() == KEPT {
                state.last.pop_front();
            }
            state.last.push_back((now, repair));
        }
        let before = state.broken.insert(subject, looked.broken.clone()).unwrap_or_default();
        looked.broken.iter().filter(|broken| !before.contains(broken)).cloned().collect()
    }

    /// Repairs by kind.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Kind, u64> {
        self.state().counts.clone()
    }

    /// The last repairs, the latest first.
    #[must_use]
    pub fn last(&self) -> Vec<(Timestamp, Repair)> {
        self.state().last.iter().rev().cloned().collect()
    }

    /// What is wrong at present with a subject.
    #[must_use]
    pub fn broken(&self, subject: Subject) -> Vec<Broken> {
        self.state().broken.get(&subject).cloned().unwrap_or_default()
    }

    /// What is wrong at present.
    #[must_use]
    pub fn all_broken(&self) -> Vec<Broken> {
        self.state().broken.values().flatten().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Recorder;
    use crate::model::Model;
    use crate::state::Shared;

    fn broken(what: &str) -> Broken {
        Broken { slot: Some(1), what: what.to_owned() }
    }

    #[test]
    fn what_is_broken_is_told_once_and_ends_with_the_next_good_look() {
        let repairs = Repairs::default();
        let looked = |broken: &[Broken]| Looked { repaired: Vec::new(), broken: broken.to_vec() };
        let told = repairs.note(Subject::Programs, &looked(&[broken("a")]));
        assert_eq!(told, [broken("a")]);
        assert_eq!(repairs.note(Subject::Programs, &looked(&[broken("a"), broken("b")])), [broken("b")]);
        assert_eq!(repairs.note(Subject::Pods, &looked(&[])), []);
        assert_eq!(repairs.broken(Subject::Programs).len(), 2, "another subject is another matter");
        repairs.note(Subject::Programs, &Looked::default());
        assert_eq!(repairs.all_broken(), []);
    }

    #[test]
    fn c32_what_was_put_right_and_what_can_not_be_is_said_on_the_node_and_it_is_not_ready_until_it_is_right() {
        let (recorder, mut warnings) = Recorder::channel();
        let shared = Shared::new(Model::new("n1"), None, recorder, Vec::new(), false);
        let mut told = |looked: &Looked| {
            shared.looked(Subject::Programs, looked);
            let said = std::iter::from_fn(|| warnings.try_recv().ok());
            let said =
                said.map(|w| format!("{} {} {} {}", w.kind.as_str(), w.key, w.reason, w.note)).collect::<Vec<_>>();
            (said, shared.repairs.all_broken().len())
        };
        let [program, link] = ["program of a", "link of b"].map(str::to_owned);
        let mut looked = Looked::default();
        looked.note(Kind::ALL[0], Some(1), program, Ok::<(), String>(()));
        let repaired = "Node n1 Repaired changed outside Fairlead, and repaired: program of a".to_owned();
        assert_eq!(told(&looked), (vec![repaired.clone()], 0));
        assert_eq!(told(&looked), (vec![repaired], 0), "again, if it is undone again");
        let mut looked = Looked::default();
        looked.note(Kind::ALL[0], Some(1), link, Err("no"));
        assert_eq!(told(&looked), (vec!["Node n1 NotRepaired can't check or repair link of b: no".to_owned()], 1));
        assert_eq!(told(&looked), (vec![], 1), "it was said, and is so");
        assert_eq!(told(&Looked::default()), (vec![], 0));
    }

    #[test]
    fn repairs_are_counted_by_kind_and_the_last_are_kept() {
        let repairs = Repairs::default();
        let repair = |n: usize| Repair { kind: Kind::ALL[n % 2], what: n.to_string() };
        for n in 0..KEPT + 3 {
            repairs.note(Subject::Pods, &Looked { repaired: vec![repair(n)], broken: Vec::new() });
        }
        let last: Vec<_> = repairs.last().into_iter().map(|(_, repair)| repair).collect();
        assert_eq!(last, (3..KEPT + 3).rev().map(repair).collect::<Vec<_>>());
        assert_eq!(repairs.counts(), [(Kind::ALL[0], 10), (Kind::ALL[1], 9)].into());
    }
}
