//! What the socket hooks remember.

use aya_ebpf::btf_maps::{LruHashMap, SkStorage};
use aya_ebpf::macros::btf_map;
use fairlead_datapath::service::sock::{MAX_SENDERS, Sender, SenderKey, SocketMemory};

/// What was done to a socket.
#[btf_map]
pub(crate) static SOCKETS: SkStorage<SocketMemory> = SkStorage::new();

/// As whom a backend answers a socket.
#[btf_map]
pub(crate) static SENDERS: LruHashMap<SenderKey, Sender, { MAX_SENDERS as usize }> = LruHashMap::new();
