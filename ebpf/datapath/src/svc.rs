//! The node's own device for what it sends to addresses of services itself, where no socket hook has seen the socket: of the
//! kernel, of a process in another cgroup, or raw.
//!
//! The node's routes lead to it, so there is a device whose program sees such packets and no others, whether or not the node
//! has another way for them. What is answered comes back by it: whatever the checks of return paths are, a service's address
//! comes in where the routes to it lead.

use crate::ifindex::IFINDEX_BASE;

/// Its interface index: chosen when it is made, so that no table has to say it.
pub const IFINDEX: u32 = IFINDEX_BASE - 2;

/// That of its other end, by which nothing goes.
pub const PEER_IFINDEX: u32 = IFINDEX_BASE - 3;

/// Its MAC.
pub const MAC: [u8; 6] = *b"\x02flsv\x01";
