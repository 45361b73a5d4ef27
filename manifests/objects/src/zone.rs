//! What the DNS server of a node tells the node's agent of the cluster's zone, so that the kernel says what it would say.
//!
//! The server connects to a socket of the agent's ([`SOCKET`]) in the directory that both see, and writes lines of JSON
//! ([`Line`]); the agent writes nothing. It begins with all names, goes on with what changes, and says again and again, some times
//! in each [`LEASE`], that all of it holds. So what the agent has is what the server has, in the same order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The name of the socket in the directory that both see.
pub const SOCKET: &str = "zone.sock";

/// Longest line, in bytes, with its end.
pub const LONGEST: usize = 1 << 20;

/// Names in a line, at most: none is longer than 255 bytes.
pub const MOST_NAMES: usize = 256;

/// How long what was said holds.
pub const LEASE: Duration = Duration::from_secs(3);

/// The version of these lines.
pub const VERSION: u32 = 1;

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// All names follow, in any number of lines; what was said before is over.
    Begin(Begin),
    /// Names that exist.
    Names(Vec<Name>),
    /// Names that exist no longer.
    Gone(Vec<String>),
    /// The agent has all of it, as it is now.
    Holds(Holds),
    /// Nobody may answer in its place, for this reason.
    Silent(String),
}

/// Who answers, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The version of these lines.
    pub version: u32,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// The port on which it gets queries.
    pub port: u16,
    /// The zone, as `cluster.local.`.
    pub zone: String,
    /// How long records live, in seconds.
    pub ttl: u32,
    /// How long the SOA lives.
    pub soa_ttl: u32,
    /// Other zones are looked up: the RA flag.
    pub recursion: bool,
}

/// How it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// The SOA's serial.
    pub serial: u32,
    /// Every name that exists was said.
    pub complete: bool,
    /// When that was so: milliseconds of the clock that counts from the node's start (`CLOCK_MONOTONIC`).
    pub at: u64,
}

/// A name and its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The name, in small letters, as `web.default.svc.cluster.local.`.
    #[serde(rename = "n")]
    pub name: String,
    /// What is said of A records.
    #[serde(rename = "a", default)]
    pub v4: Said<Ipv4Addr>,
    /// What is said of AAAA records.
    #[serde(rename = "q", default)]
    pub v6: Said<Ipv6Addr>,
}

/// What is said of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said<T> {
    /// Nothing: the server has to be asked.
    #[default]
    Nothing,
    /// There is none.
    None,
    /// There is this one.
    One(T),
}

impl Line {
    /// The line.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // No map with keys that are no strings, and no custom serializer: there is nothing that fails.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// Reads a line.
    ///
    /// # Errors
    /// It is none of these.
    pub fn decode(line: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        let begin = Begin {
            version: VERSION,
            addresses: vec!["10.244.0.5".parse().unwrap()],
            port: 53,
            zone: "cluster.local.".to_owned(),
            ttl: 5,
            soa_ttl: 5,
            recursion: true,
        };
        let v4 = Said::One([10, 96, 0, 1].into());
        let name = |v4, v6| Name { name: "web.shop.svc.cluster.local.".to_owned(), v4, v6 };
        let lines = [
            Line::Begin(begin),
            Line::Names(vec![name(v4, Said::None), name(Said::Nothing, Said::One("fd00::1".parse().unwrap()))]),
            Line::Gone(vec!["web.shop.svc.cluster.local.".to_owned()]),
            Line::Holds(Holds { serial: 7, complete: true, at: 5000 }),
            Line::Silent("it is draining".to_owned()),
        ];
        for line in lines {
            let text = line.encode();
            assert!(text.ends_with(b"\n") && text.iter().filter(|byte| **byte == b'\n').count() == 1);
            assert_eq!(Line::decode(&text).unwrap(), line);
        }
    }

    #[test]
    fn names_fit_into_a_line() {
        // Four bytes a byte where each is escaped, and a dot; and addresses of both families.
        let name = || Name {
            name: "a".repeat(255 * 5),
            v4: Said::One(Ipv4Addr::BROADCAST),
            v6: Said::One(Ipv6Addr::from([0xab; 16])),
        };
        assert!(Line::Names((0..MOST_NAMES).map(|_| name()).collect()).encode().len() <= LONGEST);
    }
}
