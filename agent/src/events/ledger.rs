//! Which warnings were written, how often they came since, and whether there is room for more. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Warning;

/// Different warnings that are remembered; beyond that the one that came longest ago is forgotten.
const REMEMBERED: usize = 256;
/// How often a count is written, as upstream's recorder does (`refreshTime` of k8s.io/client-go/tools/events).
const REFRESH: Duration = Duration::from_secs(6 * 60);
/// Requests about one namespace that may come at once, and the time after which there is room for another.
const BURST: u32 = 16;
const REFILL: Duration = Duration::from_secs(5);

/// What is to be done with a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is counted, or there is no room.
    Nothing,
    /// It is new.
    Create,
    /// It was written, and came this often.
    Count(i32),
}

#[derive(Debug)]
struct Entry {
    count: i32,
    seen: Instant,
    written: Instant,
}

/// The memory.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: HashMap<Warning, Entry>,
    /// Requests of each namespace that count against its burst: one that is talked about much keeps no other from it.
    spent: HashMap<String, u32>,
    refilled: Option<Instant>,
}

impl Ledger {
    /// A warning came.
    pub(super) fn step(&mut self, warning: &Warning, now: Instant) -> Step {
        self.refill(now);
        let spent = self.spent.get(&warning.charged).copied().unwrap_or_default();
        let step = match self.entries.get_mut(warning) {
            Some(entry) => {
                entry.count = entry.count.saturating_add(1);
                entry.seen = now;
                if now.duration_since(entry.written) < REFRESH || spent >= BURST {
                    return Step::Nothing;
                }
                entry.written = now;
                Step::Count(entry.count)
            }
            None if spent >= BURST => Step::Nothing,
            None => {
                if self.entries.len() >= REMEMBERED
                    && let Some(oldest) = self.entries.iter().min_by_key(|(_, entry)| entry.seen)
                {
                    let oldest = oldest.0.clone();
                    self.entries.remove(&oldest);
                }
                self.entries.insert(warning.clone(), Entry { count: 1, seen: now, written: now });
                Step::Create
            }
        };
        if step != Step::Nothing {
            self.spent.insert(warning.charged.clone(), spent + 1);
        }
        step
    }

    /// It could not be written: when it comes again it is new.
    pub(super) fn forget(&mut self, warning: &Warning) {
        self.entries.remove(warning);
    }

    fn refill(&mut self, now: Instant) {
        let since = *self.refilled.get_or_insert(now);
        let rooms = u32::try_from(now.duration_since(since).as_secs() / REFILL.as_secs()).unwrap_or(u32::MAX);
        if rooms > 0 {
            self.spent.values_mut().for_each(|spent| *spent = spent.saturating_sub(rooms));
            self.spent.retain(|_, spent| *spent > 0);
            self.refilled = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use fairlead_objects::{Kind, ObjectKey};

    use super::*;
    use crate::events::Scope;

    fn warning(note: usize) -> Warning {
        let key = ObjectKey::new("shop", "cart");
        let (uid, note) = (String::new(), note.to_string());
        let charged = "shop".to_owned();
        Warning { kind: Kind::Service, key, uid, reason: "Reason", note, scope: Scope::Node, charged }
    }

    #[test]
    fn the_same_warning_is_written_once_and_counted_later() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        assert_eq!(ledger.step(&warning(1), start), Step::Create);
        assert_eq!(ledger.step(&warning(1), start + REFRESH / 2), Step::Nothing);
        assert_eq!(ledger.step(&warning(1), start + REFRESH), Step::Count(3));
        assert_eq!(ledger.step(&warning(1), start + REFRESH), Step::Nothing);
        assert_eq!(ledger.step(&warning(2), start), Step::Create);
    }

    #[test]
    fn a_burst_is_cut_off_and_there_is_room_later() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let created = (0..100).filter(|n| ledger.step(&warning(*n), start) == Step::Create).count();
        assert_eq!(created, BURST as usize);
        let victim = Warning { key: ObjectKey::new("bank", "vault"), ..warning(1) };
        assert_eq!(ledger.step(&victim, start), Step::Nothing, "it is about another, at the cost of who is to blame");
        let elsewhere = Warning { charged: "bank".to_owned(), ..victim };
        assert_eq!(ledger.step(&elsewhere, start), Step::Create, "another namespace has its own");
        assert_eq!(ledger.step(&warning(50), start + REFILL), Step::Create);
        assert_eq!(ledger.step(&warning(51), start + REFILL), Step::Nothing);
    }

    #[test]
    fn what_could_not_be_written_is_new_the_next_time() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        assert_eq!(ledger.step(&warning(1), start), Step::Create);
        ledger.forget(&warning(1));
        assert_eq!(ledger.step(&warning(1), start), Step::Create);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut ledger, mut now) = (Ledger::default(), Instant::now());
        for n in 0..2 * REMEMBERED {
            now += REFILL;
            assert_eq!(ledger.step(&warning(n), now), Step::Create);
        }
        assert_eq!(ledger.entries.len(), REMEMBERED);
    }
}
