//! The tables in the kernel.

use std::io;

use fairlead_datapath::catalog::TableId;

use super::Store;
use crate::bpf::{BpfError, Tables};

/// Whoever has them writes: the loop, and who tells pods names.
impl Store for &Tables {
    fn put(&mut self, table: TableId, keys: &[u8], values: &[u8], count: usize) -> Result<(), BpfError> {
        self.map(table)?.update(keys, values, count)
    }

    fn delete(&mut self, table: TableId, keys: &[u8], count: usize) -> Result<(), BpfError> {
        self.map(table)?.delete(keys, count)
    }

    /// Reads the value and writes it back with the word changed: of the rest, the same bytes are written over
    /// themselves, since the loop is the only writer of tables of which words are changed.
    fn word(&mut self, table: TableId, key: &[u8], offset: usize, word: u64) -> Result<(), BpfError> {
        let map = self.map(table)?;
        let mut value = map.get(key)?;
        let place = value.as_mut().and_then(|value| value.get_mut(offset..offset + size_of::<u64>()));
        let Some(place) = place else {
            let source = io::Error::new(io::ErrorKind::NotFound, "no such element");
            return Err(BpfError::Map { what: "update of a word", map: map.name().to_owned(), source, remedy: "" });
        };
        place.copy_from_slice(&word.to_ne_bytes());
        map.update(key, value.as_deref().unwrap_or_default(), 1)
    }

    fn barrier(&mut self) -> Result<(), BpfError> {
        Tables::barrier(self)
    }
}
