//! What it costs an answer that its name is one of a rule with `domainNames`: the agent is asked before the answer is sent.

use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::load::load_average;
use crate::binaries::binary;
use crate::lab::Lab;
use crate::pod::Pod;

/// What is wanted: of a hundred answers one may take so much longer.
const AIM_US: u64 = 100;

/// A pair of questions takes no less: of one client's answers no more than 1000 a second are asked about.
const PAIR: Duration = Duration::from_micros(1250);

/// Pairs before those that count: what is slow once is none of it.
const WARM: usize = 500;

/// The zones: a name of no rule, and one of a rule.
const ZONES: [&str; 2] = ["other.example", "covered.example"];

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

const POLICY: &str = "
apiVersion: policy.networking.k8s.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: bench}}}
  egress:
  - action: Accept
    to: [{namespaces: {}}, {nodes: {}}]
  - action: Accept
    to: [{domainNames: ['*.covered.example']}]
  - action: Deny
    to: [{networks: [0.0.0.0/0, '::/0']}]
";

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Findings {
    /// CPUs of the machine.
    pub cpus: usize,
    /// How many processes wanted one, before and after.
    pub load_average: [f64; 2],
    /// Answers on each side.
    pub answers: usize,
    /// The name is one of no rule, and one of a rule.
    pub rows: [Row; 2],
}

/// Answers of a side.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Half took no longer, in microseconds.
    pub p50_us: u64,
    /// All but one in a hundred took no longer.
    pub p99_us: u64,
}

/// Asks as a pod of a lab, for both kinds of names in turn: A B, B A and so on, each name once.
///
/// # Errors
/// A part is missing or does not start, or an answer fails.
pub fn run(answers: usize) -> Result<Findings> {
    ensure!(answers >= 100, "so few answers say nothing: --answers 100 or more");
    ensure!(answers + WARM <= 250 * 250, "there are no more than {} names", 250 * 250 - WARM);
    let before = load_average();
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let zone = |zone: &str| {
        let (name, dot) = (zone.replace('.', "[.]"), "[.]");
        format!(
            "template IN A {zone} {{\n match \"^n(?P<b>[0-9]+)-(?P<c>[0-9]+){dot}{name}{dot}$\"\n answer \"{{{{ .Name }}}} 600 IN A \
             198.18.{{{{ .Group.b }}}}.{{{{ .Group.c }}}}\"\n}}\n"
        )
    };
    let corefile = std::env::temp_dir().join(format!("fairlead-bench-names-{}", lab.id()));
    let zones: String = ZONES.iter().map(|each| zone(each)).collect();
    std::fs::write(&corefile, format!(".:53 {{\nkubernetes cluster.local\nprometheus :9153\n{zones}}}\n"))?;
    let server = node.pod("kube-system/dns").start();
    let client = node.pod("bench/client").start();
    let program = binary("fairlead-dns")?.display().to_string();
    let (objects, path) = (lab.objects().directory().display().to_string(), corefile.display().to_string());
    let argv = [&program, "--objects", &objects, "--corefile", &path, "--names-dir", "/run/fairlead/names"];
    let _dns = server.spawn("dns", &argv, &[]);
    lab.apply(POLICY);
    let address = server.ips().into_iter().find(IpAddr::is_ipv4).context("the server has an IPv4 address")?;
    let address = SocketAddr::from((address, 53));
    lab.wait_until("the agent is asked", || match ask_in(&client, address, 0, 1) {
        Ok(_) if in_force(&server) > 0 => Ok(()),
        other => Err(format!("{other:?}, {} in force", in_force(&server))),
    });
    let asked = in_force(&server);
    let mut took = ask_in(&client, address, WARM, answers)?;
    let asked = in_force(&server) - asked;
    drop(std::fs::remove_file(&corefile));
    ensure!(asked >= answers, "the agent was asked for {asked} of {answers} answers");
    let rows = took.each_mut().map(|took| {
        took.sort_unstable();
        let at = |of_hundred: usize| took.get(took.len() * of_hundred / 100).copied().unwrap_or_default() / 1000;
        Row { p50_us: at(50), p99_us: at(99) }
    });
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    Ok(Findings { cpus, load_average: [before, load_average()], answers, rows })
}

/// Nanoseconds of answers to a pod, by zone.
fn ask_in(client: &Pod, server: SocketAddr, warm: usize, answers: usize) -> Result<[Vec<u64>; 2]> {
    let own = std::env::current_exe()?.display().to_string();
    let (server, warm, answers) = (server.to_string(), warm.to_string(), answers.to_string());
    // Each has a log of its own.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("ask-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let process = client.spawn(&name, &[&own, "names-client", &server, &warm, &answers], &[]);
    ensure!(process.wait(Duration::from_secs(600)).is_some(), "the client does not end");
    let log = process.log();
    let line = log.lines().find(|line| line.starts_with("[[")).with_context(|| log.clone())?;
    let took: [Vec<u64>; 2] = serde_json::from_str(line).context(log)?;
    ensure!(took.iter().all(|took| took.len().to_string() == answers), "the client has asked less than it should");
    Ok(took)
}

/// Answers that the server asked about and whose addresses are in force.
fn in_force(server: &Pod) -> usize {
    let script = "exec 3<>/dev/tcp/127.0.0.1/9153; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let process = server.spawn("scrape", &["bash", "-c", script], &[]);
    let _ended = process.wait(Duration::from_secs(10));
    let log = process.log();
    let lines = log.lines().rev();
    let mut counts =
        lines.filter_map(|line| line.strip_prefix("fairlead_dns_policy_answers_total{result=\"in_force\"} "));
    counts.next().and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}

/// What the client does: asks, and writes how many nanoseconds each answer took.
///
/// # Errors
/// There is no answer, or not the one that is expected.
pub fn ask(server: SocketAddr, warm: usize, answers: usize) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut took = [Vec::new(), Vec::new()];
    for n in 0..warm + answers {
        let begin = Instant::now();
        for turn in 0..2 {
            let side = (n + turn) % 2;
            let name = format!("n{}-{}.{}", n / 250, n % 250 + 1, ZONES[side]);
            let nanos = one(&socket, &name, n as u16).with_context(|| name.clone())?;
            if n >= warm {
                took[side].push(nanos);
            }
        }
        thread::sleep(PAIR.saturating_sub(begin.elapsed()));
    }
    println!("{}", serde_json::to_string(&took)?);
    Ok(())
}

/// One question for an address.
fn one(socket: &UdpSocket, name: &str, id: u16) -> Result<u64> {
    let mut question = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        question.push(u8::try_from(label.len())?);
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let begin = Instant::now();
    socket.send(&question)?;
    let mut answer = [0; 512];
    loop {
        let length = socket.recv(&mut answer)?;
        let took = begin.elapsed();
        let Some(header) = answer.get(..12).filter(|_| length >= 12) else { bail!("an answer of {length} bytes") };
        if header[..2] == id.to_be_bytes() {
            ensure!(header[3] & 15 == 0 && header[7] == 1, "no address: {header:?}");
            return Ok(u64::try_from(took.as_nanos())?);
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpus, load_average: [before, after], answers, rows: [without, with] } = self;
        writeln!(f, "{cpus} CPUs, load average {before} before, {after} after")?;
        writeln!(f, "{answers} answers of each kind, one at a time, in turns\n")?;
        writeln!(f, "| name | p50 µs | p99 µs |\n|---|---|---|")?;
        writeln!(f, "| of no rule | {} | {} |", without.p50_us, without.p99_us)?;
        writeln!(f, "| of a rule | {} | {} |", with.p50_us, with.p99_us)?;
        let added = [with.p50_us.saturating_sub(without.p50_us), with.p99_us.saturating_sub(without.p99_us)];
        let met = if added[1] < AIM_US { "met" } else { "missed" };
        writeln!(f, "| added | {} | {} (aim: < {AIM_US}, {met}) |", added[0], added[1])
    }
}
