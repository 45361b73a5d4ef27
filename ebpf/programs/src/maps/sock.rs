//! What the socket hooks remember.

use aya_ebpf::btf_maps::{LruHashMap, SkStorage};
use aya_ebpf::macros::btf_map;
use fairlead_datapath::catalog;

/// What was done to a socket.
#[btf_map]
pub(crate) static SOCKETS: SkStorage<<catalog::Sockets as catalog::Table>::Value> = SkStorage::new();

/// As whom a backend answers a socket.
#[btf_map]
pub(crate) static SENDERS: map_of!(LruHashMap, Senders) = LruHashMap::new();
