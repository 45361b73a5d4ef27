//! What happens to a packet, as a library: the layout of every map and every decision, without a kernel.
//!
//! It compiles for the kernel (`no_std`, inlined into the entry points of `ebpf/programs`) and for the host, so the same
//! code is unit-tested, property-tested and fuzzed. It asks for what only a kernel has (tables, clock, random numbers,
//! packet bytes) through small traits; the programs implement them with maps and helpers, the tests with hash maps.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "host"))]
extern crate std;

#[cfg(target_endian = "big")]
compile_error!("addresses and ports are kept as the wire has them and compared as little-endian words");

#[macro_use]
mod flags;

mod addr;
mod bits;
pub mod catalog;
pub mod dns;
pub mod drop;
pub mod flow;
mod ifindex;
pub mod kernel;
pub mod overlay;
pub mod packet;
pub mod peer;
pub mod policy;
pub mod register;
mod scratch;
pub mod service;
pub mod svc;
pub mod tables;
#[cfg(any(test, feature = "host"))]
pub mod testing;
mod tuple;
pub mod walk;
mod wire;
mod word;

pub use addr::Addr;
pub use ifindex::{IFINDEX_BASE, MAX_PODS, ifindex_of, slot_of};
pub use tables::{bandwidth, config, errors};
pub use tuple::Tuple;
pub use wire::{WirePort, WireV4};
pub use word::{Long, Word};
