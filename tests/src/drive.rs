//! Load that is exact: short connections at a pace that does not wait for their answers, or many that stay, and the server
//! that both need. One thread does it all, so that a thousand connections a second say something about the network and not
//! about threads.
//!
//! [`crate::Load`] is what an application would do; this is for the translation of addresses under pressure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::link::Link;
use crate::proto::Request;
use crate::vantage::{Vantage, lab_works};

/// How an exchange with a [`Sink`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// TCP: the server closes, and remembers the connection for a minute.
    ServerCloses,
    /// TCP: the client closes once it has its answer.
    ClientCloses,
    /// TCP: the client resets the connection once it has its answer.
    Reset,
    /// UDP: one question and its answer, from a socket of its own.
    Datagram,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ServerCloses, Self::ClientCloses, Self::Reset, Self::Datagram];
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServerCloses => "TCP, server closes",
            Self::ClientCloses => "TCP, client closes",
            Self::Reset => "TCP, reset",
            Self::Datagram => "UDP",
        })
    }
}

/// Short exchanges with a [`Sink`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Drive {
    /// The server's address, or one that leads to it.
    pub to: SocketAddr,
    /// How each ends.
    pub ending: Ending,
    /// How many begin in a second, whatever becomes of those before; 0: as many as are answered.
    pub rate: u32,
    /// How long new ones begin.
    pub during: Duration,
}

/// Connections to a [`Sink`] that stay.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Hold {
    /// The server's address, or one that leads to it.
    pub to: SocketAddr,
    /// How many are opened.
    pub count: u32,
}

/// What became of exchanges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driven {
    /// How many began.
    pub attempted: u64,
    /// How many failed, by reason.
    pub failed: BTreeMap<String, u64>,
    /// How long it took from the first to the last beginning.
    pub elapsed: Duration,
    /// By how much the generator fell behind its own pace, and gave up: what is missing of the rate is its fault or the
    /// machine's.
    pub behind: Duration,
    /// Segments that TCP sent again meanwhile in this place, of whatever connection.
    pub retransmitted: u64,
    /// How long each connection took to be set up, or each question to be answered, in microseconds, sorted.
    pub setups: Vec<u32>,
}

impl Driven {
    /// How many failed.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.failed.values().sum()
    }

    /// How many began in a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        if self.elapsed.is_zero() { 0.0 } else { self.attempted as f64 / self.elapsed.as_secs_f64() }
    }

    /// The time within which this part of a thousand was set up.
    #[must_use]
    pub fn setup(&self, per_mille: usize) -> Duration {
        let last = self.setups.len().saturating_sub(1);
        let at = (self.setups.len() * per_mille / 1000).min(last);
        Duration::from_micros(self.setups.get(at).copied().unwrap_or_default().into())
    }

    /// Adds what became of others.
    pub fn add(&mut self, other: Self) {
        self.attempted += other.attempted;
        for (reason, count) in other.failed {
            *self.failed.entry(reason).or_default() += count;
        }
        self.elapsed += other.elapsed;
        self.behind += other.behind;
        self.retransmitted += other.retransmitted;
        self.setups.extend(other.setups);
        self.setups.sort_unstable();
    }
}

/// A server that answers [`Drive`] and [`Hold`], for TCP and UDP on one port. It ends when this is dropped.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Sink {
    _link: Link,
}

impl Sink {
    pub(crate) fn open(at: &Vantage, port: u16) -> Self {
        let mut link = lab_works(at, at.pool().link());
        lab_works(at, link.ask::<()>(&Request::Sink(port)));
        Self { _link: link }
    }
}

/// Connections that are open. They end when this is dropped.
#[derive(Debug)]
#[must_use = "the connections end when it is dropped"]
pub struct Held {
    from: Vantage,
    link: Link,
    opened: Driven,
}

impl Held {
    pub(crate) fn open(from: &Vantage, hold: &Hold) -> Self {
        let mut link = lab_works(from, from.pool().link());
        let opened = lab_works(from, link.ask(&Request::Hold(*hold)));
        Self { from: from.clone(), link, opened }
    }

    /// What became of the attempts to open them.
    #[must_use]
    pub fn opened(&self) -> &Driven {
        &self.opened
    }

    /// Sends a byte on each, waits for the answers and closes them.
    #[must_use]
    pub fn exchange(mut self) -> Driven {
        lab_works(&self.from, self.link.ask(&Request::Finish))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_thousand_is_read_off_the_sorted_times() {
        let driven = Driven { setups: (1..=1000).collect(), ..Driven::default() };
        assert_eq!(driven.setup(500), Duration::from_micros(501));
        assert_eq!(driven.setup(990), Duration::from_micros(991));
        assert_eq!(driven.setup(1000), Duration::from_micros(1000));
        assert_eq!(Driven::default().setup(500), Duration::ZERO);
    }

    #[test]
    fn what_is_added_stays_sorted_and_keeps_the_rate() {
        let part = |setups: &[u32], reason: &str| Driven {
            attempted: 10,
            failed: BTreeMap::from([(reason.to_owned(), 1)]),
            elapsed: Duration::from_secs(1),
            setups: setups.to_vec(),
            ..Driven::default()
        };
        let mut all = part(&[5, 9], "refused");
        all.add(part(&[1, 7], "refused"));
        all.add(part(&[3], "silent"));
        assert_eq!((all.attempted, all.errors(), all.failed["refused"]), (30, 3, 2));
        assert_eq!(all.setups, [1, 3, 5, 7, 9]);
        assert!((all.rate() - 10.0).abs() < 1e-9);
    }
}
