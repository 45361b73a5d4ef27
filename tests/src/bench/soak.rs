//! Many questions to fairlead-dns while its upstream servers die, lie, truncate and come back: nothing may be lost that a server
//! could have answered, and memory and open files have to stay what they are.

mod client;
mod growth;
mod upstreams;

use std::fmt;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use serde::Serialize;

use self::client::Tally;
use self::growth::{Sample, growth};
use self::upstreams::Upstreams;

/// Where the server is.
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 2053);

/// Clients, each a thread with a socket.
const CLIENTS: u64 = 2;

/// How much memory may grow in the second half, of noise: KiB.
const GROWTH: f64 = 4096.0;

/// By how many descriptors the second half may have more than the first: sockets come and go.
const DESCRIPTORS: usize = 32;

/// The zone.
const MANIFEST: &str = "\
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], ports: [{port: 80}]}}
";

/// What it came to.
#[derive(Debug, Serialize)]
pub struct Soaked {
    /// What became of the questions.
    pub questions: Tally,
    /// How often upstream servers did what, by name.
    pub misdeeds: Vec<(&'static str, u64)>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Resident memory of the server at half-time and at the end, in KiB.
    pub resident_kib: [u64; 2],
    /// By how much memory grew in the second half, as a line through all samples has it, in KiB.
    pub growth_kib: f64,
    /// Most open files in each half.
    pub descriptors: [usize; 2],
}

impl Soaked {
    /// What is wrong; nothing if it is as it should be.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let &Tally { failed, lost, wrong, .. } = &self.questions;
        let counted =
            [("were answered with an error", failed), ("were not answered", lost), ("were answered wrongly", wrong)];
        let mut faults: Vec<String> = counted
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{count} questions {what}"))
            .collect();
        if self.growth_kib > GROWTH {
            faults.push(format!("memory grew by {:.0} KiB in the second half", self.growth_kib));
        }
        let [first, second] = self.descriptors;
        if second > first + DESCRIPTORS {
            faults.push(format!("there were {first} open files in the first half and {second} in the second"));
        }
        faults
    }
}

impl fmt::Display for Soaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { answered, again, failed, lost, wrong, examples } = &self.questions;
        writeln!(
            f,
            "{answered} answered, {again} of them asked twice, {failed} failed, {lost} lost, {wrong} wrong, in {:.0} s",
            self.seconds
        )?;
        examples.iter().try_for_each(|example| writeln!(f, "not answered well: {example}"))?;
        let misdeeds: Vec<String> = self.misdeeds.iter().map(|(what, count)| format!("{what} {count}")).collect();
        writeln!(f, "upstream servers: {}", misdeeds.join(", "))?;
        let ([half, end], [first, second]) = (self.resident_kib, self.descriptors);
        writeln!(f, "resident: {half} KiB at half-time, {end} KiB at the end, {:.0} KiB growth", self.growth_kib)?;
        writeln!(f, "open files: {first} in the first half at most, {second} in the second")?;
        self.faults().iter().try_for_each(|fault| writeln!(f, "FAULT: {fault}"))
    }
}

/// Asks so many questions, in a network namespace of its own.
///
/// # Errors
/// It can't be done.
pub fn run(questions: u64, program: &Path) -> Result<Soaked> {
    ensure!(questions >= 10_000, "too few questions to say anything: 10000 or more");
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace takes root")?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("can't start ip")?;
    ensure!(up.success(), "ip link set lo up: {up}");
    let upstreams = Upstreams::start()?;
    let server = Server::start(program, &upstreams)?;
    client::wait(SERVER)?;
    let begin = Instant::now();
    let progress = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let progress = Arc::clone(&progress);
            let history = upstreams.history();
            thread::spawn(move || client::ask(SERVER, number, questions / CLIENTS, &progress, &history))
        })
        .collect();
    let mut samples = Vec::new();
    let mut said = 0;
    while clients.iter().any(|client| !client.is_finished()) {
        thread::sleep(Duration::from_millis(200));
        let done = progress.load(Ordering::Relaxed);
        samples.push(server.sample(done)?);
        if done * 10 / questions > said {
            said = done * 10 / questions;
            eprintln!("{done} questions after {} s", begin.elapsed().as_secs());
        }
    }
    let mut tally = Tally::default();
    for client in clients {
        tally.add(&client.join().ok().context("a client panicked")??);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let middle = samples.partition_point(|sample| sample.done < questions / 2);
    let (first, second) = samples.split_at(middle.min(samples.len() - 1));
    let most = |samples: &[Sample]| samples.iter().map(|sample| sample.descriptors).max().unwrap_or_default();
    let ends = [second.first(), second.last()].map(|sample| sample.map_or(0, |sample| sample.resident_kib));
    Ok(Soaked {
        questions: tally,
        misdeeds: upstreams.misdeeds(),
        seconds,
        resident_kib: ends,
        growth_kib: growth(second),
        descriptors: [most(first), most(second)],
    })
}

/// fairlead-dns. It ends with this.
struct Server {
    dir: PathBuf,
    child: Child,
}

impl Server {
    fn start(program: &Path, upstreams: &Upstreams) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("fairlead-soak-dns-{}", std::process::id()));
        fs::create_dir_all(dir.join("objects"))?;
        fs::write(dir.join("objects/shop.yaml"), MANIFEST)?;
        let log = File::create(dir.join("log"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).arg("--objects").arg(dir.join("objects"));
        command.args(["--listen", &SERVER.to_string(), "--upstream", &upstreams.addresses()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("can't start {}", program.display()))?;
        Ok(Self { dir, child })
    }

    fn sample(&self, done: u64) -> Result<Sample> {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(proc.join("status")).context("fairlead-dns has ended")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("fairlead-dns has ended")?;
        let resident_kib = line.trim().trim_end_matches(" kB").parse()?;
        Ok(Sample { done, resident_kib, descriptors: fs::read_dir(proc.join("fd"))?.count() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.dir));
    }
}
