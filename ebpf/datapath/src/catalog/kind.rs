//! Kinds of tables.

/// What a table is to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A hash.
    Hash,
    /// A hash that evicts the least recently used element when it is full.
    LruHash,
    /// An array.
    Array,
    /// A hash with a value for each CPU.
    PerCpuHash,
    /// An array with a value for each CPU.
    PerCpuArray,
    /// A trie that finds the longest prefix.
    LpmTrie,
    /// A ring buffer.
    RingBuffer,
    /// An array of maps.
    ArrayOfMaps,
    /// Memory of sockets.
    SocketStorage,
}

impl Kind {
    /// `enum bpf_map_type` (include/uapi/linux/bpf.h).
    #[must_use]
    pub const fn map_type(self) -> u32 {
        match self {
            Self::Hash => 1,
            Self::Array => 2,
            Self::PerCpuHash => 5,
            Self::PerCpuArray => 6,
            Self::LruHash => 9,
            Self::LpmTrie => 11,
            Self::ArrayOfMaps => 12,
            Self::SocketStorage => 24,
            Self::RingBuffer => 27,
        }
    }

    /// The word for it in documentation.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::LruHash => "LRU hash",
            Self::Array => "array",
            Self::PerCpuHash => "hash per CPU",
            Self::PerCpuArray => "per CPU",
            Self::LpmTrie => "longest prefix",
            Self::RingBuffer => "ring buffer",
            Self::ArrayOfMaps => "map of maps",
            Self::SocketStorage => "socket storage",
        }
    }

    /// What the kernel has as the size of a key or value: nothing of a ring buffer, which has records instead.
    pub(super) const fn size(self, size: usize) -> u32 {
        if matches!(self, Self::RingBuffer) { 0 } else { size as u32 }
    }
}
