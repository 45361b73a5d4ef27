//! The tables, open.

use std::collections::BTreeMap;

use fairlead_datapath::catalog::TableId;

use super::map::Map;
use super::{BpfError, Definition, PinDir, layouts};

/// Every table that outlives the programs.
#[derive(Debug)]
pub struct Tables {
    maps: BTreeMap<TableId, Map>,
    /// The descriptions of their layouts.
    layouts: BTreeMap<TableId, Map>,
    /// What the one entry of the barrier is set to, again and again.
    inner: Map,
}

impl Tables {
    /// Opens the pinned tables.
    ///
    /// # Errors
    /// A pin is missing.
    pub fn open(definition: &Definition, pins: &PinDir) -> Result<Self, BpfError> {
        let pinned = TableId::ALL.iter().filter_map(|&id| Some((id, pins.table(id)?)));
        let maps: BTreeMap<_, _> =
            pinned.map(|(id, path)| Ok((id, Map::open(&path)?))).collect::<Result<_, BpfError>>()?;
        let described = maps.keys().filter_map(|&id| Some(layouts::describe(pins, id)?.map(|map| (id, map))));
        let layouts = described.collect::<Result<_, BpfError>>()?;
        let name = TableId::Barrier.info().name;
        let inner = definition.inner.get(name).ok_or_else(|| missing(TableId::Barrier))?;
        Ok(Self { maps, layouts, inner: Map::create(&format!("{name}.inner"), *inner)? })
    }

    /// A table.
    ///
    /// # Errors
    /// It is memory of the programs.
    pub fn map(&self, table: TableId) -> Result<&Map, BpfError> {
        self.maps.get(&table).ok_or_else(|| missing(table))
    }

    /// Pins a table again if it has lost its pin. Nothing if there was nothing to do.
    pub(super) fn keep_pin(&self, table: TableId, pins: &PinDir) -> Option<std::io::Result<()>> {
        let (pin, map) = (table.info().pin()?, self.maps.get(&table)?);
        let layout = self.layouts.get(&table).map(|layout| (pins.layout(&pin), layout));
        // Whoever finds a table needs to find what it is.
        let mut lost: Vec<_> =
            layout.into_iter().chain([(pins.map(&pin), map)]).filter(|(path, map)| !map.is_pinned(path)).collect();
        (!lost.is_empty()).then(|| lost.drain(..).try_for_each(|(path, map)| map.pin(&path)))
    }

    /// Every table.
    pub fn iter(&self) -> impl Iterator<Item = &Map> {
        self.maps.values()
    }

    /// Returns when no program is running any more that was running at the call: replacing an entry of a map of maps
    /// waits for that (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c), even by the same inner map. Some milliseconds.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn barrier(&self) -> Result<(), BpfError> {
        self.map(TableId::Barrier)?.update(&0_u32.to_ne_bytes(), &self.inner.as_value(), 1)
    }
}

fn missing(table: TableId) -> BpfError {
    BpfError::Missing { what: "table", name: table.info().name.to_owned() }
}
