//! The compiled programs: embedded in the binary, or another file for those who develop them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use aya_obj::{EbpfSectionKind, Object};
use fairlead_datapath::catalog::TableId;

use super::{BpfError, MapShape};

/// `cargo xtask ebpf` makes it; it is committed, so that building the agent needs no eBPF toolchain.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../ebpf/fairlead.bpf.o"));

/// Names a file to load instead of the embedded object.
const OVERRIDE: &str = "FAIRLEAD_BPF_OBJECT";

/// An object file.
#[derive(Debug)]
pub struct ObjectFile {
    origin: String,
    bytes: Cow<'static, [u8]>,
}

impl ObjectFile {
    /// The embedded object, or the file that `FAIRLEAD_BPF_OBJECT` names.
    ///
    /// # Errors
    /// That file can't be read.
    pub fn find() -> Result<Self, BpfError> {
        let Some(path) = std::env::var_os(OVERRIDE).map(PathBuf::from) else {
            return Ok(Self { origin: "in this binary".to_owned(), bytes: Cow::Borrowed(EMBEDDED) });
        };
        let origin = format!("{} (from {OVERRIDE})", path.display());
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Self { origin, bytes: Cow::Owned(bytes) }),
            Err(error) => Err(BpfError::Object { origin, reason: error.to_string() }),
        }
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it defines.
    ///
    /// # Errors
    /// It is no eBPF object.
    pub fn definition(&self) -> Result<Definition, BpfError> {
        let object = Object::parse(&self.bytes)
            .map_err(|error| BpfError::Object { origin: self.origin.clone(), reason: error.to_string() })?;
        let maps = object
            .maps
            .iter()
            .filter(|(_, map)| matches!(map.section_kind(), EbpfSectionKind::Maps | EbpfSectionKind::BtfMaps));
        Ok(Definition {
            maps: maps.clone().map(|(name, map)| (name.clone(), shape(map))).collect(),
            inner: maps.filter_map(|(name, map)| Some((name.clone(), shape(&map.inner()?)))).collect(),
        })
    }
}

/// The maps of an object.
#[derive(Debug, Clone, Default)]
pub struct Definition {
    /// Every map but the sections of globals.
    pub maps: BTreeMap<String, MapShape>,
    /// The shape of what a map of maps holds.
    pub inner: BTreeMap<String, MapShape>,
}

impl Definition {
    /// Compares it with the tables that this agent knows.
    ///
    /// # Errors
    /// The object was built from another source: a table is missing, has another shape, or is not known.
    pub fn check(&self) -> Result<(), BpfError> {
        let foreign = |table: &str, reason: String| BpfError::Foreign { table: table.to_owned(), reason };
        for info in TableId::ALL.iter().map(|id| id.info()) {
            let wanted = MapShape::from(info);
            match self.maps.get(info.name) {
                Some(&found) if found == wanted => {}
                Some(found) => return Err(foreign(info.name, format!("{found}, and this agent needs {wanted}"))),
                None => return Err(foreign(info.name, "missing".to_owned())),
            }
        }
        let known = |name: &&String| TableId::ALL.iter().any(|id| id.info().name == *name);
        match self.maps.keys().find(|name| !known(name)) {
            Some(name) => Err(foreign(name, "unknown to this agent".to_owned())),
            None => Ok(()),
        }
    }
}

fn shape(map: &aya_obj::Map) -> MapShape {
    MapShape {
        map_type: map.map_type(),
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: map.max_entries(),
        flags: map.map_flags(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_object_has_the_tables_that_the_agent_knows() {
        let definition = ObjectFile::find().unwrap().definition().unwrap();
        definition.check().unwrap();
    }

    #[test]
    fn an_object_with_other_tables_is_refused_by_name() {
        let good = ObjectFile::find().unwrap().definition().unwrap();
        let refused = |change: &dyn Fn(&mut Definition)| {
            let mut other = good.clone();
            change(&mut other);
            other.check().unwrap_err().to_string()
        };
        let peers = TableId::Peers.info().name;
        for text in [
            refused(&|other| other.maps.retain(|name, _| name != peers)),
            refused(&|other| other.maps.get_mut(peers).unwrap().value_size += 8),
        ] {
            assert!(text.contains(peers) && text.contains("cargo xtask ebpf"), "{text}");
        }
        let more = refused(&|other| other.maps.extend([("MORE".to_owned(), good.maps[peers])]));
        assert!(more.contains("MORE"), "{more}");
    }
}
