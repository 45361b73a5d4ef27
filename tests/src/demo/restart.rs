//! The agent of each node killed and started again, while pods of every node go on with what they do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::report::seconds;
use super::say;
use super::stage::Stage;
use crate::load::{Load, Report, Tally};
use crate::node::Node;
use crate::probe::Probe;
use crate::vantage::Probes;

/// How long the load goes on.
const DURING: Duration = Duration::from_secs(30);

/// How long it goes on before the first agent is killed.
const CALM: Duration = Duration::from_secs(2);

/// How long each agent stays away.
const AWAY: Duration = Duration::from_secs(3);

/// How long an agent may take until it is ready: the next one is killed soon after.
const PATIENCE: Duration = Duration::from_secs(5);

/// Short connections a second.
const SHORT: u32 = 500;

/// Connections that stay, and how often each is used.
const LONG: (u32, Duration) = (10, Duration::from_millis(100));

/// UDP requests and DNS queries a second, of each.
const REQUESTS: u32 = 100;

/// A name that the load asks for.
const NAME: &str = "echo.extra.svc.cluster.local";

/// What became of the load.
#[derive(Debug, Clone, Serialize)]
pub struct Restart {
    /// How long the load went on.
    #[serde(serialize_with = "seconds")]
    pub during: Duration,
    /// The agents that were killed.
    pub agents: Vec<Agent>,
    /// What was tried, and how it went.
    pub kinds: Vec<Kind>,
}

/// An agent that was killed and started again.
#[derive(Debug, Clone, Serialize)]
pub struct Agent {
    /// Its node.
    pub node: String,
    /// How long after its start it said that everything is in force.
    #[serde(serialize_with = "seconds")]
    pub ready_after: Duration,
}

/// One kind of load.
#[derive(Debug, Clone, Serialize)]
pub struct Kind {
    /// What it is.
    pub name: String,
    /// How often it was tried.
    pub attempted: u64,
    /// How often it failed, by reason.
    pub failed: BTreeMap<String, u64>,
    /// The slowest median among the pods that made it.
    #[serde(serialize_with = "seconds")]
    pub p50: Duration,
    /// The slowest of their 99th percentiles.
    #[serde(serialize_with = "seconds")]
    pub p99: Duration,
}

/// Kills every agent under load.
pub(super) fn look(stage: &Stage, problems: &mut Vec<String>) -> Result<Restart> {
    let (clients, loads) = (stage.clients()?, loads(stage)?);
    say(&format!("{SHORT} connections a second for {DURING:?}, and meanwhile each agent is killed with -9"));
    let (reports, agents) = thread::scope(|scope| {
        let loading: Vec<_> = (0..)
            .zip(&loads)
            .map(|(index, load)| {
                let client = clients[index % clients.len()];
                scope.spawn(move || client.load(load))
            })
            .collect();
        let agents = restart_all(stage, problems);
        let reports: Vec<Report> =
            loading.into_iter().map(|each| each.join().unwrap_or_else(|why| std::panic::resume_unwind(why))).collect();
        (reports, agents)
    });
    let kind =
        |name: &str, tally: fn(&Report) -> &Tally| Kind::new(name, &reports.iter().map(tally).collect::<Vec<_>>());
    let kinds = vec![
        kind(&format!("{SHORT} short connections a second"), |report| &report.short),
        kind(&format!("exchanges on {} long connections", LONG.0), |report| &report.long),
        kind(&format!("{REQUESTS} UDP requests a second"), |report| &report.udp),
        kind(&format!("{REQUESTS} DNS queries a second"), |report| &report.dns),
    ];
    for kind in &kinds {
        if kind.attempted == 0 {
            problems.push(format!("restart: {}: nothing was tried", kind.name));
        }
        for (reason, count) in &kind.failed {
            problems.push(format!("restart: {}: {count} of {} failed: {reason}", kind.name, kind.attempted));
        }
    }
    Ok(Restart { during: DURING, agents, kinds })
}

/// Kills and restarts one agent after the other.
fn restart_all(stage: &Stage, problems: &mut Vec<String>) -> Vec<Agent> {
    let started = Instant::now();
    let count = u32::try_from(stage.lab.nodes().len()).unwrap_or(u32::MAX).max(1);
    let every = (DURING - 2 * CALM) / count;
    let mut agents = Vec::new();
    for (index, node) in (0..).zip(stage.lab.nodes()) {
        thread::sleep((CALM + every * index).saturating_sub(started.elapsed()));
        node.agent().kill9();
        thread::sleep(AWAY);
        let again = Instant::now();
        node.start_agent();
        while !is_ready(node) && again.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
        let took = again.elapsed();
        if took >= PATIENCE {
            problems.push(format!("restart: the agent of {} is not ready {took:.1?} after its start", node.name()));
        }
        say(&format!(
            "the agent of {} was killed, away for {AWAY:?}, and ready {took:.1?} after its start",
            node.name()
        ));
        agents.push(Agent { node: node.name().to_owned(), ready_after: took });
    }
    agents
}

/// Whether the agent says that everything is in force. It takes requests before, when what is pinned is in force.
fn is_ready(node: &Node) -> bool {
    let status = node.fairlead(&["status", "--output", "json"]).stdout;
    serde_json::from_str(&status).is_ok_and(|status: serde_json::Value| status["health"] == "ready")
}

/// The load, in six parts: both families from each of three pods.
fn loads(stage: &Stage) -> Result<Vec<Load>> {
    let (echo, dns) = (stage.objects.service("extra", "echo")?, stage.objects.dns()?);
    let port = echo.ports.first().context("the Service echo has no port")?.port;
    let [one, two] = echo.cluster_ips[..] else { bail!("the Service echo needs an address of each family") };
    let parts = u32::try_from(2 * stage.lab.nodes().len())?;
    let share = |of: u32, part: u32| of / parts + u32::from(part < of % parts);
    let load = |part: u32| {
        // Parts go round the pods: the first round is of one family, the second of the other.
        let v4 = part < parts / 2;
        let ip = if one.is_ipv4() == v4 { one } else { two };
        let server: SocketAddr = if dns[0].is_ipv4() == v4 { dns[0] } else { dns[1] };
        let load = Load::during(DURING)
            .short_connections(Probe::tcp(ip, port), share(SHORT, part))
            .udp(Probe::udp(ip, port), share(REQUESTS, part))
            .dns(server, NAME, share(REQUESTS, part));
        load.long_connections(Probe::tcp(ip, port), share(LONG.0, part), LONG.1)
    };
    Ok((0..parts).map(load).collect())
}

impl Kind {
    fn new(name: &str, tallies: &[&Tally]) -> Self {
        let mut kind = Self {
            name: name.to_owned(),
            attempted: 0,
            failed: BTreeMap::new(),
            p50: Duration::ZERO,
            p99: Duration::ZERO,
        };
        for tally in tallies {
            kind.attempted += tally.attempted;
            for (reason, count) in &tally.failed {
                *kind.failed.entry(reason.clone()).or_insert(0) += count;
            }
            (kind.p50, kind.p99) = (kind.p50.max(tally.p50), kind.p99.max(tally.p99));
        }
        kind
    }
}
