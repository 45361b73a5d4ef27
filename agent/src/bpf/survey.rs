//! What an agent before has pinned, and how it is taken over.
//!
//! A table of this agent's own version is used as it is. One of another version is read by its layout into a table that is
//! pinned as `new:NAME@VERSION` until it has everything; only then the old pin goes, and after that the new one gets its
//! name ([`super::migrate`]). So wherever an agent ends, the next finds one table that has everything: the one under this
//! agent's name, else the one of another version, else, if that is gone, the new one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fairlead_datapath::catalog::{Kind, TableId, parse_pin};
use tracing::{info, warn};

use super::fs::unpin;
use super::layouts;
use super::map::{Map, MapShape, TableLayout};
use super::{BpfError, PinDir};
use crate::layout::{Converter, Layout, Loss, loss, oldest};

/// The tables that are counted again.
pub(super) const COUNTED: [TableId; 2] = [TableId::FlowCounts, TableId::PortShares];

/// What is pinned.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Whether there is anything.
    pub(super) adopted: bool,
    /// The tables of other versions.
    pub(super) old: BTreeMap<TableId, Old>,
    /// Pins of tables that this agent does not have.
    pub(super) unknown: Vec<String>,
}

/// A table of another version.
#[derive(Debug)]
pub(super) struct Old {
    /// Where it is pinned.
    pub(super) path: PathBuf,
    /// The table.
    pub(super) map: Map,
    /// Its version.
    pub(super) version: u32,
    /// How it is taken over.
    pub(super) how: How,
}

/// How a table is taken over.
#[derive(Debug)]
pub(super) enum How {
    /// Element by element. `seen`: where in an old value the second of its last use is.
    Convert { converter: Box<Converter>, seen: Option<(usize, usize)> },
    /// Not: it is counted again from the flows, since its indices depend on its size, and its numbers on which flows there are.
    Count,
    /// Not: what is lost, and why.
    Begin(Loss, String),
}

impl Survey {
    /// Looks at the pins, and removes what an agent left that did not come to its end.
    ///
    /// # Errors
    /// A table can't be read whose content is needed.
    pub(super) fn of(pins: &PinDir) -> Result<Self, BpfError> {
        let (mut found, mut unknown) = (BTreeMap::<TableId, Found>::new(), Vec::new());
        for pin in pins.maps()? {
            let (name, version) = parse_pin(PinDir::is_new(&pin).unwrap_or(&pin));
            let Some(table) = TableId::named(name).filter(|table| table.info().version.is_some()) else {
                unknown.push(pin);
                continue;
            };
            let found = found.entry(table).or_default();
            match () {
                () if PinDir::is_new(&pin).is_some() => found.new.push(pin),
                () if version == table.info().version => found.own = Some(pin),
                () => found.others.push((version, pin)),
            }
        }
        let mut survey = Self { adopted: !found.is_empty(), unknown, ..Self::default() };
        for (table, found) in found {
            if let Some(old) = found.settle(table, pins)? {
                survey.old.insert(table, old);
            }
        }
        survey.count_anew(pins)?;
        Ok(survey)
    }

    /// Where flows are read into a new table, what is counted of them goes into new tables too, also those of this agent's own
    /// version: the old ones are right for the old flows, wherever the agent ends.
    fn count_anew(&mut self, pins: &PinDir) -> Result<(), BpfError> {
        use TableId as T;
        if [T::EstablishedFlows, T::OtherFlows].iter().chain(&COUNTED).all(|table| !self.old.contains_key(table)) {
            return Ok(());
        }
        for table in COUNTED {
            let own = || Some((pins.table(table)?, table.info().version?));
            if let Some((path, version)) = own().filter(|(path, _)| !self.old.contains_key(&table) && path.exists()) {
                let map = Map::open(&path)?;
                self.old.insert(table, Old { path, map, version, how: How::Count });
            }
        }
        Ok(())
    }

    /// Removes what only another release has: an agent of that release would take it for what it left itself.
    ///
    /// # Errors
    /// A pin can't be removed.
    pub(super) fn forget(unknown: Vec<String>, pins: &PinDir) -> Result<(), BpfError> {
        unknown.into_iter().try_for_each(|pin| {
            info!(pin, "a table that only another release has is removed");
            unpin(pins.map(&pin))
        })
    }

    /// Where the programs' table is pinned when they are loaded.
    pub(super) fn path(&self, table: TableId, pins: &PinDir) -> Option<PathBuf> {
        let pin = table.info().pin()?;
        Some(if self.old.contains_key(&table) { pins.new_table(&pin) } else { pins.map(&pin) })
    }
}

/// The pins of one table.
#[derive(Debug, Default)]
struct Found {
    own: Option<String>,
    others: Vec<(Option<u32>, String)>,
    new: Vec<String>,
}

impl Found {
    /// Leaves the one that has everything.
    fn settle(self, table: TableId, pins: &PinDir) -> Result<Option<Old>, BpfError> {
        let Self { own, mut others, new } = self;
        if let Some(pin) = own {
            let path = pins.map(&pin);
            let map = Map::open(&path)?;
            if map.shape() != table.info().into() {
                let why = "its version is this agent's, and its size is not".to_owned();
                return Err(incompatible(table, path, table.info().version, map.shape(), why));
            }
            for pin in others.iter().map(|(_, pin)| pin).chain(&new) {
                warn!(pin, "a table that nothing uses is still pinned: removed");
                unpin(pins.map(pin))?;
            }
            return Ok(None);
        }
        if others.is_empty() {
            // It has everything: the old pin goes last.
            for pin in new {
                let Some(name) = PinDir::is_new(&pin) else { continue };
                let (path, full) = (pins.map(&pin), pins.map(name));
                let source = |source| BpfError::Pin { what: "can't pin the table", path: full.clone(), source };
                Map::open(&path)?.pin(&full).map_err(source)?;
                unpin(path)?;
                others.push((parse_pin(name).1, name.to_owned()));
            }
            // This agent's own, or another's that ended there.
            if let [(version, _)] = &*others
                && *version == table.info().version
            {
                return Ok(None);
            }
        } else {
            new.into_iter().try_for_each(|pin| unpin(pins.map(&pin)))?;
        }
        // Of several the last one is in use.
        others.sort();
        let Some((version, pin)) = others.pop() else { return Ok(None) };
        for (_, pin) in others {
            warn!(pin, "a table that nothing uses is still pinned: removed");
            unpin(pins.map(&pin))?;
        }
        Old::of(table, version, &pin, pins).map(Some)
    }
}

impl Old {
    fn of(table: TableId, version: Option<u32>, pin: &str, pins: &PinDir) -> Result<Self, BpfError> {
        let path = pins.map(pin);
        let map = Map::open(&path)?;
        if COUNTED.contains(&table) {
            return Ok(Self { path, map, version: version.unwrap_or_default(), how: How::Count });
        }
        let how = match (readable(table, pin, map.shape(), pins), loss(table)) {
            (_, Some(loss)) if loss.always => How::Begin(loss, "the kernel can't fill it".to_owned()),
            (Ok(how), _) => how,
            (Err(why), Some(loss)) => How::Begin(loss, why),
            (Err(why), None) => return Err(incompatible(table, path, version, map.shape(), why)),
        };
        Ok(Self { path, map, version: version.unwrap_or_default(), how })
    }
}

fn incompatible(table: TableId, path: PathBuf, version: Option<u32>, shape: MapShape, why: String) -> BpfError {
    let info = table.info();
    let wanted = Box::new(TableLayout { version: info.version, shape: info.into() });
    BpfError::Incompatible { path, pinned: Box::new(TableLayout { version, shape }), wanted, why }
}

/// How a table is read that has this shape.
fn readable(table: TableId, pin: &str, shape: MapShape, pins: &PinDir) -> Result<How, String> {
    let text = layouts::of(pins, pin).ok_or("nothing says what its fields are")?;
    let from = Layout::parse(&text)?;
    let own = table.info().pin().and_then(|pin| {
        let (name, version) = parse_pin(&pin);
        fairlead_datapath::catalog::recorded(name, version?)
    });
    let to = Layout::parse(own.ok_or("this agent does not know its own layout")?)?;
    let [key_end, value_end] = from.ends();
    let is_it = of_kind(&from.kind) == Some(shape.map_type)
        && (from.elements, from.flags) == (shape.max_entries, shape.flags)
        && key_end <= shape.key_size as usize
        && value_end <= shape.value_size as usize;
    if !is_it {
        return Err("it is not what its layout says".to_owned());
    }
    if from.version < oldest(table) {
        return Err(format!("its fields have other meanings: versions before {} are not read", oldest(table)));
    }
    if shape.per_cpu() != MapShape::from(table.info()).per_cpu() {
        return Err("one of the two has values of each CPU".to_owned());
    }
    let seen = from.value.iter().find(|field| field.name == "value.seen").map(|field| (field.offset, field.size));
    let converter = Converter::new(&from, &to, Converter::blank(table))?;
    Ok(How::Convert { converter: Box::new(converter), seen })
}

/// The type of a map that the catalog calls this. Of those whose elements are read and written one by one.
fn of_kind(name: &str) -> Option<u32> {
    let kinds = [Kind::Hash, Kind::LruHash, Kind::Array, Kind::PerCpuHash, Kind::PerCpuArray, Kind::LpmTrie];
    kinds.into_iter().find(|kind| kind.as_str() == name).map(Kind::map_type)
}
