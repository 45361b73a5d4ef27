//! The counters of rules: made before a set judges anybody, read and taken out when it is gone. What they had counted is kept
//! on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::policy::{HitKey, Hits};
use tracing::warn;
use zerocopy::{FromBytes, IntoBytes};

use crate::bpf::{BpfError, Map, Tables};
use crate::compile::policy::{RuleId, RuleIds, World};
use crate::plan::Op;
use crate::plan::policy::{Changes, Ledger, Saved, State};
use crate::state::{RuleHits, boot, count_of, now};

/// The file in the run directory.
const FILE: &str = "policy-hits";

/// How often the file is written at most while counters go. Beyond that it is written with the next sweep.
const PAUSE: Duration = Duration::from_secs(1);

/// Counters that are made at once. The kernel takes their memory from what it has prepared for each CPU, and says that it has none
/// before it has prepared more (`bpf_mem_alloc`), which a moment later it has.
const AT_ONCE: usize = 64;
const TRIES: u32 = 50;
const AGAIN: Duration = Duration::from_millis(1);

/// How long no counters are made after the kernel had no memory for some: pods wait meanwhile for what changes.
const REST: Duration = Duration::from_secs(60);

/// A counter and its rule.
type Counter = (HitKey, RuleId);

/// Keeps the counters what the sets are.
#[derive(Debug)]
pub(in crate::daemon) struct Counters {
    hits: Arc<RuleHits>,
    file: PathBuf,
    /// What the file has.
    written: Saved,
    when: Option<Instant>,
    /// When counters are made again, after some could not be.
    again: Option<Instant>,
}

impl Counters {
    /// With those that are there. Without tables of an agent before all begin anew, as they do where those can't be read: pods
    /// need no counters.
    pub(in crate::daemon) fn adopt(hits: Arc<RuleHits>, tables: &Tables, adopted: bool, run_dir: &Path) -> Self {
        let file = run_dir.join(FILE);
        let found =
            found(tables).inspect_err(|error| warn!(%error, "can't read the rule counters: counting begins anew"));
        let saved = saved(&file, adopted && found.is_ok());
        let (mut ledger, left) = Ledger::adopt(found.unwrap_or_default(), saved.clone());
        if let Err(error) = delete(&left, tables) {
            warn!(%error, "can't remove the counters of policy rules that are gone");
            ledger.set_folded(left.iter().map(|key| key.set));
        }
        *hits.ledger() = ledger;
        Self { hits, file, written: saved, when: None, again: None }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.hits.ledger().count()
    }

    /// When counters that could not be made are tried again.
    pub(super) fn retry(&self) -> Option<Instant> {
        self.again
    }

    /// Whether counters that could not be made are to be tried again now.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.again.take_if(|again| *again <= now).is_some()
    }

    /// Policies have changed.
    pub(super) fn policies_changed(&self) {
        self.hits.ledger().policies_changed();
    }

    /// Makes counters for the sets that are there and those that operations bring, and takes out those of others. Nothing else
    /// waits for it: where it fails, rules are in force and not counted. Whether any came or went.
    pub(super) fn follow(&mut self, state: &State, ops: &[Op], world: &World<'_>, tables: &Tables) -> bool {
        let hits = Arc::clone(&self.hits);
        let mut ledger = hits.ledger();
        let Changes { gone, new } =
            ledger.plan(&state.sets_with(ops), &mut RuleIds::new(world), self.again.is_none(), now());
        if gone.is_empty() && new.is_empty() {
            return false;
        }
        if let Err(error) = self.fold(&mut ledger, &gone, tables) {
            warn!(%error, "can't remove the counters of policy rules that are gone");
        }
        ledger.unfold(&new);
        if new.iter().any(|(key, _)| self.written.folded.contains(&key.set)) {
            // Its counters are new ones.
            self.write(&ledger);
        }
        if let Err((made, error)) =
            tables.map(TableId::PolicyHits).map_err(|error| (0, error)).and_then(|map| make(&new, map))
        {
            warn!(%error, "can't create counters for policy rules; the rules are in force but not counted");
            let (partly, failed) = unfinished(&new, made);
            if let Err(error) = delete(&partly.iter().map(|(key, _)| *key).collect::<Vec<_>>(), tables) {
                warn!(%error, "can't remove the counters of sets that are not counted");
            }
            ledger.failed(failed, now());
            self.again = Some(Instant::now() + REST);
        }
        true
    }

    /// Read, kept, then taken out: after an agent that is killed in between the next one knows that they are in the numbers.
    fn fold(&mut self, ledger: &mut Ledger, gone: &[Counter], tables: &Tables) -> Result<(), BpfError> {
        if gone.is_empty() {
            return Ok(());
        }
        let (map, boot) = (tables.map(TableId::PolicyHits)?, boot());
        let mut counts = Vec::new();
        for (key, _) in gone {
            counts.extend(map.get(key.as_bytes())?.map(|values| count_of(&values, boot)));
        }
        // Not before all are read: those that stay in the kernel are counted from there by the next agent.
        counts.iter().for_each(|(rule, count)| ledger.fold(*rule, count));
        ledger.set_folded(gone.iter().map(|(key, _)| key.set));
        if self.when.is_none_or(|when| when.elapsed() >= PAUSE) {
            self.write(ledger);
        }
        delete(&gone.iter().map(|(key, _)| *key).collect::<Vec<_>>(), tables)?;
        ledger.set_folded([]);
        Ok(())
    }

    /// Keeps on disk what has changed, and forgets rules that no policy has any more.
    pub(in crate::daemon) fn keep<'a>(&mut self, world: impl FnOnce() -> World<'a>) {
        let hits = Arc::clone(&self.hits);
        let mut ledger = hits.ledger();
        if ledger.forgets() {
            ledger.forget(&mut RuleIds::new(&world()));
        }
        self.write(&ledger);
    }

    fn write(&mut self, ledger: &Ledger) {
        if *ledger.saved() == self.written {
            return;
        }
        self.when = Some(Instant::now());
        let text = match serde_json::to_vec(ledger.saved()) {
            Ok(text) => text,
            Err(error) => return warn!(%error, "can't save the rule counters"),
        };
        match fairlead_files::put(&self.file, &text, 0o600) {
            Ok(_) => self.written = ledger.saved().clone(),
            Err(error) => {
                warn!(%error, "can't save the rule counters: what they have counted may be lost with this agent");
            }
        }
    }
}

/// The counters that are in the kernel, with their rules.
fn found(tables: &Tables) -> Result<Vec<Counter>, BpfError> {
    let mut found = Vec::new();
    tables.map(TableId::PolicyHits)?.for_each(|key, values| {
        found.extend(HitKey::read_from_bytes(key).ok().map(|key| (key, count_of(values, 0).0)));
    })?;
    Ok(found)
}

/// What the file has, if it goes with the counters. Else nobody may find it later: with counters that began anew it would.
fn saved(file: &Path, belongs: bool) -> Saved {
    if belongs {
        return read(file);
    }
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            warn!(%error, file = %file.display(), "can't remove the rule counters of earlier tables");
        }
        _ => {}
    }
    Saved::default()
}

/// What the file has. One that can't be read is as one that is not there: then it is counted anew.
fn read(file: &Path) -> Saved {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Saved::default(),
        Err(error) => {
            warn!(%error, file = %file.display(), "can't read the rule counters: counting begins anew");
            return Saved::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        warn!(%error, file = %file.display(), "can't read the rule counters: counting begins anew");
        Saved::default()
    })
}

fn delete(keys: &[HitKey], tables: &Tables) -> Result<(), BpfError> {
    let bytes: Vec<u8> = keys.iter().flat_map(|key| key.as_bytes().to_vec()).collect();
    tables.map(TableId::PolicyHits)?.delete(&bytes, keys.len())
}

/// Makes counters. Where that fails, those before the place that is returned are there, and perhaps some of those after it.
fn make(new: &[Counter], map: &Map) -> Result<(), (usize, BpfError)> {
    let cpus = map.value_bytes() / size_of::<Hits>();
    in_batches(new, |some| {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (key, rule) in some {
            keys.extend_from_slice(key.as_bytes());
            for _ in 0..cpus {
                values.extend_from_slice(Hits { rule: *rule, ..Hits::default() }.as_bytes());
            }
        }
        map.update(&keys, &values, some.len())
    })
}

fn in_batches(
    new: &[Counter],
    mut update: impl FnMut(&[Counter]) -> Result<(), BpfError>,
) -> Result<(), (usize, BpfError)> {
    for (at, some) in (0..).step_by(AT_ONCE).zip(new.chunks(AT_ONCE)) {
        let mut tries = 0;
        while let Err(error) = update(some) {
            tries += 1;
            if tries == TRIES || !is_short_of_memory(&error) {
                return Err((at, error));
            }
            std::thread::sleep(AGAIN);
        }
    }
    Ok(())
}

/// What may be there of sets that are not whole when this many counters are, and all counters of those sets.
fn unfinished(new: &[Counter], made: usize) -> (&[Counter], &[Counter]) {
    let first = new.get(made).map(|(key, _)| key.set);
    let start = new.iter().position(|(key, _)| Some(key.set) == first).unwrap_or(new.len());
    let end = new.len().min(made + AT_ONCE);
    (new.get(start..end).unwrap_or_default(), new.get(start..).unwrap_or_default())
}

fn is_short_of_memory(error: &BpfError) -> bool {
    matches!(error, BpfError::Map { source, .. } if source.raw_os_error() == Some(libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::policy::Count;

    #[test]
    fn p73_what_was_counted_with_earlier_tables_is_forgotten_for_good() {
        let file = std::env::temp_dir().join(format!("fairlead-hits-{}", std::process::id()));
        let kept = Saved { totals: [(7, Count { flows: 3, ..Count::default() })].into(), ..Saved::default() };
        std::fs::write(&file, serde_json::to_vec(&kept).unwrap()).unwrap();
        assert_eq!(saved(&file, true), kept);
        assert_eq!(saved(&file, false), Saved::default());
        // An agent that is killed before it writes the file leaves nothing to the next one.
        assert_eq!(saved(&file, true), Saved::default());
        assert_eq!(saved(&file, false), Saved::default());
    }

    fn refused(errno: i32) -> BpfError {
        let source = std::io::Error::from_raw_os_error(errno);
        BpfError::Map { what: "update", map: "POLICY_HITS".into(), source, remedy: "" }
    }

    #[test]
    fn p72_memory_that_the_kernel_has_a_moment_later_is_waited_for_and_a_full_table_is_not() {
        let new: Vec<_> = (0..150).map(|bit| (HitKey { set: 7, bit }, 1)).collect();
        let mut asked = Vec::new();
        let mut at = |fails: &dyn Fn(usize) -> Option<i32>| {
            asked.clear();
            let result = in_batches(&new, |some| {
                asked.push(some.len());
                fails(asked.len()).map_or(Ok(()), |errno| Err(refused(errno)))
            });
            (result.map_err(|(made, _)| made), asked.clone())
        };
        assert_eq!(at(&|_| None), (Ok(()), vec![64, 64, 22]));
        assert_eq!(at(&|time| (time < 4).then_some(libc::ENOMEM)), (Ok(()), vec![64, 64, 64, 64, 64, 22]));
        assert_eq!(at(&|time| (time == 2).then_some(libc::E2BIG)), (Err(64), vec![64, 64]));
        let (result, asked) = at(&|_| Some(libc::ENOMEM));
        assert_eq!((result, asked.len()), (Err(0), TRIES as usize));
    }

    #[test]
    fn p72_sets_that_are_not_whole_leave_no_counters() {
        // The first set is whole with the first batch, the second lies in both, the third comes after them.
        let sizes = [(7, 40), (8, 60), (9, 100)];
        let new: Vec<_> =
            sizes.iter().flat_map(|(set, size)| (0..*size).map(|bit| (HitKey { set: *set, bit }, 1))).collect();
        assert_eq!(unfinished(&new, 64), (&new[40..128], &new[40..]));
        assert_eq!(unfinished(&new, 0), (&new[..64], &new[..]));
        assert_eq!(unfinished(&new, 128), (&new[100..192], &new[100..]));
        assert_eq!(unfinished(&[], 0), (&new[..0], &new[..0]));
    }
}
