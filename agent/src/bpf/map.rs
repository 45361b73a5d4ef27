//! One map, as bytes.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use fairlead_datapath::catalog::{TableInfo, parse_pin};

use super::{BpfError, sys};

/// Elements that one batch reads or writes.
const BATCH: usize = 1024;

/// Bytes of values that one batch reads, if so many elements would be more.
const BATCH_BYTES: usize = 256 * 1024;

/// What must be the same for two versions of the agent to share a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapShape {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value (of one CPU, in per-CPU maps).
    pub value_size: u32,
    /// Elements.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
}

impl MapShape {
    /// Names of `enum bpf_map_type` (include/uapi/linux/bpf.h), for messages.
    fn type_name(self) -> &'static str {
        match self.map_type {
            1 => "a hash",
            2 => "an array",
            5 => "a per-CPU hash",
            6 => "a per-CPU array",
            9 => "an LRU hash",
            11 => "an LPM trie",
            12 => "an array of maps",
            13 => "a hash of maps",
            24 => "socket storage",
            27 => "a ring buffer",
            _ => "a map of a different type",
        }
    }

    /// Whether its values are one for each CPU.
    pub(super) fn per_cpu(self) -> bool {
        matches!(self.map_type, 5 | 6 | 10)
    }
}

impl fmt::Display for MapShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { map_type: _, key_size, value_size, max_entries, flags } = self;
        let name = self.type_name();
        write!(f, "{name} of {max_entries} (keys of {key_size} bytes, values of {value_size}, flags {flags:#x})")
    }
}

impl From<TableInfo> for MapShape {
    fn from(info: TableInfo) -> Self {
        let TableInfo { name: _, kind, key_size, value_size, elements, flags, version: _ } = info;
        Self { map_type: kind.map_type(), key_size, value_size, max_entries: elements, flags }
    }
}

/// What must be the same for two versions of the agent to share a table: its shape, and the version of what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableLayout {
    /// The version. `None`: a pin's name says none that can be read.
    pub version: Option<u32>,
    /// The shape.
    pub shape: MapShape,
}

impl fmt::Display for TableLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "layout {version}, {}", self.shape),
            None => write!(f, "an unknown layout, {}", self.shape),
        }
    }
}

/// An open map. Its shape is the kernel's word, not the object's, so every buffer has the size that the kernel uses.
#[derive(Debug)]
pub struct Map {
    name: String,
    fd: OwnedFd,
    shape: MapShape,
}

impl Map {
    /// Opens a pinned map.
    ///
    /// # Errors
    /// There is no such pin, or it is no map.
    pub fn open(path: &Path) -> Result<Self, BpfError> {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let name = parse_pin(&name).0.to_owned();
        let pin = |source| BpfError::Pin { what: "can't open the pinned map", path: path.into(), source };
        Self::new(name, sys::obj_get(path).map_err(pin)?)
    }

    /// Makes a map that is pinned nowhere.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn create(name: &str, shape: MapShape) -> Result<Self, BpfError> {
        let MapShape { map_type, key_size, value_size, max_entries, flags } = shape;
        let info = sys::MapInfo { map_type, id: 0, key_size, value_size, max_entries, map_flags: flags };
        let fd = sys::map_create(&info).map_err(|source| failed("creation", name, source))?;
        Ok(Self { name: name.to_owned(), fd, shape })
    }

    fn new(name: String, fd: OwnedFd) -> Result<Self, BpfError> {
        let info = sys::map_info(fd.as_fd()).map_err(|source| failed("description", &name, source))?;
        let sys::MapInfo { map_type, id: _, key_size, value_size, max_entries, map_flags: flags } = info;
        Ok(Self { name, fd, shape: MapShape { map_type, key_size, value_size, max_entries, flags } })
    }

    /// Whether it is what is pinned there.
    pub(super) fn is_pinned(&self, path: &Path) -> bool {
        let id = |fd: BorrowedFd<'_>| sys::map_info(fd).map(|info| info.id);
        let pinned = sys::obj_get(path);
        pinned.is_ok_and(|pinned| matches!((id(pinned.as_fd()), id(self.fd.as_fd())), (Ok(a), Ok(b)) if a == b))
    }

    /// Pins it, in place of whatever is there.
    pub(super) fn pin(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        sys::obj_pin(self.fd.as_fd(), path)
    }

    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> MapShape {
        self.shape
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn key_size(&self) -> usize {
        self.shape.key_size as usize
    }

    /// Bytes of a value in a system call: of per-CPU maps, those of all possible CPUs.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        self.value_size()
    }

    /// Bytes of a value in a system call.
    fn value_size(&self) -> usize {
        let size = self.shape.value_size as usize;
        if self.shape.per_cpu() { size.next_multiple_of(8) * possible_cpus() } else { size }
    }

    /// An error unless the buffer holds `count` pieces of `size` bytes.
    fn sized(&self, what: &'static str, buffer: &[u8], size: usize, count: usize) -> Result<(), BpfError> {
        if size.checked_mul(count) == Some(buffer.len()) {
            return Ok(());
        }
        let text = format!("{} bytes given where the map takes {count} times {size}", buffer.len());
        Err(failed(what, &self.name, io::Error::new(io::ErrorKind::InvalidInput, text)))
    }

    /// A value, or `None` where there is none. Of per-CPU maps, the values of all possible CPUs, each of a multiple of
    /// eight bytes.
    ///
    /// # Errors
    /// The key has another size than the map's, or the kernel refuses.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BpfError> {
        self.sized("lookup", key, self.key_size(), 1)?;
        let mut value = vec![0; self.value_size()];
        #[expect(unsafe_code, reason = "see sys")]
        // SAFETY: the key's size was checked, and the value has the size that the kernel uses.
        let result = unsafe { sys::map_lookup(self.fd.as_fd(), key, &mut value) };
        match result {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(source) => Err(failed("lookup", &self.name, source)),
        }
    }

    /// Writes elements: keys one after the other, values likewise.
    ///
    /// # Errors
    /// A size is not the map's, the map is full, or the kernel refuses. What comes before the failing element is written.
    pub fn update(&self, keys: &[u8], values: &[u8], count: usize) -> Result<(), BpfError> {
        self.sized("update", keys, self.key_size(), count)?;
        self.sized("update", values, self.value_size(), count)?;
        let keys = keys.chunks(self.key_size().max(1) * BATCH);
        let values = values.chunks(self.value_size().max(1) * BATCH);
        keys.zip(values).try_for_each(|(keys, values)| self.update_some(keys, values))
    }

    fn update_some(&self, keys: &[u8], values: &[u8]) -> Result<(), BpfError> {
        let (key_size, value_size) = (self.key_size(), self.value_size());
        let count = keys.len() / key_size.max(1);
        if count > 1 {
            #[expect(unsafe_code, reason = "see sys")]
            // SAFETY: both hold `count` pieces: `update` checked and `chunks` cut at multiples.
            let (result, done) = unsafe { sys::map_update_batch(self.fd.as_fd(), keys, values, count as u32) };
            match result {
                Ok(()) => return Ok(()),
                // A kernel or map type without batches (ENOTSUPP is 524 and has no name in libc).
                Err(e) if done == 0 || matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | 524)) => {}
                Err(source) => return Err(failed("update", &self.name, source)),
            }
        }
        for (key, value) in keys.chunks_exact(key_size).zip(values.chunks_exact(value_size)) {
            #[expect(unsafe_code, reason = "see sys")]
            // SAFETY: both have the size that the kernel uses.
            let result = unsafe { sys::map_update(self.fd.as_fd(), key, value) };
            result.map_err(|source| failed("update", &self.name, source))?;
        }
        Ok(())
    }

    /// Deletes elements. One that is not there is no error.
    ///
    /// # Errors
    /// A size is not the map's, or the kernel refuses.
    pub fn delete(&self, keys: &[u8], count: usize) -> Result<(), BpfError> {
        self.sized("deletion", keys, self.key_size(), count)?;
        let mut rest = keys;
        while !rest.is_empty() {
            let now = rest.len().min(self.key_size() * BATCH);
            let (batch, _) = rest.split_at(now);
            let count = (now / self.key_size()) as u32;
            #[expect(unsafe_code, reason = "see sys")]
            // SAFETY: `batch` holds `count` keys.
            let (result, done) = unsafe { sys::map_delete_batch(self.fd.as_fd(), batch, count) };
            let skip = if result.is_ok() {
                count as usize
            } else {
                // The element after the last deleted one is missing; or batches are, and the count means nothing.
                let missing = result.is_err_and(|e| e.raw_os_error() == Some(libc::ENOENT));
                let done = if missing { done.min(count.saturating_sub(1)) as usize } else { 0 };
                if let Some(key) = rest.get(done * self.key_size()..(done + 1) * self.key_size()) {
                    self.delete_one(key)?;
                }
                done + 1
            };
            rest = rest.get(skip * self.key_size()..).unwrap_or_default();
        }
        Ok(())
    }

    fn delete_one(&self, key: &[u8]) -> Result<(), BpfError> {
        #[expect(unsafe_code, reason = "see sys")]
        // SAFETY: the key has the map's size.
        let result = unsafe { sys::map_delete(self.fd.as_fd(), key) };
        match result {
            Err(source) if source.raw_os_error() != Some(libc::ENOENT) => Err(failed("deletion", &self.name, source)),
            _ => Ok(()),
        }
    }

    /// Hands every element to `each`, in no order. What changes meanwhile may be seen or not, or twice.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn for_each(&self, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), BpfError> {
        let (key_size, value_size) = (self.key_size(), self.value_size());
        let mut room = BATCH.min((BATCH_BYTES / value_size.max(1)).max(1));
        let mut position: Option<Vec<u8>> = None;
        let mut next = vec![0; key_size.max(4)];
        loop {
            let (mut keys, mut values) = (vec![0; key_size * room], vec![0; value_size * room]);
            #[expect(unsafe_code, reason = "see sys")]
            // SAFETY: the buffers have room for `room` elements and for a position.
            let (result, count) = unsafe {
                sys::map_lookup_batch(
                    self.fd.as_fd(),
                    position.as_deref(),
                    &mut next,
                    &mut keys,
                    &mut values,
                    room as u32,
                )
            };
            let end = match result {
                Ok(()) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                // One bucket of the hash holds more than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room < 1 << 20 => {
                    room *= 2;
                    continue;
                }
                Err(source) => return Err(failed("reading", &self.name, source)),
            };
            let found = (count as usize).min(room);
            for (key, value) in keys.chunks_exact(key_size).zip(values.chunks_exact(value_size)).take(found) {
                each(key, value);
            }
            if end {
                return Ok(());
            }
            position = Some(next.clone());
        }
    }

    /// The descriptor as a map of maps takes it for a value.
    pub(super) fn as_value(&self) -> [u8; 4] {
        self.fd.as_raw_fd().to_ne_bytes()
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn failed(what: &'static str, map: &str, source: io::Error) -> BpfError {
    let remedy = match source.raw_os_error() {
        Some(libc::E2BIG | libc::ENOSPC) => "; the map is full: see `fairlead status` for its size",
        Some(libc::EPERM | libc::EACCES) => "; run the agent as root (CAP_BPF, CAP_NET_ADMIN)",
        Some(libc::ENOMEM) => "; the node is out of memory",
        _ => "",
    };
    BpfError::Map { what, map: map.to_owned(), source, remedy }
}

fn possible_cpus() -> usize {
    aya::util::nr_cpus().unwrap_or(1)
}
