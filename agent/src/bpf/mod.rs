//! The eBPF object in the kernel: loading, pinning, attaching, and the maps' content as bytes.
//!
//! Maps and links are pinned, so that traffic flows while no agent runs. A new agent adopts the maps, or reads
//! those of another version into new ones, and replaces each program through its link, without a moment in which none is attached.

mod attach;
mod cgroup;
mod clsact;
mod error;
mod ethtool;
mod filters;
mod fs;
mod kept;
mod later;
mod layouts;
mod links;
mod load;
mod look;
mod map;
mod memory;
mod migrate;
mod mounts;
mod netlink;
mod object;
mod packet_log;
mod pause;
mod sentry;
mod socket_list;
mod survey;
mod sys;
mod tables;
mod xdp;

pub use attach::{Hooks, has_tcx};
pub use cgroup::cgroup2_root;
pub use error::BpfError;
pub use filters::{PodFilters, STAND_IN, remove_filters};
pub use fs::PinDir;
pub use kept::Kept;
pub use later::Linked;
pub use links::detach;
pub use load::{Loaded, ProgramInfo, clear_pause, load, load_without_tcx};
pub use map::{Map, MapShape, TableLayout};
pub use migrate::Migration;
pub use mounts::{MOUNTS, Mount, mounts, watch_mounts};
pub use object::{Definition, ObjectFile};
pub use packet_log::follow as follow_packet_log;
pub use sentry::Sentry;
pub use socket_list::SocketList;
pub use tables::Tables;
pub use xdp::XdpUplink;
