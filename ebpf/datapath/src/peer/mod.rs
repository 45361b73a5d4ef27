//! What the node knows of an address: `peers` (hash by address), `cidrs` (longest prefix), `nodes` (array), `pods` (array).

#[cfg(any(test, feature = "host"))]
mod host;
mod lookup;

#[cfg(any(test, feature = "host"))]
pub use host::HostTables;
pub use lookup::lookup;

pub use crate::tables::peer::*;
