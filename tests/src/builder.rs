//! How a lab is made.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Uid, getpid};

use crate::binaries::binary;
use crate::lab::Lab;
use crate::link::Pool;
use crate::manifests::Manifests;
use crate::node::{Node, Wiring};
use crate::plan::{CLIENT, FAR_CLIENT, MOST_NODES, NodePlan, Plan};
use crate::system;
use crate::vantage::{Probes as _, Vantage};

/// Labs of this process so far: part of their names.
static LABS: AtomicU32 = AtomicU32::new(0);

/// What all processes of a lab have of the owner's environment: the rest may say that it is in a pod, has a proxy or wants
/// other logs.
const INHERITED: [&str; 7] =
    ["FAIRLEAD_BIN_DIR", "HOME", "LLVM_PROFILE_FILE", "PATH", "RUST_BACKTRACE", "TERM", "TMPDIR"];

/// Becomes `RUST_LOG` of a lab's processes.
const LOG: &str = "FAIRLEAD_LAB_LOG";

/// If it is set, all labs have XDP at the uplinks of their nodes.
const XDP: &str = "FAIRLEAD_LAB_XDP";

/// What the far end of an uplink with XDP does not do: leave checksums to be computed of what it sends there, since nothing
/// says so at the driver.
const OF_XDP: &str = "tx-checksum-ip-generic=off";

/// How long the parts of a lab may take to begin.
const START: Duration = Duration::from_secs(60);

impl Lab {
    /// Three nodes in two zones, with an agent on each.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default that starts twenty processes would surprise")]
    pub fn new() -> Self {
        Self::builder().start()
    }

    /// A lab of another shape.
    pub fn builder() -> Builder {
        Builder::new()
    }
}

/// A lab to be made.
#[derive(Debug, Clone)]
#[must_use = "`start` makes the lab"]
pub struct Builder {
    zones: Vec<String>,
    mtu: u32,
    wiring: Wiring,
    agents: bool,
    subnets: Vec<u8>,
    checks_sources: bool,
    ipv6_alone: bool,
    agent: Vec<String>,
    late: usize,
    xdp: Option<&'static str>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        let zones = ["zone-a", "zone-a", "zone-b"].map(str::to_owned).to_vec();
        Self {
            zones,
            mtu: 1500,
            wiring: Wiring::Fairlead,
            subnets: Vec::new(),
            checks_sources: false,
            ipv6_alone: false,
            agent: Vec::new(),
            late: 0,
            xdp: std::env::var_os(XDP).map(|_| "native"),
            agents: true,
        }
    }

    /// One node for each zone that is named, in order.
    pub fn zones(mut self, zones: &[&str]) -> Self {
        self.zones = zones.iter().map(ToString::to_string).collect();
        self
    }

    /// So many nodes, all in one zone.
    pub fn nodes(self, count: usize) -> Self {
        self.zones(&vec!["zone-a"; count])
    }

    /// The MTU of the network between nodes; 1500 unless said.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// The network that each node is on, in order; those that are not named are on network 0, as the client is. A router is
    /// between them, which knows nothing of pods.
    pub fn subnets(mut self, subnets: &[u8]) -> Self {
        self.subnets = subnets.to_vec();
        self
    }

    /// With a router that drops what comes from pods' addresses, as clouds do.
    pub fn checks_sources(mut self) -> Self {
        self.checks_sources = true;
        self
    }

    /// With Node objects that name IPv6 addresses alone.
    pub fn ipv6_alone(mut self) -> Self {
        self.ipv6_alone = true;
        self
    }

    /// With these arguments of all agents.
    pub fn agent(mut self, arguments: &[&str]) -> Self {
        self.agent = arguments.iter().map(ToString::to_string).collect();
        self
    }

    /// With XDP at the uplinks of all nodes.
    pub fn xdp(mut self) -> Self {
        self.xdp = Some("native");
        self
    }

    /// Without XDP, in a network that is as it would be with it.
    pub fn without_xdp(mut self) -> Self {
        self.xdp = Some("off");
        self
    }

    /// Without agents and Node objects of the last nodes: [`Lab::join`].
    pub fn late(mut self, count: usize) -> Self {
        self.late = count;
        self
    }

    /// Without Fairlead: pods are connected by plain routes. It shows what the kernel does by itself.
    pub fn plain(mut self) -> Self {
        self.wiring = Wiring::Plain;
        self.without_agents()
    }

    /// Without Fairlead: pods are ports of a bridge on their node, and routes lead from node to node.
    pub fn bridged(mut self) -> Self {
        self.wiring = Wiring::Bridge;
        self.without_agents()
    }

    /// Without agents at first: `Node::start_agent` starts one.
    pub fn without_agents(mut self) -> Self {
        self.agents = false;
        self
    }

    /// Makes the lab and, unless it is to have none, starts an agent on each node.
    ///
    /// # Panics
    /// When it can't be made, saying why.
    #[must_use]
    pub fn start(self) -> Lab {
        let lab = self.make().unwrap_or_else(|error| panic!("no lab: {error:#}"));
        if self.agents && self.wiring == Wiring::Fairlead {
            for node in self.prompt(&lab) {
                node.launch_agent();
            }
            for node in self.prompt(&lab) {
                node.agent().wait_ready();
            }
        }
        lab
    }

    /// The nodes that are there from the beginning.
    fn prompt<'a>(&self, lab: &'a Lab) -> &'a [Arc<Node>] {
        &lab.nodes[..lab.nodes.len() - self.late]
    }

    /// The arguments of agents.
    fn arguments(&self) -> Vec<String> {
        let xdp = self.xdp.iter().flat_map(|xdp| ["--xdp", xdp]).map(str::to_owned);
        xdp.chain(self.agent.iter().cloned()).collect()
    }

    fn make(&self) -> Result<Lab> {
        ensure!(
            Uid::effective().is_root(),
            "it needs root, to make namespaces and load programs: run `sudo -E cargo xtask test`"
        );
        ensure!(self.zones.len() <= MOST_NODES, "a lab has at most {MOST_NODES} nodes");
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", getpid());
        let subnets = self.subnets.iter().copied().chain(std::iter::repeat(0));
        let nodes = (1..).zip(&self.zones).zip(subnets).map(|((number, zone), subnet)| NodePlan {
            number,
            zone: zone.clone(),
            subnet,
            ipv6_alone: self.ipv6_alone,
        });
        let (nodes, checks_sources) = (nodes.collect(), self.checks_sources);
        let plan = Plan { id: id.clone(), nodes, mtu: self.mtu, checks_sources };
        let directory = system::directory(&id);
        let program = binary("fairlead-lab")?;
        fs::create_dir(&directory).with_context(|| format!("can't make {}", directory.display()))?;
        let manifests = Arc::new(Manifests::new(directory.join("objects"))?);
        let guardian = start_guardian(&program, &plan, &directory).inspect_err(|_| {
            // A guardian that has begun has removed it already.
            let _ = fs::remove_dir_all(&directory);
        })?;
        let place = |name: &str| Vantage::new(name, Pool::new(directory.join(format!("{name}.sock")), None), None);
        let arguments = self.arguments();
        let lab = Lab {
            id,
            guardian,
            client: place(CLIENT.name),
            far_client: place(FAR_CLIENT.name),
            fabric: place("fabric"),
            nodes: plan
                .nodes
                .iter()
                .map(|node| Arc::new(Node::new(node.clone(), self.wiring, &arguments, &directory, manifests.clone())))
                .collect(),
            manifests,
            directory,
            kept: false,
        };
        if self.xdp.is_some() {
            let names: Vec<&str> = lab.nodes.iter().map(|node| node.name()).collect();
            let program = program.to_string_lossy();
            let offloads = names.iter().map(|name| format!("{program} offloads {name} {OF_XDP}"));
            let caught = names.iter().map(|name| {
                format!("for n in $(seq 200); do ip link show {name} | grep -q prog/xdp && break; sleep 0.05; done; test $n -lt 200")
            });
            let catch = format!("{program} catch {} </dev/null >/dev/null 2>&1 & true", names.join(" "));
            let script: Vec<_> = offloads.chain([catch]).chain(caught).collect();
            let ended = lab.fabric.run(&["sh", "-ec", &script.join("\n")]);
            ensure!(ended.ok(), "the fabric takes nothing from XDP: {ended:?}");
        }
        for node in self.prompt(&lab) {
            lab.manifests.apply(&node.manifest());
            if self.wiring != Wiring::Fairlead {
                node.route_plainly(&plan.nodes)?;
            }
        }
        Ok(lab)
    }
}

/// Starts the guardian and waits until every part of the lab is ready.
fn start_guardian(program: &Path, plan: &Plan, directory: &Path) -> Result<Child> {
    let log = File::create(directory.join("lab.log"))?;
    let mut guardian = Command::new(program)
        .arg("guardian")
        .env_clear()
        .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .envs(std::env::var_os(LOG).map(|filter| ("RUST_LOG", filter)))
        // What programs say is compared.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        // What a terminal sends to the owner must not end the one who cleans up after it.
        .process_group(0)
        .spawn()?;
    let stdin = guardian.stdin.as_mut().expect("it is piped");
    writeln!(stdin, "{}", serde_json::to_string(plan)?)?;
    let stdout = guardian.stdout.take().expect("it is piped");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    // The fabric, two clients, and two workers for each node.
    for _ in 0..3 + 2 * plan.nodes.len() {
        let problem = match receiver.recv_timeout(START) {
            Ok(line) if line.starts_with("ready ") => continue,
            Ok(line) => line,
            Err(_) => fs::read_to_string(directory.join("lab.log")).unwrap_or_default(),
        };
        drop(guardian.stdin.take());
        let _ = guardian.wait();
        bail!("a part of it did not start: {problem}");
    }
    Ok(guardian)
}
