//! What the node knows of an address: `peers` (hash by address), `cidrs` (longest prefix), `nodes` (array), `pods` (array),
//! `foreign` (hash by interface) and `host_sides` (array).

#[cfg(any(test, feature = "host"))]
mod host;
mod lookup;
mod side;

#[cfg(any(test, feature = "host"))]
pub use host::HostTables;
pub use lookup::lookup;
pub use side::{is_foreign, side_of, slot_at};

pub use crate::tables::peer::*;
