//! What the socket hooks remember: `SOCKETS` (socket storage) and `SENDERS` (LRU hash).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr, WirePort};

/// Elements of `SENDERS`: pairs of a socket of the host and a backend that it sends datagrams to.
pub const MAX_SENDERS: u32 = 1 << 14;

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

/// Key of `SENDERS`: a datagram from whom, to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SenderKey {
    /// The socket's cookie.
    pub cookie: u64,
    /// The backend's address.
    pub addr: Addr,
    /// The backend's port.
    pub port: WirePort,
    /// Zero.
    pub pad: [u8; 6],
}

impl SenderKey {
    /// A key.
    #[inline(always)]
    #[must_use]
    pub const fn new(cookie: u64, addr: Addr, port: WirePort) -> Self {
        Self { cookie, addr, port, pad: [0; 6] }
    }

    /// What a [`Sender`] carries to be recognised, as [`super::service::FrontendKey::tag`].
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self) -> u32 {
        let socket = (self.cookie ^ self.port.bits() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.addr.tag() ^ (socket >> 32) as u32
    }
}

/// Value of `SENDERS`: as whom the backend answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sender {
    /// Check of its key and content: [`Sender::is_of`].
    pub tag: u32,
    /// The service's port.
    pub port: WirePort,
    /// Zero.
    pub pad: u16,
    /// The service's address.
    pub addr: Addr,
}

super::reused::tagged! { Sender, of 3 words; }
