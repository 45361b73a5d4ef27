//! How the server speaks: over what, with which flags, and how long messages may be.

use crate::wire::MIN_UDP;

/// What a message came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram each way.
    Udp,
    /// A stream, where a message may have 65535 bytes.
    Tcp,
    /// A request and a response of HTTP, which may be as long.
    Https,
}

impl Transport {
    /// Its name in metrics and in the query log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Https => "https",
        }
    }
}

/// What every tier must know about the server that it speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Other zones are looked up: the RA flag.
    pub recursion: bool,
    /// The longest UDP message that is sent, whatever the client takes.
    pub max_udp: u16,
}

impl Manner {
    /// The longest UDP message for a client that says what it takes in an OPT record, or has none.
    #[must_use]
    pub fn udp_limit(&self, client: Option<u16>) -> usize {
        usize::from(client.unwrap_or(MIN_UDP).max(MIN_UDP).min(self.max_udp.max(MIN_UDP)))
    }

    /// The longest message for a client.
    #[must_use]
    pub fn limit(&self, transport: Transport, client: Option<u16>) -> usize {
        match transport {
            Transport::Udp => self.udp_limit(client),
            Transport::Tcp | Transport::Https => usize::from(u16::MAX),
        }
    }
}
