//! ADD and DEL of pods as a container runtime calls them: one at a time, and many at once. Fairlead beside the reference
//! plugin `bridge` with `host-local`, on equal nodes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::load::load_average;
use crate::binaries::binary;
use crate::lab::Lab;
use crate::proto::Request;
use crate::vantage::Probes;
use crate::wiring;

/// Between pods that come one at a time.
const PAUSE: Duration = Duration::from_millis(60);

/// What is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rounds: each is so many pods one after the other, and then so many at once, on each side.
    pub rounds: u32,
    /// Pods one after the other in a round.
    pub alone: usize,
    /// Pods at once in a round.
    pub at_once: usize,
    /// The directory of the reference plugins.
    pub plugins: Option<PathBuf>,
    /// What is measured of Fairlead, for the table.
    pub label: String,
}

/// Calls of a plugin, for a process on the node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Calls {
    plugin: PathBuf,
    at_once: bool,
    calls: Vec<Call>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Call {
    env: BTreeMap<String, String>,
    stdin: String,
}

/// Makes the calls that standard input names, and writes how many microseconds each took, from the start of the plugin's process
/// to its end.
///
/// # Errors
/// One failed.
pub fn call() -> Result<()> {
    let calls: Calls = serde_json::from_reader(std::io::stdin())?;
    let one = |call: &Call| -> Result<u64> {
        let begin = Instant::now();
        let mut child = Command::new(&calls.plugin)
            .envs(&call.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("can't start {}", calls.plugin.display()))?;
        child.stdin.take().context("it is piped")?.write_all(call.stdin.as_bytes())?;
        let ended = child.wait_with_output()?;
        let took = begin.elapsed();
        let said = || String::from_utf8_lossy(&[ended.stdout.as_slice(), &ended.stderr].concat()).into_owned();
        ensure!(
            ended.status.success(),
            "{:?} of {} failed: {}",
            call.env.get("CNI_COMMAND"),
            calls.plugin.display(),
            said()
        );
        Ok(u64::try_from(took.as_micros())?)
    };
    let took: Vec<u64> = if calls.at_once {
        thread::scope(|scope| {
            let all: Vec<_> = calls.calls.iter().map(|call| scope.spawn(|| one(call))).collect();
            all.into_iter().map(|each| each.join().expect("no call panics")).collect::<Result<_>>()
        })?
    } else {
        let one = |call| {
            let took = one(call);
            // What goes on behind its answer is not part of the next.
            thread::sleep(PAUSE);
            took
        };
        calls.calls.iter().map(one).collect::<Result<_>>()?
    };
    println!("{}", serde_json::to_string(&took)?);
    Ok(())
}

/// A node with a plugin.
struct Side {
    name: String,
    lab: Lab,
    plugin: PathBuf,
    conf: Value,
    cni_path: PathBuf,
    next: usize,
    took: BTreeMap<(bool, &'static str), Vec<u64>>,
}

impl Side {
    fn fairlead(label: &str) -> Result<Self> {
        let plugin = binary("fairlead-cni")?;
        Ok(Self::new(label, Lab::builder().nodes(1).start(), plugin, wiring::configuration()))
    }

    fn bridge(plugins: &Path) -> Self {
        let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.87.0.0/16"}]], "dataDir": "/run/bench-bridge",
            "routes": [{"dst": "0.0.0.0/0"}]});
        let conf = json!({"cniVersion": "1.0.0", "name": "bench", "type": "bridge", "bridge": "bench0",
            "isGateway": true, "ipam": ipam});
        Self::new("bridge, host-local", Lab::builder().nodes(1).plain().start(), plugins.join("bridge"), conf)
    }

    fn new(name: &str, lab: Lab, plugin: PathBuf, conf: Value) -> Self {
        let cni_path = plugin.parent().unwrap_or(Path::new("/opt/cni/bin")).to_owned();
        Self { name: name.to_owned(), lab, plugin, conf, cni_path, next: 0, took: BTreeMap::new() }
    }

    /// Adds and deletes so many pods.
    fn round(&mut self, count: usize, at_once: bool) -> Result<()> {
        let node = self.lab.node("node-1").clone();
        let pods: Vec<(String, String)> = (0..count)
            .map(|_| {
                self.next += 1;
                (format!("bench/pod-{}", self.next), format!("bench_{}", self.next))
            })
            .collect();
        node.manifests.ensure_namespace("bench")?;
        for (key, netns) in &pods {
            let name = key.split_once('/').map_or(key.as_str(), |(_, name)| name);
            let object = json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": "bench", "name": name, "labels": {"app": "bench"}},
                "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}]}});
            node.manifests.apply(&object.to_string());
            node.vantage().pool().ask::<()>(&Request::AddNetns(netns.clone()))?;
        }
        // The objects are on their way, as they are when kubelet calls.
        thread::sleep(Duration::from_millis(500));
        for command in ["ADD", "DEL"] {
            let took = self.calls(command, &pods, at_once)?;
            self.took.entry((at_once, command)).or_default().extend(took);
            // What goes on behind the answers is not part of the next.
            thread::sleep(Duration::from_millis(1500));
        }
        for (key, netns) in &pods {
            node.vantage().pool().ask::<()>(&Request::RemoveNetns(netns.clone()))?;
            node.manifests.delete("Pod", key);
        }
        Ok(())
    }

    fn calls(&self, command: &str, pods: &[(String, String)], at_once: bool) -> Result<Vec<u64>> {
        let call = |(key, netns): &(String, String)| {
            let container = format!("{netns:0>32}").replace('_', "0");
            let mut env: BTreeMap<String, String> = wiring::environment(command, &container, netns, key)
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            env.insert("CNI_PATH".to_owned(), self.cni_path.display().to_string());
            Call { env, stdin: self.conf.to_string() }
        };
        let calls = Calls { plugin: self.plugin.clone(), at_once, calls: pods.iter().map(call).collect() };
        let own = std::env::current_exe()?;
        let argv = [&*own.to_string_lossy(), "cni-calls"];
        let ended = self.lab.node("node-1").run_with(&argv, &[], &serde_json::to_string(&calls)?);
        ensure!(ended.ok(), "{}: {}", self.name, ended.stderr);
        serde_json::from_str(&ended.stdout).with_context(|| format!("{}: {:?}", self.name, ended.stdout))
    }
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Findings {
    /// CPUs of the machine.
    pub cpus: usize,
    /// How many processes wanted one, before and after.
    pub load_average: [f64; 2],
    /// Pods one after the other, and at once, in all.
    pub pods: [usize; 2],
    /// How many came at once.
    pub at_once: usize,
    /// One for each plugin, command and way.
    pub rows: Vec<Row>,
}

/// A plugin, a command, and one at a time or many at once.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The plugin.
    pub plugin: String,
    /// `ADD` or `DEL`.
    pub command: String,
    /// Whether many came at once.
    pub at_once: bool,
    /// Half took no longer, in microseconds.
    pub p50_us: u64,
    /// All but one in a hundred took no longer.
    pub p99_us: u64,
}

/// Measures all, in turns.
///
/// # Errors
/// A plugin fails, or there is none.
pub fn run(options: &Options) -> Result<Findings> {
    ensure!(options.rounds > 0 && options.alone > 0, "nothing is asked for: --rounds 1 or more");
    let before = load_average();
    let mut sides = vec![Side::fairlead(&options.label)?];
    if let Some(plugins) = &options.plugins {
        sides.push(Side::bridge(plugins));
    }
    for round in 0..options.rounds {
        for side in &mut sides {
            side.round(options.alone, false)?;
            side.round(options.at_once, true)?;
        }
        sides.reverse();
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    let mut rows = Vec::new();
    for side in &mut sides {
        for ((at_once, command), took) in &mut side.took {
            took.sort_unstable();
            let at = |of_thousand: usize| took.get((took.len() * of_thousand / 1000).min(took.len().saturating_sub(1)));
            let [p50_us, p99_us] = [500, 990].map(|at_| at(at_).copied().unwrap_or_default());
            let (plugin, command) = (side.name.clone(), (*command).to_owned());
            rows.push(Row { plugin, command, at_once: *at_once, p50_us, p99_us });
        }
    }
    rows.sort_by(|a, b| (a.at_once, &a.command, &a.plugin).cmp(&(b.at_once, &b.command, &b.plugin)));
    let rounds = options.rounds as usize;
    Ok(Findings {
        cpus: thread::available_parallelism().map_or(1, usize::from),
        load_average: [before, load_average()],
        pods: [rounds * options.alone, rounds * options.at_once],
        at_once: options.at_once,
        rows,
    })
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = self.load_average;
        let [alone, at_once] = self.pods;
        writeln!(f, "{} CPUs, load average {before} before, {after} after", self.cpus)?;
        writeln!(f, "{alone} pods one at a time, {at_once} of which {} at once\n", self.at_once)?;
        writeln!(f, "| | plugin | p50 ms | p99 ms |\n|---|---|---|---|")?;
        for Row { plugin, command, at_once, p50_us, p99_us } in &self.rows {
            let how = if *at_once { format!("{} at once", self.at_once) } else { "alone".to_owned() };
            let millis = |micros: &u64| *micros as f64 / 1000.0;
            writeln!(f, "| {command}, {how} | {plugin} | {:.1} | {:.1} |", millis(p50_us), millis(p99_us))?;
        }
        Ok(())
    }
}
