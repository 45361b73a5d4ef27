//! Load from a pod while something happens to the cluster.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::IpAddr;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fairlead_tests::processes::UNDER_WAY;
use fairlead_tests::{Load, Probe, Report};

use crate::objects::NAMESPACE;
use crate::world::World;

/// How long a client may wait until each kind of its load has succeeded once: a network that has just come is in force a
/// little later than its pods are ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// What every client does at the same time: connections that stay, 500 short ones a second, UDP, DNS.
#[derive(Debug, Clone)]
pub struct Strain {
    /// The name of the service.
    name: String,
    services: Vec<IpAddr>,
    dns: IpAddr,
}

/// Load that goes on in a pod.
#[derive(Debug)]
pub struct Running {
    from: String,
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Strain {
    /// On a service of the tests' namespace, and the cluster's DNS, which is asked for it.
    pub(crate) fn new(name: &str, services: Vec<IpAddr>, dns: IpAddr) -> Self {
        Self { name: name.to_owned(), services, dns }
    }

    /// The same with this DNS server in place of the cluster's service.
    #[must_use]
    pub fn asking(&self, dns: IpAddr) -> Self {
        Self { dns, ..self.clone() }
    }

    /// Starts it in every client. It is under way in all of them when this returns, and goes on for so many seconds.
    pub fn start(&self, world: &World, seconds: u64) -> Result<Vec<Running>> {
        self.start_as(world, |to, clients| {
            Load::during(Duration::from_secs(seconds))
                // 500 short connections a second in all.
                .short_connections(Probe::tcp(to, 7000), 500 / clients)
                .long_connections(Probe::tcp(to, 7000), 10, Duration::from_millis(50))
                .udp(Probe::udp(to, 7000), 100)
        })
    }

    /// What every client gets from the service in a second, whether anything answers or not.
    ///
    /// # Errors
    /// A client can't be asked.
    pub fn glance(&self, world: &World) -> Result<Vec<Report>> {
        let mut running = Vec::new();
        for (index, pod) in world.clients()?.iter().enumerate() {
            let to = self.services[index % self.services.len()];
            let timeout = Duration::from_millis(300);
            let load = Load::during(Duration::from_secs(1))
                .short_connections(Probe::tcp(to, 7000).timeout(timeout), 20)
                .udp(Probe::udp(to, 7000).timeout(timeout), 20);
            let mut command = world.cluster.in_container(&pod.node, &pod.container)?;
            command.args(["/usr/bin/fairlead-lab", "load"]).arg(serde_json::to_string(&load)?);
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
            let out = BufReader::new(child.stdout.take().context("it is piped")?);
            running.push(Running { from: pod.name.clone(), child, out });
        }
        running.into_iter().map(Running::under_way).map(|running| running?.end()).collect()
    }

    /// Starts a load in every client, by turns on each address of the service; DNS is part of each. It is made for the
    /// address, and the number of clients.
    pub(crate) fn start_as(&self, world: &World, load: impl Fn(IpAddr, u32) -> Load) -> Result<Vec<Running>> {
        let pods = world.clients()?;
        ensure!(!pods.is_empty(), "there are no clients");
        let clients = u32::try_from(pods.len())?;
        let mut running = Vec::new();
        for (index, pod) in pods.iter().enumerate() {
            let to = self.services[index % self.services.len()];
            let load = load(to, clients).once_each_succeeds(PATIENCE).dns(
                (self.dns, 53).into(),
                &format!("{}.{NAMESPACE}.svc.cluster.local", self.name),
                50,
            );
            let mut command = world.cluster.in_container(&pod.node, &pod.container)?;
            command.args(["/usr/bin/fairlead-lab", "load"]).arg(serde_json::to_string(&load)?);
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
            let out = BufReader::new(child.stdout.take().context("it is piped")?);
            running.push(Running { from: pod.name.clone(), child, out });
        }
        running.into_iter().map(Running::under_way).collect()
    }
}

/// Waits for the end of all; a single failure is an error.
///
/// # Errors
/// Something failed.
pub fn all_end_well(load: Vec<Running>) -> Result<()> {
    load.into_iter().try_for_each(|running| running.ends_well().map(|report| println!("{report:?}")))
}

impl Running {
    /// Waits until its attempts count.
    fn under_way(mut self) -> Result<Self> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        if line.trim_end() == UNDER_WAY {
            return Ok(self);
        }
        let from = self.from.clone();
        Err(self.end().err().with_context(|| format!("the load of {from} says {line:?}"))?)
    }

    /// The pod that makes it.
    pub(crate) fn from(&self) -> &str {
        &self.from
    }

    /// Waits for its end.
    pub fn end(mut self) -> Result<Report> {
        let (mut out, mut complaints) = (String::new(), String::new());
        self.out.read_to_string(&mut out)?;
        self.child.stderr.take().context("it is piped")?.read_to_string(&mut complaints)?;
        ensure!(self.child.wait()?.success(), "the load of {} broke: {complaints}", self.from);
        serde_json::from_str(&out).with_context(|| format!("the load of {} says {out:?}", self.from))
    }

    /// Waits for its end; a single failure is an error.
    pub fn ends_well(self) -> Result<Report> {
        let from = self.from.clone();
        let report = self.end()?;
        ensure!(report.failures() == 0, "load from {from} failed {} times: {report:#?}", report.failures());
        for (kind, tally) in report.kinds().into_iter().take(4) {
            ensure!(tally.attempted > 0, "{from} made no {kind} load");
        }
        Ok(report)
    }
}
