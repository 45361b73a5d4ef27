//! Load: what goes on while something is restarted, and how much of it failed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::probe::Probe;

/// Load from one place. Each kind is optional.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Load {
    pub(crate) during: Duration,
    pub(crate) short: Option<(Probe, u32)>,
    pub(crate) long: Option<(Probe, u32, Duration)>,
    pub(crate) udp: Option<(Probe, u32)>,
    pub(crate) dns: Option<(SocketAddr, String, u32)>,
}

impl Load {
    /// No load yet, for this long.
    #[must_use]
    pub fn during(time: Duration) -> Self {
        Self { during: time, ..Self::default() }
    }

    /// New connections, so many a second, each closed once its server has answered.
    #[must_use]
    pub fn short_connections(mut self, probe: Probe, per_second: u32) -> Self {
        self.short = Some((probe, per_second));
        self
    }

    /// So many connections that stay, each with an exchange every so often.
    #[must_use]
    pub fn long_connections(mut self, probe: Probe, count: u32, every: Duration) -> Self {
        self.long = Some((probe, count, every));
        self
    }

    /// UDP requests, so many a second, each from a socket of its own.
    #[must_use]
    pub fn udp(mut self, probe: Probe, per_second: u32) -> Self {
        self.udp = Some((probe, per_second));
        self
    }

    /// DNS queries over UDP for the A record of a name, so many a second, by turns from a socket of their own and from one
    /// that is kept. An answer without a record is a failure.
    #[must_use]
    pub fn dns(mut self, server: SocketAddr, name: &str, per_second: u32) -> Self {
        self.dns = Some((server, name.to_owned(), per_second));
        self
    }
}

/// What became of one kind of load.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How often it was tried.
    pub attempted: u64,
    /// How often it failed, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Half of the successful ones took no longer.
    pub p50: Duration,
    /// All but one in a hundred of the successful ones took no longer.
    pub p99: Duration,
}

impl Tally {
    /// How often it failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// What became of the load.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Short connections.
    pub short: Tally,
    /// Exchanges on connections that stay; a connection that could not be opened or broke counts as a failure each time
    /// that it would have been used.
    pub long: Tally,
    /// UDP requests.
    pub udp: Tally,
    /// DNS queries.
    pub dns: Tally,
}

impl Report {
    /// How often anything failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        [&self.short, &self.long, &self.udp, &self.dns].map(Tally::failures).iter().sum()
    }
}
