//! Tables of another version, read into this agent's.
//!
//! 1. Tables of objects, which no program writes, are read while the old programs go on.
//! 2. A [`Pause`]: guards in front of every program. The barrier says when no old program is running any more.
//! 3. Tables of flows are read, and what is counted of them is counted again. Nobody writes them or the new ones, so nothing
//!    can be missed.
//! 4. The new tables get their names, and the old ones lose theirs: counters before flows, so that whoever has to begin again with
//!    flows counts again.
//! 5. The new programs take the place of the old ones, behind the guards, and these go.
//!
//! If anything fails before 4, the guards go, and the old programs go on with their tables. If the agent ends anywhere, its
//! successor begins again, or, from 4 on, finds the new tables.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use aya::Ebpf;
use fairlead_datapath::catalog::{Kind, TableId};
use fairlead_datapath::config::Config;
use fairlead_datapath::flow::{Flow, FlowKey, PodFlows, Table};
use tracing::{info, warn};
use zerocopy::FromBytes as _;

use super::fs::unpin;
use super::map::Map;
use super::pause::{Attached, Pause};
use super::survey::{COUNTED, How, Old};
use super::{BpfError, Definition, PinDir};
use crate::layout::{Converter, Counts, Loss, is_of_flows, loss, recount};

/// Elements that are written at once.
const BATCH: usize = 1024;

/// How often an element is tried again for which the kernel has no memory, and after how long: it takes it from what it has
/// prepared for each CPU, and prepares more meanwhile (`bpf_mem_alloc`).
const TRIES: u32 = 50;
const AGAIN: Duration = Duration::from_millis(1);

/// What became of a table of another version.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Migration {
    /// Its name.
    pub table: &'static str,
    /// Its version.
    pub from: u32,
    /// The version that it has now.
    pub to: u32,
    /// Elements that were taken over.
    pub elements: u64,
    /// Elements for which there was no room, the least used ones where that is known.
    pub no_room: u64,
    /// Elements that can't be said in the new layout.
    pub unreadable: u64,
    /// What is lost, and why, if the table begins empty.
    pub lost: Option<String>,
}

impl Migration {
    /// What was not taken over, and why.
    #[must_use]
    pub fn loss(&self) -> Option<String> {
        let Self { table, from, to, elements, no_room, unreadable, lost } = self;
        let left = no_room + unreadable;
        match lost {
            Some(lost) => Some(format!("{table} of layout {from} could not be taken over: {lost}")),
            None if left == 0 => None,
            None => Some(format!(
                "{table} was taken over from layout {from} to {to} without {left} of {} entries: there was no room for \
                 {no_room}, and {unreadable} can't be said in the new layout",
                elements + left
            )),
        }
    }
}

/// What was done with a table's elements.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    elements: u64,
    no_room: u64,
    unreadable: u64,
}

/// Reads what the survey has found into the tables of loaded programs, and has these take the place of the old ones at every
/// hook of packets.
///
/// # Errors
/// A table can't be read or written, or a program can't be replaced. What was in force still is.
pub(super) fn migrate(
    old: BTreeMap<TableId, Old>,
    ebpf: &Ebpf,
    definition: &Definition,
    pins: &PinDir,
    tcx: bool,
) -> Result<Vec<Migration>, BpfError> {
    if old.is_empty() {
        return Ok(Vec::new());
    }
    let begin = Instant::now();
    let mut tables = Vec::new();
    for (table, old) in old {
        let Some(pin) = table.info().pin() else { continue };
        let new = Map::open(&pins.new_table(&pin))?;
        let mut moved = Moved { table, pin, old, new, tally: Tally::default() };
        if !is_of_flows(table) {
            moved.take_over()?;
        }
        tables.push(moved);
    }
    tables.sort_by_key(|moved| !COUNTED.contains(&moved.table));
    let attached = Attached::find(pins)?;
    let foreign = Map::open(&current(&tables, TableId::Foreign, pins))?;
    let pause = Pause::prepare(&attached, ebpf, tcx)?;
    info!(hooks = pause.hooks(), "packets pause while tables of flows are read");
    let paused = Instant::now();
    // Whatever fails: the pause ends when it is dropped.
    pause.begin()?;
    attached.retire_drivers(ebpf)?;
    flows(&mut tables, definition, pins)?;
    tables.iter().try_for_each(|moved| moved.commit(pins))?;
    attached.replace(ebpf, &foreign);
    pause.end();
    let (hooks, paused) = (pause.hooks(), paused.elapsed());
    drop(pause);
    let migrated: Vec<_> = tables.iter().filter_map(Moved::migration).collect();
    for Migration { table, from, to, elements, .. } in &migrated {
        info!(table, from, to, elements, "table of another version taken over");
    }
    let took = begin.elapsed();
    info!(?took, pause = ?paused, hooks, "packets that came in the pause were dropped (no_program)");
    Ok(migrated)
}

/// A table on its way.
#[derive(Debug)]
struct Moved {
    table: TableId,
    /// The name of its pin.
    pin: String,
    old: Old,
    new: Map,
    tally: Tally,
}

impl Moved {
    /// Reads all of the old table into the new one. Where that can't be and the loss is bearable, it begins empty.
    fn take_over(&mut self) -> Result<(), BpfError> {
        match (take_over(self.table, &self.old, &self.new), loss(self.table)) {
            (Ok(tally), _) => self.tally = tally,
            (Err(error), None) => return Err(error),
            (Err(error), Some(loss)) => {
                warn!(table = self.table.info().name, %error, "a table can't be taken over");
                self.begin_empty(loss, &error);
            }
        }
        Ok(())
    }

    fn begin_empty(&mut self, loss: Loss, error: &BpfError) {
        let mut keys = Vec::new();
        let cleared = self.new.for_each(|key, _| keys.push(key.to_vec()));
        let is_array = matches!(self.table.info().kind, Kind::Array | Kind::PerCpuArray);
        let cleared = cleared.and_then(|()| {
            // Elements of an array can't be removed: what was read of it is right.
            keys.iter().filter(|_| !is_array).try_for_each(|key| self.new.delete(key, 1))
        });
        if let Err(error) = cleared {
            warn!(table = self.table.info().name, %error, "the table has a part of what was there");
        }
        (self.tally, self.old.how) = (Tally::default(), How::Begin(loss, error.to_string()));
    }

    /// Gives the new table its name. The old one loses its own before that: a table under its own name has everything.
    fn commit(&self, pins: &PinDir) -> Result<(), BpfError> {
        let path = pins.map(&self.pin);
        unpin(self.old.path.clone())?;
        self.new.pin(&path).map_err(|source| BpfError::Pin { what: "can't pin the table", path, source })?;
        unpin(pins.new_table(&self.pin))
    }

    /// Nothing of a table that had this agent's version and was counted again.
    fn migration(&self) -> Option<Migration> {
        let info = self.table.info();
        let Tally { elements, no_room, unreadable } = self.tally;
        let lost = match &self.old.how {
            How::Begin(loss, why) => Some(format!("{}, since {why}", loss.what)),
            How::Convert { .. } | How::Count => None,
        };
        let (from, to) = (self.old.version, info.version.unwrap_or_default());
        (from != to).then_some(Migration { table: info.name, from, to, elements, no_room, unreadable, lost })
    }
}

/// Where the table is that this agent's programs have.
fn current(tables: &[Moved], table: TableId, pins: &PinDir) -> PathBuf {
    match tables.iter().find(|moved| moved.table == table) {
        Some(moved) => pins.new_table(&moved.pin),
        None => pins.table(table).unwrap_or_default(),
    }
}

/// Takes over the tables of flows, once no old program is running any more.
fn flows(tables: &mut [Moved], definition: &Definition, pins: &PinDir) -> Result<(), BpfError> {
    barrier(&Map::open(&current(tables, TableId::Barrier, pins))?, definition)?;
    tables.iter_mut().filter(|moved| is_of_flows(moved.table)).try_for_each(Moved::take_over)?;
    let left = |moved: &Moved| is_of_flows(moved.table) && moved.tally.no_room + moved.tally.unreadable > 0;
    let lost = tables.iter().any(left);
    let of = |table| Map::open(&current(tables, table, pins));
    let counts_change = |moved: &Moved| {
        matches!(moved.table, TableId::EstablishedFlows | TableId::OtherFlows) || matches!(moved.old.how, How::Count)
    };
    if tables.iter().any(counts_change) {
        let counted = count_again(&of)?;
        for moved in tables.iter_mut().filter(|moved| matches!(moved.old.how, How::Count)) {
            moved.tally.elements = if moved.table == TableId::FlowCounts { counted[0] } else { counted[1] };
        }
    }
    if lost {
        // Which ports are in use is found out as they are tried.
        let (sets, mut keys) = (Map::open(&current(tables, TableId::PortSets, pins))?, Vec::new());
        sets.for_each(|key, _| keys.push(key.to_vec()))?;
        keys.iter().try_for_each(|key| sets.delete(key, 1))?;
    }
    Ok(())
}

/// Waits until no program is running any more that was running at the call.
fn barrier(map: &Map, definition: &Definition) -> Result<(), BpfError> {
    let name = TableId::Barrier.info().name;
    let missing = || BpfError::Missing { what: "table", name: name.to_owned() };
    let inner = Map::create(name, *definition.inner.get(name).ok_or_else(missing)?)?;
    map.update(&0_u32.to_ne_bytes(), &inner.as_value(), 1)
}

/// Writes what is counted of flows anew, by the flows that there are. Says how many counters of pods and of ports count any.
fn count_again(of: &impl Fn(TableId) -> Result<Map, BpfError>) -> Result<[u64; 2], BpfError> {
    let config = of(TableId::Settings)?.get(&0_u32.to_ne_bytes())?;
    let seed = config.and_then(|config| Config::read_from_bytes(&config).ok()).map_or(0, |config| config.seed);
    let mut counts = Counts::default();
    for (table, id) in [(Table::Established, TableId::EstablishedFlows), (Table::Any, TableId::OtherFlows)] {
        of(id)?.for_each(|key, value| {
            if let (Ok(key), Ok(flow)) = (FlowKey::read_from_bytes(key), Flow::read_from_bytes(value)) {
                recount(&mut counts, seed, table, &key, &flow);
            }
        })?;
    }
    let pods = of(TableId::FlowCounts)?;
    for index in 0..PodFlows::ELEMENTS {
        let counted = u16::try_from(index).ok().and_then(|index| counts.pods.get(&index)).copied().unwrap_or_default();
        let mut value = vec![0; size_of::<PodFlows>()];
        value.iter_mut().zip(counted.iter().flat_map(|count| count.to_ne_bytes())).for_each(|(to, byte)| *to = byte);
        pods.update(&index.to_ne_bytes(), &value, 1)?;
    }
    let shares = of(TableId::PortShares)?;
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for index in 0..shares.shape().max_entries {
        keys.extend(index.to_ne_bytes());
        values.extend(counts.shares.get(&index).copied().unwrap_or_default().to_ne_bytes());
    }
    shares.update(&keys, &values, shares.shape().max_entries as usize)?;
    Ok([counts.pods.len() as u64, counts.shares.len() as u64])
}

/// Reads all of an old table into a new one.
fn take_over(table: TableId, old: &Old, new: &Map) -> Result<Tally, BpfError> {
    let How::Convert { converter, seen } = &old.how else { return Ok(Tally::default()) };
    let mut writer = Writer { table, converter, new, keys: Vec::new(), values: Vec::new(), tally: Tally::default() };
    let least = match seen {
        Some(place) if new.shape().max_entries < old.map.shape().max_entries => {
            least(&old.map, *place, new.shape().max_entries as usize)?
        }
        _ => 0,
    };
    let place = seen.unwrap_or_default();
    let mut result = Ok(());
    old.map.for_each(|key, value| {
        if result.is_ok() && least > 0 && number(value, place) < least {
            writer.tally.no_room += 1;
        } else if result.is_ok() {
            result = writer.add(key, value);
        }
    })?;
    result?;
    writer.flush()?;
    Ok(writer.tally)
}

/// The second of the last use from which on elements are taken over, if there is room for so many. 0: there is for all.
fn least(old: &Map, place: (usize, usize), room: usize) -> Result<u64, BpfError> {
    let mut seen = Vec::new();
    old.for_each(|_, value| seen.push(number(value, place)))?;
    let Some(most) = seen.len().checked_sub(room).filter(|most| *most > 0) else { return Ok(0) };
    Ok(*seen.select_nth_unstable(most).1)
}

/// A number in an element.
fn number(value: &[u8], (offset, size): (usize, usize)) -> u64 {
    let mut word = [0; 8];
    let bytes = value.get(offset..offset + size.min(word.len())).unwrap_or_default();
    word.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
    u64::from_le_bytes(word)
}

/// What writes elements into a new table.
struct Writer<'a> {
    table: TableId,
    converter: &'a Converter,
    new: &'a Map,
    keys: Vec<u8>,
    values: Vec<u8>,
    tally: Tally,
}

impl Writer<'_> {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), BpfError> {
        let info = self.table.info();
        // Every element of an array exists. One of zeros says nothing.
        if matches!(info.kind, Kind::Array | Kind::PerCpuArray) && value.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        if self.convert(key, value).is_none() {
            self.tally.unreadable += 1;
        }
        if self.keys.len() >= BATCH * info.key_size as usize { self.flush() } else { Ok(()) }
    }

    /// `None`, and nothing is written, if it can't be said.
    fn convert(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        if !self.new.shape().per_cpu() {
            let before = (self.keys.len(), self.values.len());
            let (key, value) = self.converter.add((key, value), (&mut self.keys, &mut self.values))?;
            let sealed = Converter::seal(self.table, key, value);
            if sealed.is_none() {
                self.keys.truncate(before.0);
                self.values.truncate(before.1);
            }
            return sealed;
        }
        // One value of each CPU, of multiples of eight bytes.
        let room = (self.table.info().value_size as usize).next_multiple_of(8);
        let cpus = self.new.value_bytes() / room.max(1);
        let (key, mut values) = (self.converter.key(key)?, Vec::with_capacity(self.new.value_bytes()));
        for value in value.chunks_exact((value.len() / cpus.max(1)).max(1)) {
            values.extend(self.converter.value(value)?);
            values.resize(values.len().next_multiple_of(8), 0);
        }
        self.keys.extend(key);
        self.values.extend(values);
        Some(())
    }

    /// Writes what was gathered. Elements for which there is no room are counted.
    fn flush(&mut self) -> Result<(), BpfError> {
        let (keys, values) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.values));
        let (key_size, value_size) = (self.new.shape().key_size as usize, self.new.value_bytes());
        let count = keys.len() / key_size.max(1);
        if count == 0 {
            return Ok(());
        }
        if self.new.update(&keys, &values, count).is_ok() {
            self.tally.elements += count as u64;
            return Ok(());
        }
        for (key, value) in keys.chunks_exact(key_size).zip(values.chunks_exact(value_size)) {
            match write(self.new, key, value) {
                Ok(()) => self.tally.elements += 1,
                Err(BpfError::Map { source, .. }) if is_full(&source) => self.tally.no_room += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Writes an element, again if there is no memory for it at once.
fn write(map: &Map, key: &[u8], value: &[u8]) -> Result<(), BpfError> {
    let is_short =
        |error: &BpfError| matches!(error, BpfError::Map { source, .. } if source.raw_os_error() == Some(libc::ENOMEM));
    let mut tries = 1;
    loop {
        match map.update(key, value, 1) {
            Err(error) if is_short(&error) && tries < TRIES => thread::sleep(AGAIN),
            result => return result,
        }
        tries += 1;
    }
}

/// What the kernel says of a hash that is full, and of an element beyond an array's end.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC))
}
