//! What the socket hooks remember: `SOCKETS` and `SENDERS`, both socket storage.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr, WirePort};

/// Value of `SOCKETS`: what was done to one socket. It dies with the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SocketMemory {
    /// The service address that it was connected to, or `::`.
    pub service: Addr,
    /// The backend that it was connected to instead.
    pub backend: Addr,
    /// Port of the service.
    pub service_port: WirePort,
    /// Port of the backend.
    pub backend_port: WirePort,
    /// Zero.
    pub pad: u32,
    /// The backend of its last datagram to a service, `id << 32 | generation`, written as one word: two threads may send
    /// at once.
    pub last: u64,
}

/// What the program `list_sockets` says of each socket that has a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListedSocket {
    /// What tells it from every other socket of this boot.
    pub cookie: u64,
    /// Its memory.
    pub memory: SocketMemory,
}

/// Places of one socket in `SENDERS`: backends whose answers it takes for those of services, beside the one that it is
/// connected to.
pub const MAX_SENDERS: usize = 16;

/// Value of `SENDERS`: the backends that one socket sent datagrams to last. It dies with the socket, and no other socket
/// takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Senders {
    /// In no order.
    pub places: [Sender; MAX_SENDERS],
    /// How many there have been: says which place is next.
    pub written: u64,
}

/// A backend, and as whom it answers. Two threads may send by one socket at once, so it is recognised by its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sender {
    /// Check of the rest: [`Sender::is_of`] with [`Sender::KEY`].
    pub tag: u32,
    /// The backend's port.
    pub backend_port: WirePort,
    /// The service's port.
    pub service_port: WirePort,
    /// The backend's address.
    pub backend: Addr,
    /// The service's address.
    pub service: Addr,
}

impl Sender {
    /// Any number but 0, so that a place that was never written is nobody's.
    pub const KEY: u32 = 0x9e37_79b1;
}

super::reused::tagged! { Sender, of 5 words; }
