//! The counters of rules: made before a set judges anybody, read and taken out when it is gone. What they had counted is kept
//! on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::policy::{HitKey, Hits};
use tracing::warn;
use zerocopy::{FromBytes, IntoBytes};

use crate::bpf::{BpfError, Tables};
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

/// Keeps the counters what the sets are.
#[derive(Debug)]
pub(in crate::daemon) struct Counters {
    hits: Arc<RuleHits>,
    file: PathBuf,
    /// What the file has.
    written: Saved,
    when: Option<Instant>,
}

impl Counters {
    /// With those that are there. Without tables of an agent before all begin anew.
    pub(in crate::daemon) fn adopt(
        hits: Arc<RuleHits>,
        tables: &Tables,
        adopted: bool,
        run_dir: &Path,
    ) -> Result<Self, BpfError> {
        let file = run_dir.join(FILE);
        let saved = if adopted { read(&file) } else { Saved::default() };
        let mut found = Vec::new();
        tables.map(TableId::PolicyHits)?.for_each(|key, values| {
            found.extend(HitKey::read_from_bytes(key).ok().map(|key| (key, count_of(values, 0).0)));
        })?;
        let (ledger, left) = Ledger::adopt(found, saved.clone());
        delete(&left, tables)?;
        *hits.ledger() = ledger;
        Ok(Self { hits, file, written: saved, when: None })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.hits.ledger().count()
    }

    /// Policies have changed.
    pub(super) fn policies_changed(&self) {
        self.hits.ledger().policies_changed();
    }

    /// Makes counters for the sets that are there and those that operations bring, and takes out those of others. Nothing else
    /// waits for it: where it fails, rules are in force and not counted.
    pub(super) fn follow(&mut self, state: &State, ops: &[Op], world: &World<'_>, tables: &Tables) {
        let hits = Arc::clone(&self.hits);
        let mut ledger = hits.ledger();
        let Changes { gone, new } = ledger.plan(&state.sets_with(ops), &mut RuleIds::new(world), now());
        if let Err(error) = self.fold(&mut ledger, &gone, tables) {
            warn!(%error, "can't take out the counters of rules that are gone");
        }
        if new.iter().any(|(key, _)| self.written.folded.contains(&key.set)) {
            // Its counters are new ones.
            self.write(&ledger);
        }
        if let Err(error) = make(&new, tables) {
            warn!(%error, "can't make counters of rules: they are in force, and not counted");
            ledger.failed(&new, now());
        }
    }

    /// Read, kept, then taken out: after an agent that is killed in between the next one knows that they are in the numbers.
    fn fold(&mut self, ledger: &mut Ledger, gone: &[(HitKey, RuleId)], tables: &Tables) -> Result<(), BpfError> {
        if gone.is_empty() {
            return Ok(());
        }
        let (map, boot) = (tables.map(TableId::PolicyHits)?, boot());
        for (key, _) in gone {
            if let Some(values) = map.get(key.as_bytes())? {
                let (rule, count) = count_of(&values, boot);
                ledger.fold(rule, &count);
            }
        }
        if self.when.is_none_or(|when| when.elapsed() >= PAUSE) {
            ledger.set_folded(gone);
            self.write(ledger);
            ledger.set_folded(&[]);
        }
        delete(&gone.iter().map(|(key, _)| *key).collect::<Vec<_>>(), tables)
    }

    /// Keeps on disk what has changed, and forgets rules that no policy has any more.
    pub(in crate::daemon) fn keep(&mut self, world: &World<'_>) {
        let hits = Arc::clone(&self.hits);
        let mut ledger = hits.ledger();
        if *ledger.saved() != self.written {
            ledger.forget(&mut RuleIds::new(world));
            self.write(&ledger);
        }
    }

    fn write(&mut self, ledger: &Ledger) {
        self.when = Some(Instant::now());
        if *ledger.saved() == self.written {
            return;
        }
        let text = match serde_json::to_vec(ledger.saved()) {
            Ok(text) => text,
            Err(error) => return warn!(%error, "can't write down what rules have counted"),
        };
        match fairlead_files::put(&self.file, &text, 0o600) {
            Ok(_) => self.written = ledger.saved().clone(),
            Err(error) => warn!(%error, "can't keep what rules have counted: it may be lost with this agent"),
        }
    }
}

/// What the file has. One that can't be read is as one that is not there: then it is counted anew.
fn read(file: &Path) -> Saved {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Saved::default(),
        Err(error) => {
            warn!(%error, file = %file.display(), "can't read what rules have counted: it is counted anew");
            return Saved::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        warn!(%error, file = %file.display(), "can't read what rules have counted: it is counted anew");
        Saved::default()
    })
}

fn delete(keys: &[HitKey], tables: &Tables) -> Result<(), BpfError> {
    let bytes: Vec<u8> = keys.iter().flat_map(|key| key.as_bytes().to_vec()).collect();
    tables.map(TableId::PolicyHits)?.delete(&bytes, keys.len())
}

fn make(new: &[(HitKey, RuleId)], tables: &Tables) -> Result<(), BpfError> {
    if new.is_empty() {
        return Ok(());
    }
    let map = tables.map(TableId::PolicyHits)?;
    let cpus = map.value_bytes() / size_of::<Hits>();
    for some in new.chunks(AT_ONCE) {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (key, rule) in some {
            keys.extend_from_slice(key.as_bytes());
            for _ in 0..cpus {
                values.extend_from_slice(Hits { rule: *rule, ..Hits::default() }.as_bytes());
            }
        }
        let mut tries = 0;
        while let Err(error) = map.update(&keys, &values, some.len()) {
            tries += 1;
            if tries == TRIES {
                return Err(error);
            }
            std::thread::sleep(AGAIN);
        }
    }
    Ok(())
}
