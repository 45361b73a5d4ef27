//! Load: what goes on while something is restarted, and how much of it failed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::link::Link;
use crate::probe::Probe;
use crate::proto::Request;
use crate::vantage::{Vantage, lab_works};

/// How long [`Loading::goes_on`] waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// Load from one place. Each kind is optional.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Load {
    pub(crate) during: Duration,
    #[serde(default)]
    pub(crate) patience: Option<Duration>,
    pub(crate) short: Option<(Probe, u32)>,
    pub(crate) long: Option<(Probe, u32, Duration)>,
    pub(crate) udp: Option<(Probe, u32)>,
    pub(crate) dns: Option<(SocketAddr, String, u32)>,
    #[serde(default)]
    pub(crate) idle: Option<(Probe, u32, Duration)>,
    #[serde(default)]
    pub(crate) uploads: Option<(Probe, u32)>,
    #[serde(default)]
    pub(crate) half_closed: Option<(Probe, u32, Duration)>,
}

impl Load {
    /// No load yet, for this long.
    #[must_use]
    pub fn during(time: Duration) -> Self {
        Self { during: time, ..Self::default() }
    }

    /// With attempts that count only from when each kind has succeeded some times in a row, which may take so long: for a
    /// network that is still coming up.
    #[must_use]
    pub fn once_each_succeeds(mut self, within: Duration) -> Self {
        self.patience = Some(within);
        self
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

    /// So many connections that stay and are silent for this long between two exchanges.
    #[must_use]
    pub fn idle_connections(mut self, probe: Probe, count: u32, silence: Duration) -> Self {
        self.idle = Some((probe, count, silence));
        self
    }

    /// New connections, so many a second, each of which sends the payload of the probe.
    #[must_use]
    pub fn uploads(mut self, probe: Probe, per_second: u32) -> Self {
        self.uploads = Some((probe, per_second));
        self
    }

    /// So many connections at a time that their client closes for writing once it has asked; the server answers after this
    /// silence and closes.
    #[must_use]
    pub fn half_closed(mut self, probe: Probe, count: u32, silence: Duration) -> Self {
        self.half_closed = Some((probe, count, silence));
        self
    }

    /// Whether there is any.
    pub(crate) fn is_some(&self) -> bool {
        let Self { during: _, patience: _, short, long, udp, dns, idle, uploads, half_closed } = self;
        [short, udp, uploads].iter().any(|kind| kind.is_some())
            || [long, idle, half_closed].iter().any(|kind| kind.is_some())
            || dns.is_some()
    }
}

/// Load that goes on until [`Loading::end`]. What is to be shown under load happens between.
#[derive(Debug)]
pub struct Loading {
    from: Vantage,
    link: Link,
}

impl Loading {
    pub(crate) fn begin(from: &Vantage, mut link: Link, load: &Load) -> Result<Self> {
        let _none_yet: u64 = link.ask(&Request::LoadBegin(Box::new(load.clone())))?;
        Ok(Self { from: from.clone(), link })
    }

    /// Waits until so much more has been tried, with whatever success.
    ///
    /// # Panics
    /// When that takes longer than half a minute.
    #[track_caller]
    pub fn goes_on(&mut self, attempts: u64) {
        let deadline = Instant::now() + PATIENCE;
        let mut count = || lab_works::<u64>(&self.from, self.link.ask(&Request::LoadCount));
        let wanted = count() + attempts;
        while count() < wanted {
            assert!(Instant::now() < deadline, "the load makes fewer than {attempts} attempts in {PATIENCE:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it when its time is over.
    #[must_use]
    pub fn end(mut self) -> Report {
        lab_works(&self.from, self.link.ask(&Request::LoadEnd))
    }
}

/// What became of one kind of load.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How often it was tried.
    pub attempted: u64,
    /// How often it failed, by reason.
    pub failed: BTreeMap<String, u64>,
    /// When after the beginning the first ones failed, and why.
    #[serde(default)]
    pub first: Vec<(Duration, String)>,
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
    /// Exchanges on connections that are silent in between.
    #[serde(default)]
    pub idle: Tally,
    /// Connections that send much.
    #[serde(default)]
    pub uploads: Tally,
    /// Connections that are half closed for a time.
    #[serde(default)]
    pub half_closed: Tally,
}

impl Report {
    /// Every kind by its name.
    #[must_use]
    pub fn kinds(&self) -> [(&'static str, &Tally); 7] {
        let Self { short, long, udp, dns, idle, uploads, half_closed } = self;
        [
            ("short", short),
            ("long", long),
            ("udp", udp),
            ("dns", dns),
            ("idle", idle),
            ("uploads", uploads),
            ("half-closed", half_closed),
        ]
    }

    /// How often anything failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.kinds().iter().map(|(_, tally)| tally.failures()).sum()
    }
}
