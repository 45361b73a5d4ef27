//! Descriptions of layouts, pinned beside the tables: what a table is, for whoever does not know its version.
//!
//! A description is an array of one element, whose value is the text that the catalog has. It comes to be before its table
//! is pinned under its own name, and lives as long.

use fairlead_datapath::catalog::{TableId, parse_pin, recorded};

use super::fs::unpin;
use super::map::Map;
use super::{BpfError, MapShape, PinDir};

/// `BPF_MAP_TYPE_ARRAY`
const ARRAY: u32 = 2;

/// The one key.
const KEY: [u8; 4] = [0; 4];

/// The layout of a table of this agent.
fn text(table: TableId) -> Option<&'static str> {
    let info = table.info();
    recorded(info.name, info.version?)
}

/// Sees to it that a table of this agent is described: the description, which is pinned. Nothing for memory of the programs.
pub(super) fn describe(pins: &PinDir, table: TableId) -> Option<Result<Map, BpfError>> {
    let (pin, text) = (table.info().pin()?, text(table)?);
    Some(pinned(pins, &pin, text))
}

fn pinned(pins: &PinDir, pin: &str, text: &str) -> Result<Map, BpfError> {
    let path = pins.layout(pin);
    if let Some(map) = Map::open(&path).ok().filter(|map| read(map).as_deref() == Some(text)) {
        return Ok(map);
    }
    let value_size = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let shape = MapShape { map_type: ARRAY, key_size: 4, value_size, max_entries: 1, flags: 0 };
    let map = Map::create(&format!("layout of {pin}"), shape)?;
    map.update(&KEY, text.as_bytes(), 1)?;
    map.pin(&path).map_err(|source| BpfError::Pin { what: "can't pin the layout", path, source })?;
    Ok(map)
}

fn read(map: &Map) -> Option<String> {
    String::from_utf8(map.get(&KEY).ok()??).ok()
}

/// The layout of a pinned table: as it is described beside it, or, of versions that described nothing, as the catalog has
/// it. Nothing if neither knows.
pub(super) fn of(pins: &PinDir, pin: &str) -> Option<String> {
    let described = Map::open(&pins.layout(pin)).ok().and_then(|map| read(&map));
    let (name, version) = parse_pin(pin);
    described.or_else(|| recorded(name, version?).map(str::to_owned))
}

/// Removes descriptions of tables that are not pinned any more.
pub(super) fn remove_orphans(pins: &PinDir) -> Result<(), BpfError> {
    let tables = pins.maps()?;
    let is_there = |pin: &String| tables.iter().any(|table| PinDir::is_new(table).unwrap_or(table) == pin);
    pins.layouts()?.iter().filter(|pin| !is_there(pin)).try_for_each(|pin| unpin(pins.layout(pin)))
}
