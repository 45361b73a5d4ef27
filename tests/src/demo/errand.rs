//! Errands: what the demo does inside of pods. It starts itself there, with the list of what to do on standard input
//! and what came of it on standard output, so that many attempts cost one process.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fairlead_objects::Protocol;
use serde::{Deserialize, Serialize};

use super::ask::{Answer, Kind, Question, ask};
use crate::probe::{Probe, ProbeError, Reply, Transport};
use crate::vantage::Probes;
use crate::worker;

/// The name of the demo's command that runs errands.
pub const COMMAND: &str = "errands";

/// A name that every DNS server of the cluster knows.
const KNOWN: &str = "kube-dns.kube-system.svc.cluster.local";

/// One attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Errand {
    /// A question to a DNS server.
    Ask(Question),
    /// A connection or datagram to a server of the lab.
    Probe(Probe),
}

/// What a successful attempt has seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Seen {
    /// Records.
    Answer(Answer),
    /// A server that said who it is.
    Server(Box<Reply>),
}

/// What came of an attempt.
pub(super) type Outcome = Result<Seen, ProbeError>;

/// A list of errands.
#[derive(Serialize, Deserialize)]
struct Trip {
    at_once: usize,
    errands: Vec<Errand>,
}

impl Errand {
    /// An attempt to reach a port: a DNS server is asked something, others are heard.
    pub(super) fn reach(to: SocketAddr, protocol: Protocol, timeout: Duration) -> Self {
        let transport = if protocol == Protocol::Udp { Transport::Udp } else { Transport::Tcp };
        if to.port() == 53 {
            let question = Question { server: to, transport, name: KNOWN.to_owned(), kind: Kind::A, timeout };
            return Self::Ask(question);
        }
        Self::Probe(Probe::new(transport, to).timeout(timeout))
    }

    fn run(&self) -> Outcome {
        match self {
            Self::Ask(question) => ask(question).map(Seen::Answer),
            Self::Probe(probe) => worker::probe(probe).map(|reply| Seen::Server(Box::new(reply))),
        }
    }
}

impl Seen {
    /// From the first system call to the answer.
    pub(super) fn took(&self) -> Duration {
        match self {
            Self::Answer(answer) => answer.took,
            Self::Server(reply) => reply.took,
        }
    }

    /// Who answered, when it said so.
    pub(super) fn server(&self) -> Option<&str> {
        match self {
            Self::Answer(_) => None,
            Self::Server(reply) => Some(&reply.server.pod),
        }
    }
}

/// Runs errands from a place, so many at once, and gives what came of each, in their order.
pub(super) fn run_at(place: &impl Probes, at_once: usize, errands: Vec<Errand>) -> Result<Vec<Outcome>> {
    if errands.is_empty() {
        return Ok(Vec::new());
    }
    let count = errands.len();
    let program = std::env::current_exe()?;
    let trip = serde_json::to_string(&Trip { at_once, errands })?;
    let ended = place.run_with(&[&program.to_string_lossy(), COMMAND], &[], &trip);
    ensure!(ended.ok(), "{} ended with {}: {}", program.display(), ended.code, ended.stderr);
    let outcomes: Vec<Outcome> = serde_json::from_str(&ended.stdout).context("what came of errands makes no sense")?;
    ensure!(outcomes.len() == count, "{count} errands, but {} outcomes", outcomes.len());
    Ok(outcomes)
}

/// Runs the errands on standard input: the process that [`run_at`] starts.
///
/// # Errors
/// When it was started by somebody else.
pub fn run_here() -> Result<()> {
    let trip: Trip = serde_json::from_reader(io::stdin().lock()).context("the demo starts this by itself")?;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(errand) = trip.errands.get(index) else { return done };
            done.push((index, errand.run()));
        }
    };
    let mut outcomes: Vec<(usize, Outcome)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..trip.at_once.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|each| each.join().ok()).flatten().collect()
    });
    outcomes.sort_by_key(|(index, _)| *index);
    let outcomes: Vec<Outcome> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    Ok(serde_json::to_writer(io::stdout().lock(), &outcomes)?)
}
