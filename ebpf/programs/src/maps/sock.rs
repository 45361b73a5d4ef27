//! What the socket hooks remember.

use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::btf_map;
use fairlead_datapath::catalog;

/// What was done to a socket.
#[btf_map]
pub(crate) static SOCKETS: SkStorage<<catalog::Sockets as catalog::Table>::Value> = SkStorage::new();

/// As whom backends answer a socket.
#[btf_map]
pub(crate) static SENDERS: SkStorage<<catalog::SocketSenders as catalog::Table>::Value> = SkStorage::new();
