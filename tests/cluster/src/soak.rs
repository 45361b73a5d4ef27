//! Everything that a cluster does all day, for as long as is wanted: load of each kind while endpoints roll, pods come and go,
//! policies flap and, where the network is Fairlead's, its own processes are killed and replaced.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fairlead_tests::{Load, Probe, Report};

use crate::objects::{HARMLESS_POLICY, rolling};
use crate::world::{SYSTEM, World};

/// Silence that a lifetime of two minutes would not survive.
const SILENCE: Duration = Duration::from_secs(150);
/// How many pods come and go.
const CROWD: usize = 12;
/// How long they may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// What may happen meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// Every server of `rolling` is replaced.
    Roll,
    /// Pods come and go.
    Crowd,
    /// A policy comes and goes.
    Flap,
    /// The agent of a node is killed.
    Kill,
    /// Every process of Fairlead is replaced by another image's, and back.
    Upgrade,
}

/// What the cluster's network is, and what is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Another one.
    Peer,
    /// Fairlead, whose processes are killed and replaced.
    Disturbed,
    /// Fairlead, which is looked at after each event.
    LeftAlone,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Soaked {
    /// What the clients saw, each by its pod.
    pub reports: Vec<(String, Report)>,
    /// When what happened, in seconds from the beginning to its end.
    pub events: Vec<(String, Duration, Duration)>,
    /// What was measured after each event, by what it is.
    pub samples: Vec<BTreeMap<String, u64>>,
    /// How many packets each node dropped meanwhile, by node and reason; of Fairlead alone.
    pub dropped: BTreeMap<String, u64>,
}

impl Soaked {
    /// How often anything failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.reports.iter().map(|(_, report)| report.failures()).sum()
    }

    /// How often one kind of load was tried.
    #[must_use]
    pub fn attempted(&self, kind: &str) -> u64 {
        let of =
            |report: &Report| report.kinds().iter().find(|(name, _)| *name == kind).map_or(0, |(_, t)| t.attempted);
        self.reports.iter().map(|(_, report)| of(report)).sum()
    }

    /// What grew from the first half of the time to the second by more than a tenth and this allowance: its name, and the
    /// most of it in either.
    #[must_use]
    pub fn grown(&self, allowance: impl Fn(&str) -> u64) -> Vec<(String, u64, u64)> {
        // The first sample is before everything has happened once.
        let samples = self.samples.get(1..).unwrap_or_default();
        let (early, late) = samples.split_at(samples.len() / 2);
        let most =
            |samples: &[BTreeMap<String, u64>], name: &str| samples.iter().filter_map(|s| s.get(name)).max().copied();
        let names = late.iter().flat_map(BTreeMap::keys).collect::<std::collections::BTreeSet<_>>();
        let grown = |name: &String| {
            let (before, after) = (most(early, name)?, most(late, name)?);
            (after > before + before / 10 + allowance(name)).then(|| (name.clone(), before, after))
        };
        names.into_iter().filter_map(grown).collect()
    }
}

impl fmt::Display for Soaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, _) in Report::default().kinds() {
            let tallies =
                self.reports.iter().filter_map(|(_, r)| r.kinds().into_iter().find(|(name, _)| *name == kind));
            let tallies: Vec<_> = tallies.map(|(_, tally)| tally.clone()).collect();
            let sum = |of: fn(&fairlead_tests::Tally) -> u64| tallies.iter().map(of).sum::<u64>();
            let p99 = tallies.iter().map(|tally| tally.p99).max().unwrap_or_default();
            writeln!(
                f,
                "{kind:<12} {:>9} tried {:>5} failed  p99 {p99:?}",
                sum(|t| t.attempted),
                sum(fairlead_tests::Tally::failures)
            )?;
        }
        for (pod, report) in &self.reports {
            for (kind, tally) in report.kinds() {
                for (when, why) in &tally.first {
                    let during = self.events.iter().filter(|(_, begin, end)| begin <= when && when <= end);
                    let during: Vec<_> = during.map(|(what, ..)| what.as_str()).collect();
                    writeln!(f, "  {pod} {kind} at {when:.1?}: {why} ({})", during.join(", "))?;
                }
            }
        }
        // What explains a failure.
        if self.failures() > 0 {
            for (what, begin, end) in &self.events {
                writeln!(f, "  {what} from {begin:.1?} to {end:.1?}")?;
            }
            for (reason, packets) in &self.dropped {
                writeln!(f, "  {reason}: {packets}")?;
            }
        }
        Ok(())
    }
}

/// Puts load on the cluster for that long while things happen.
///
/// # Errors
/// Something does not do what it is told to; what fails in the load is no error here.
pub fn soak(world: &World, minutes: u64, network: Network) -> Result<Soaked> {
    let strain = world.strain()?;
    world.cluster.apply(&rolling())?;
    world.own(&["rollout", "status", "deployment/rolling", "--timeout=120s"])?;
    let rolling = world.addresses_of("rolling")?;
    let time = Duration::from_secs(60 * minutes);
    let load = |to: IpAddr, clients: u32| {
        let moving = rolling.iter().copied().find(|ip| ip.is_ipv4() == to.is_ipv4()).unwrap_or(to);
        Load::during(time)
            // 300 short connections a second in all.
            .short_connections(Probe::tcp(moving, 7000), 300 / clients)
            .long_connections(Probe::tcp(to, 7000), 10, Duration::from_millis(250))
            .udp(Probe::udp(moving, 7000), 50)
            .uploads(Probe::tcp(moving, 7000).payload(256 << 10).timeout(Duration::from_secs(5)), 2)
            .idle_connections(Probe::tcp(to, 7000), 5, SILENCE)
            .half_closed(Probe::tcp(to, 7000), 5, SILENCE)
    };
    let count = || if network == Network::Peer { Ok(BTreeMap::new()) } else { drops(world) };
    let before = count()?;
    let running = strain.start_as(world, load)?;
    let begin = Instant::now();
    let mut soaked = Soaked::default();
    let events: &[Event] = match network {
        Network::Disturbed => &[Event::Roll, Event::Crowd, Event::Flap, Event::Kill, Event::Upgrade],
        Network::Peer | Network::LeftAlone => &[Event::Roll, Event::Crowd, Event::Flap],
    };
    for (round, event) in events.iter().cycle().enumerate() {
        // The longest ones take a minute and a half.
        if begin.elapsed() + Duration::from_secs(90) > time && round >= events.len() {
            break;
        }
        let started = begin.elapsed();
        happen(world, *event, round).with_context(|| format!("{event:?}"))?;
        soaked.events.push((format!("{event:?}"), started, begin.elapsed()));
        if network == Network::LeftAlone {
            soaked.samples.push(measure(world)?);
        }
    }
    for each in running {
        soaked.reports.push((each.from().to_owned(), each.end()?));
    }
    soaked.dropped = count()?;
    for (reason, packets) in &mut soaked.dropped {
        *packets -= before.get(reason).copied().unwrap_or_default().min(*packets);
    }
    soaked.dropped.retain(|_, packets| *packets > 0);
    Ok(soaked)
}

fn happen(world: &World, event: Event, round: usize) -> Result<()> {
    const NEXT: &str = "localhost/fairlead:next";
    match event {
        Event::Roll => {
            world.own(&["rollout", "restart", "deployment/rolling"])?;
            world.own(&["rollout", "status", "deployment/rolling", "--timeout=180s"])?;
        }
        Event::Crowd => {
            world.crowd(CROWD, PATIENCE)?;
            world.crowd(0, PATIENCE)?;
        }
        Event::Flap => {
            for _ in 0..10 {
                world.cluster.apply(HARMLESS_POLICY)?;
                world.own(&["delete", "networkpolicy", "harmless"])?;
            }
        }
        Event::Kill => {
            let nodes = world.nodes();
            world.kill("fairlead", &nodes[round % nodes.len()])?;
        }
        Event::Upgrade => {
            for node in world.nodes() {
                world.cluster.tag_image(&node, concat!("localhost/fairlead:", env!("CARGO_PKG_VERSION")), NEXT)?;
            }
            world.upgrade(NEXT)?;
            world.install()?;
        }
    }
    Ok(())
}

/// The memory of each process of Fairlead in KiB, what is in each table, and what was dropped.
fn measure(world: &World) -> Result<BTreeMap<String, u64>> {
    let mut sample = BTreeMap::new();
    for node in world.nodes() {
        for set in ["fairlead", "fairlead-dns"] {
            sample.insert(format!("{node} memory of {set}"), world.resident(set, &node)?);
        }
        let status = world.ask(&node, &["status", "--verbose"])?;
        for map in status["maps"].as_array().context("status lists tables")? {
            if let (Some(name), Some(used)) = (map["name"].as_str(), map["used"].as_u64()) {
                sample.insert(format!("{node} entries of {name}"), used);
            }
        }
    }
    sample.append(&mut drops(world)?);
    Ok(sample)
}

/// How many packets each node has dropped, by node and reason.
fn drops(world: &World) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for node in world.nodes() {
        let drops = world.ask(&node, &["drops"])?;
        for count in drops["counts"].as_array().context("drops are counted")? {
            if let (Some(reason), Some(packets)) = (count["reason"].as_str(), count["packets"].as_u64()) {
                counts.insert(format!("{node} drops {reason}"), packets);
            }
        }
    }
    Ok(counts)
}

/// How many questions Fairlead's DNS servers have answered.
///
/// # Errors
/// One does not say.
pub fn questions(world: &World) -> Result<u64> {
    let mut sum = 0;
    for name in world.own_pods("fairlead-dns")?.values() {
        let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{name}:9153/proxy/metrics");
        let text = world.cluster.kubectl(&["get", "--raw", &path])?;
        let counts = text.lines().filter(|line| line.starts_with("coredns_dns_requests_total{"));
        sum += counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soaked(of: &[u64]) -> Soaked {
        let samples = of.iter().map(|&value| BTreeMap::from([("memory".to_owned(), value)])).collect();
        Soaked { samples, ..Soaked::default() }
    }

    #[test]
    fn what_grows_is_named() {
        assert!(soaked(&[10, 100, 105, 100, 109]).grown(|_| 0).is_empty());
        assert_eq!(soaked(&[10, 100, 100, 100, 130]).grown(|_| 0), [("memory".to_owned(), 100, 130)]);
        assert!(soaked(&[10, 100, 100, 100, 130]).grown(|_| 20).is_empty());
        assert!(soaked(&[]).grown(|_| 0).is_empty());
    }
}
