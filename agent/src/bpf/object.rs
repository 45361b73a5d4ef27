//! The compiled programs: embedded in the binary, or another file for those who develop them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use aya_obj::{EbpfSectionKind, Object};

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

fn shape(map: &aya_obj::Map) -> MapShape {
    MapShape {
        map_type: map.map_type(),
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: map.max_entries(),
        flags: map.map_flags(),
    }
}
