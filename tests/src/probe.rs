//! Probes: what one sends, what comes back, and how it can fail.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::proto::Request;

/// TCP, UDP or SCTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP, by a socket of one association (RFC 6458, section 4), which is used as a TCP connection is
    Sctp,
}

/// One attempt to reach a server. TCP and SCTP: connect, read its greeting, exchange a line if a payload was asked for, close.
/// UDP: send one datagram, wait for one answer. Nothing is tried twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub(crate) transport: Transport,
    pub(crate) to: SocketAddr,
    pub(crate) source_ip: Option<IpAddr>,
    pub(crate) source_port: Option<u16>,
    pub(crate) size: usize,
    pub(crate) pad: usize,
    pub(crate) ttl: Option<u32>,
    pub(crate) connected: bool,
    pub(crate) abort: bool,
    pub(crate) timeout: Duration,
}

impl Probe {
    /// A TCP probe.
    #[must_use]
    pub fn tcp(ip: impl Into<IpAddr>, port: u16) -> Self {
        Self::new(Transport::Tcp, SocketAddr::new(ip.into(), port))
    }

    /// A UDP probe through a connected socket, so that it learns of ICMP errors.
    #[must_use]
    pub fn udp(ip: impl Into<IpAddr>, port: u16) -> Self {
        Self::new(Transport::Udp, SocketAddr::new(ip.into(), port))
    }

    /// An SCTP probe, on kernels that have SCTP.
    #[must_use]
    pub fn sctp(ip: impl Into<IpAddr>, port: u16) -> Self {
        Self::new(Transport::Sctp, SocketAddr::new(ip.into(), port))
    }

    /// A probe by any transport.
    #[must_use]
    pub fn new(transport: Transport, to: SocketAddr) -> Self {
        Self {
            transport,
            to,
            source_ip: None,
            source_port: None,
            size: 0,
            pad: 0,
            ttl: None,
            connected: true,
            abort: false,
            timeout: match transport {
                // Below the second after which a SYN is sent again: a connection is made at once or not at all.
                Transport::Tcp => Duration::from_millis(900),
                // Nobody sends a datagram again, and its server may have to wait for a CPU.
                Transport::Udp => Duration::from_secs(4),
                // An INIT is sent again after three seconds.
                Transport::Sctp => Duration::from_secs(2),
            },
        }
    }

    /// From this address.
    #[must_use]
    pub fn source_ip(mut self, ip: impl Into<IpAddr>) -> Self {
        self.source_ip = Some(ip.into());
        self
    }

    /// From this port.
    #[must_use]
    pub fn source_port(mut self, port: u16) -> Self {
        self.source_port = Some(port);
        self
    }

    /// With a payload of this many bytes (at least 2 are sent).
    #[must_use]
    pub fn payload(mut self, bytes: usize) -> Self {
        self.size = bytes;
        self
    }

    /// Asking the server to add this many bytes to its answer.
    #[must_use]
    pub fn answer_payload(mut self, bytes: usize) -> Self {
        self.pad = bytes;
        self
    }

    /// With this TTL or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u32) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// UDP: with `sendto` on a socket that is not connected. It hears of no ICMP error, and of answers from anywhere.
    #[must_use]
    pub fn unconnected(mut self) -> Self {
        self.connected = false;
        self
    }

    /// TCP: end the connection with a reset, so that its port is free at once.
    #[must_use]
    pub fn abort(mut self) -> Self {
        self.abort = true;
        self
    }

    /// How long it may take until the connection is made, or the datagram is answered. What a server says on a connection is
    /// waited for for longer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(crate) fn request(self) -> Request {
        Request::Probe(self)
    }
}

/// What a server says: one line of JSON for each connection, line or datagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The pod, `namespace/name`.
    pub pod: String,
    /// Its node.
    pub node: String,
    /// Whom it sees.
    pub peer: SocketAddr,
    /// The address that it was reached on.
    pub local: SocketAddr,
    /// How many bytes it got.
    pub got: usize,
    /// What it was asked to add.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pad: String,
}

/// An answered probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// What the server said.
    pub server: Identity,
    /// Who the client thinks that it talks to: `getpeername`, or where an unconnected socket's answer came from.
    pub peer: SocketAddr,
    /// The client's own address, by `getsockname`.
    pub local: SocketAddr,
    /// From the first system call to the answer.
    pub took: Duration,
}

/// Why a probe was not answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error, Serialize, Deserialize)]
pub enum ProbeError {
    /// ECONNREFUSED: a reset to a SYN, or ICMP port unreachable.
    #[error("refused")]
    Refused,
    /// Nothing came in time.
    #[error("timed out")]
    TimedOut,
    /// ECONNRESET: the connection was there and is not any more.
    #[error("reset")]
    Reset,
    /// The other side ended the connection before it answered.
    #[error("closed before an answer came")]
    Closed,
    /// EHOSTUNREACH or ENETUNREACH: no route or neighbour, or an ICMP error said so.
    #[error("unreachable")]
    Unreachable,
    /// EPERM or EACCES: a hook, or an ICMP error that says prohibited.
    #[error("not permitted")]
    NotPermitted,
    /// EMSGSIZE: larger than the path takes.
    #[error("message too big")]
    TooBig,
    /// The TTL or hop limit ran out at this router.
    #[error("time to live exceeded at {0}")]
    Expired(IpAddr),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<io::Error> for ProbeError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        match (error.kind(), error.raw_os_error()) {
            (Kind::ConnectionRefused, _) => Self::Refused,
            (Kind::TimedOut | Kind::WouldBlock, _) => Self::TimedOut,
            (Kind::ConnectionReset | Kind::BrokenPipe, _) => Self::Reset,
            (Kind::UnexpectedEof, _) => Self::Closed,
            (Kind::HostUnreachable | Kind::NetworkUnreachable, _) => Self::Unreachable,
            (Kind::PermissionDenied, _) => Self::NotPermitted,
            (_, Some(libc::EMSGSIZE)) => Self::TooBig,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// One ICMP echo request. Routers may not fragment it: IPv4's carry the bit that says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    pub(crate) to: IpAddr,
    pub(crate) size: usize,
    pub(crate) ttl: Option<u32>,
    pub(crate) timeout: Duration,
}

impl Ping {
    /// A ping with 56 bytes of payload.
    #[must_use]
    pub fn new(to: impl Into<IpAddr>) -> Self {
        Self { to: to.into(), size: 56, ttl: None, timeout: Duration::from_millis(900) }
    }

    /// With this many bytes of payload.
    #[must_use]
    pub fn payload(mut self, bytes: usize) -> Self {
        self.size = bytes;
        self
    }

    /// With this TTL or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u32) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How long it may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// An answered ping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// Who answered.
    pub from: IpAddr,
    /// Payload bytes that came back unchanged.
    pub size: usize,
    /// From the request to the answer.
    pub took: Duration,
}
