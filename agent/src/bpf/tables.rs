//! The maps of the object by name.

use std::collections::BTreeMap;

use super::map::Map;
use super::{BpfError, Definition, PinDir};

/// The map of maps whose update is a grace period.
const BARRIER: &str = "BARRIER";

/// Every map of the object, open.
#[derive(Debug)]
pub struct Tables {
    maps: BTreeMap<String, Map>,
    /// What the one entry of [`BARRIER`] is set to, again and again.
    inner: Option<Map>,
}

impl Tables {
    /// Opens the pinned maps that the object defines.
    ///
    /// # Errors
    /// A pin is missing.
    pub fn open(definition: &Definition, pins: &PinDir) -> Result<Self, BpfError> {
        let maps = definition.maps.keys().map(|name| Ok((name.clone(), Map::open(&pins.map(name))?)));
        let maps = maps.collect::<Result<_, BpfError>>()?;
        let inner = definition.inner.get(BARRIER).map(|&shape| Map::create("BARRIER.inner", shape)).transpose()?;
        Ok(Self { maps, inner })
    }

    /// A map.
    ///
    /// # Errors
    /// The object has none of this name.
    pub fn map(&self, name: &str) -> Result<&Map, BpfError> {
        self.maps.get(name).ok_or_else(|| BpfError::Missing { what: "map", name: name.to_owned() })
    }

    /// Every map.
    pub fn iter(&self) -> impl Iterator<Item = &Map> {
        self.maps.values()
    }

    /// Returns when no program is running any more that was running at the call: replacing an entry of a map of maps
    /// waits for that (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c), even by the same inner map. Some milliseconds.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn barrier(&self) -> Result<(), BpfError> {
        let inner = self.inner.as_ref().ok_or_else(|| BpfError::Missing { what: "map", name: BARRIER.to_owned() })?;
        self.map(BARRIER)?.update(&0_u32.to_ne_bytes(), &inner.as_value(), 1)
    }
}
