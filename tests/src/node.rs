//! Nodes, the processes on them and their agents.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::socket::{getsockopt, sockopt};

use crate::binaries::binary;
use crate::link::Pool;
use crate::logs;
use crate::manifests::Manifests;
use crate::plan::NodePlan;
use crate::pod::PodBuilder;
use crate::process::Process;
use crate::proto::{Ended, Request, Serve};
use crate::site::OUTSIDE;
use crate::vantage::{Probes, Vantage, command, lab_works};

/// The agent's socket for the CNI plugin: it is there when the agent is ready.
const CNI_SOCKET: &str = "/run/fairlead/cni.sock";

/// How long an agent may take until it is ready.
const READY: Duration = Duration::from_secs(240);

/// What an agent may do on a cluster, as `setpriv` takes it, and what `fairlead install` may, which the lab leaves to the agent: give
/// its directory of names to fairlead-dns.
fn capabilities() -> String {
    let manifest = include_str!("../../manifests/base/agent.yaml");
    let agent = manifest.split_once("drop: [ALL]\n            add:\n").map_or("", |(_, rest)| rest);
    let names = agent.lines().map_while(|line| line.trim().strip_prefix("- ")?.split(' ').next());
    let own: String = names.map(|name| format!(",+{}", name.to_lowercase())).collect();
    format!("{own},+chown,+dac_override,+fowner")
}

/// Who connects pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wiring {
    /// Fairlead.
    Fairlead,
    /// The lab itself, with routes.
    Plain,
    /// The lab itself, with a bridge on each node and routes between them, as the reference plugin `bridge` does.
    Bridge,
}

/// A node. As a place to probe from it is a process of the host.
#[derive(Debug)]
pub struct Node {
    pub(crate) plan: NodePlan,
    pub(crate) wiring: Wiring,
    pub(crate) manifests: Arc<Manifests>,
    pub(crate) pods: AtomicU32,
    name: String,
    directory: PathBuf,
    vantage: Vantage,
    /// Arguments of the agent beyond those that it always gets.
    arguments: Vec<String>,
    agent: Mutex<Option<Process>>,
}

impl Probes for Node {
    fn vantage(&self) -> &Vantage {
        &self.vantage
    }
}

impl Node {
    pub(crate) fn new(
        plan: NodePlan,
        wiring: Wiring,
        arguments: &[String],
        directory: &Path,
        manifests: Arc<Manifests>,
    ) -> Self {
        let name = plan.name();
        let directory = directory.to_owned();
        let mut new = Self {
            vantage: Vantage::new(&name, Pool::new(PathBuf::new(), None), None),
            plan,
            wiring,
            manifests,
            pods: AtomicU32::new(0),
            name,
            directory,
            arguments: arguments.to_vec(),
            agent: Mutex::new(None),
        };
        new.vantage = new.place(&new.name, None);
        new
    }

    /// A place on this node: its own network namespace or that of a pod.
    pub(crate) fn place(&self, name: &str, netns: Option<&str>) -> Vantage {
        let pool = |worker: String| Pool::new(self.directory.join(format!("{worker}.sock")), netns.map(str::to_owned));
        Vantage::new(name, pool(self.name.clone()), Some(pool(format!("{}{OUTSIDE}", self.name))))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its zone.
    #[must_use]
    pub fn zone(&self) -> &str {
        &self.plan.zone
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn v4(&self) -> std::net::Ipv4Addr {
        self.plan.v4()
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn v6(&self) -> std::net::Ipv6Addr {
        self.plan.v6()
    }

    /// Its addresses, one of each family.
    #[must_use]
    pub fn ips(&self) -> [std::net::IpAddr; 2] {
        [self.v4().into(), self.v6().into()]
    }

    /// A pod to be made on this node: `node.pod("shop/web")`.
    pub fn pod(self: &Arc<Self>, key: &str) -> PodBuilder {
        PodBuilder::new(self.clone(), key)
    }

    /// A network namespace on this node that is no pod's, as of a container of somebody else's or a virtual machine. Nothing
    /// leads to it until `ip link` does, by this name below `/run/netns`.
    pub fn guest(&self, name: &str) -> Vantage {
        let made = self.vantage.pool().ask::<()>(&Request::AddNetns(name.to_owned()));
        lab_works(&self.vantage, made);
        self.place(name, Some(name))
    }

    /// Starts a process of the host that stays. It is in the node's namespaces and cgroup.
    pub fn spawn(&self, name: &str, argv: &[&str], env: &[(&str, &str)]) -> Process {
        self.spawn_at(&self.vantage, name, argv, env)
    }

    /// Starts a process that stays in a place of this node.
    pub(crate) fn spawn_at(&self, place: &Vantage, name: &str, argv: &[&str], env: &[(&str, &str)]) -> Process {
        let log = self.directory.join(format!("{}.{name}.log", self.name));
        let request = Request::Spawn { command: command(argv, env, ""), log: log.clone() };
        let pid = lab_works(place, place.pool().ask(&request));
        // The node's own connections outlive those of a pod, and all are to the same worker.
        Process::new(&self.vantage, name, pid, log)
    }

    /// Starts a server in the host's network namespace that says it is this pod, on all addresses of the node.
    pub fn serve(&self, pod: &str, tcp: &[u16], udp: &[u16]) {
        let serve = Serve {
            netns: None,
            pod: pod.to_owned(),
            node: self.name.clone(),
            addresses: Vec::new(),
            tcp: tcp.to_vec(),
            udp: udp.to_vec(),
            sctp: Vec::new(),
        };
        lab_works(&self.vantage, self.vantage.pool().ask::<()>(&Request::Serve(serve)));
    }

    /// Runs the CNI plugin as a container runtime would, with this environment and standard input.
    pub fn cni(&self, env: &[(&str, &str)], stdin: &str) -> Ended {
        let plugin = lab_works(&self.vantage, binary("fairlead-cni"));
        self.run_with(&[&plugin.to_string_lossy()], env, stdin)
    }

    /// Starts `fairlead` with these arguments and waits for its end: `node.fairlead(&["service", "list"])`.
    pub fn fairlead(&self, arguments: &[&str]) -> Ended {
        let program = lab_works(&self.vantage, binary("fairlead"));
        let argv: Vec<&str> = std::iter::once(program.to_str().unwrap_or_default()).chain(arguments.to_vec()).collect();
        self.run(&argv)
    }

    /// The node's agent.
    ///
    /// # Panics
    /// When none was started.
    #[track_caller]
    pub fn agent(&self) -> Agent<'_> {
        assert!(self.agent.lock().expect("no holder panics").is_some(), "{} has no agent", self.name);
        Agent { node: self }
    }

    /// Starts an agent without waiting for it.
    pub fn launch_agent(&self) -> Agent<'_> {
        self.launch_agent_with(&self.arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts an agent with these arguments in place of those that the lab's agents get.
    pub fn launch_agent_with(&self, arguments: &[&str]) -> Agent<'_> {
        let program = lab_works(&self.vantage, binary("fairlead"));
        self.launch(&[], &program, arguments)
    }

    /// Starts an agent of another version, by the path of its program, with what an agent may do on a cluster and no more, and waits
    /// until it is ready.
    pub fn start_agent_of(&self, program: &Path) -> Agent<'_> {
        let capabilities = format!("--bounding-set=-all{}", capabilities());
        let arguments: Vec<_> = self.arguments.iter().map(String::as_str).collect();
        let agent = self.launch(&["setpriv", "--inh-caps=-all", &capabilities], program, &arguments);
        agent.wait_ready();
        agent
    }

    /// Starts an agent as a container of the DaemonSet is, without waiting for it: with what it may do on a cluster and no more, and in
    /// a mount namespace of its own that has the node's bpf file system and cgroups as kubelet's runtimes mount them (`rslave`),
    /// below a sysfs of its own. What is mounted at `/sys/fs/bpf` later it sees only where nothing was when it was started.
    pub fn launch_contained_agent(&self) -> Agent<'_> {
        let script = format!(
            "set -e
             mkdir -p /run/container/sys
             mount -t sysfs sysfs /run/container/sys
             for each in bpf cgroup; do mount --rbind /sys/fs/$each /run/container/sys/fs/$each; done
             mount --move /run/container/sys /sys
             exec setpriv --inh-caps=-all --bounding-set=-all{} \"$@\"",
            capabilities()
        );
        let before = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", &script, "sh"];
        let program = lab_works(&self.vantage, binary("fairlead"));
        let arguments: Vec<_> = self.arguments.iter().map(String::as_str).collect();
        self.launch(&before, &program, &arguments)
    }

    /// Starts `fairlead install --keep` as a container of the DaemonSet is: with a mount of the run directory, and the node's
    /// `/sys/fs`, with mounts in it shared with the node, which [`Node::share_mounts`] has to allow before.
    pub fn spawn_keeper(&self, name: &str) -> Process {
        let program = lab_works(&self.vantage, binary("fairlead"));
        let script = "set -e
             mkdir -p /run/keeper/sys-fs
             mount --rbind /sys/fs /run/keeper/sys-fs
             mkdir -p /run/keeper/run /run/fairlead
             mount --bind /run/fairlead /run/keeper/run
             exec \"$@\"";
        let unshare = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", script, "sh"];
        let keep = [&program.to_string_lossy(), "install", "--keep", "--bpffs", "/run/keeper/sys-fs/bpf/fairlead"];
        let run_dir = ["--run-dir", "/run/keeper/run"];
        self.spawn(name, &[unshare.as_slice(), &keep, &run_dir].concat(), &[])
    }

    /// Has mounts below `/sys` go from this node to mount namespaces that are made of it, and back, as systemd has it.
    #[track_caller]
    pub fn share_mounts(&self) {
        self.must_run(&["mount", "--make-rshared", "/sys"]);
    }

    /// Starts an agent that has its objects from an API server, to which this kubeconfig leads, and waits until it is ready.
    pub fn start_agent_of_cluster(&self, kubeconfig: &Path) -> Agent<'_> {
        let program = lab_works(&self.vantage, binary("fairlead"));
        let arguments: Vec<_> = self.arguments.iter().map(String::as_str).collect();
        let agent = self.launch_from(["--kubeconfig", &kubeconfig.to_string_lossy()], &[], &program, &arguments);
        agent.wait_ready();
        agent
    }

    /// Its network namespace, for a thread of the test that is to be a process of this node.
    ///
    /// # Panics
    /// When the lab has ended.
    #[must_use]
    pub fn network(&self) -> File {
        let opened = UnixStream::connect(self.directory.join(format!("{}.sock", self.name)))
            .and_then(|worker| Ok(getsockopt(&worker, sockopt::PeerCredentials)?.pid()))
            .and_then(|pid| File::open(format!("/proc/{pid}/ns/net")));
        lab_works(&self.vantage, opened.map_err(anyhow::Error::from))
    }

    fn launch<'a>(&self, before: &[&'a str], program: &'a Path, arguments: &[&'a str]) -> Agent<'_> {
        let objects = self.manifests.directory().to_string_lossy().into_owned();
        self.launch_from(["--objects", &objects], before, program, arguments)
    }

    fn launch_from(&self, source: [&str; 2], before: &[&str], program: &Path, arguments: &[&str]) -> Agent<'_> {
        let program = program.to_string_lossy();
        let mut argv = before.to_vec();
        argv.extend([&program, "agent", "--node", &self.name]);
        argv.extend(source);
        argv.extend(arguments);
        let process = self.spawn("agent", &argv, &[]);
        *self.agent.lock().expect("no holder panics") = Some(process);
        Agent { node: self }
    }

    /// Starts an agent and waits until it is ready.
    pub fn start_agent(&self) -> Agent<'_> {
        let agent = self.launch_agent();
        agent.wait_ready();
        agent
    }

    /// Lets the node forward, and tells it where the pods of other nodes are.
    pub(crate) fn route_plainly(&self, nodes: &[NodePlan]) -> Result<()> {
        let mut commands = String::new();
        for other in nodes.iter().filter(|other| other.number != self.plan.number) {
            let [(v4, length4), (v6, length6)] = other.pod_cidrs();
            commands += &format!("route add {v4}/{length4} via {}\n", other.v4());
            commands += &format!("route add {v6}/{length6} via {}\n", other.v6());
        }
        let forward = "net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1";
        for argv in [format!("sysctl -qw {forward}"), "ip -batch -".to_owned()] {
            let argv: Vec<&str> = argv.split(' ').collect();
            let ended = self.run_with(&argv, &[], &commands);
            ensure!(ended.ok(), "{}: {}", self.name, ended.stderr);
        }
        Ok(())
    }

    /// The Node object that a kubelet would have made.
    #[must_use]
    pub fn manifest(&self) -> String {
        let [(v4, length4), (v6, length6)] = self.plan.pod_cidrs();
        let internal_v4 = if self.plan.ipv6_alone {
            String::new()
        } else {
            format!("  - {{type: InternalIP, address: {}}}\n", self.v4())
        };
        format!(
            "apiVersion: v1
kind: Node
metadata:
  name: {name}
  labels:
    kubernetes.io/hostname: {name}
    kubernetes.io/os: linux
    topology.kubernetes.io/region: lab
    topology.kubernetes.io/zone: {zone}
spec:
  podCIDR: {v4}/{length4}
  podCIDRs: [\"{v4}/{length4}\", \"{v6}/{length6}\"]
status:
  addresses:
{internal_v4}  - {{type: InternalIP, address: \"{ip6}\"}}
  - {{type: Hostname, address: {name}}}
",
            name = self.name,
            zone = self.plan.zone,
            ip6 = self.v6(),
        )
    }
}

/// The agent of a node.
#[derive(Debug, Clone, Copy)]
pub struct Agent<'a> {
    node: &'a Node,
}

impl Agent<'_> {
    /// Waits until it takes requests of the CNI plugin.
    ///
    /// # Panics
    /// When it ends before, or does not become ready.
    #[track_caller]
    pub fn wait_ready(&self) {
        let place = &self.node.vantage;
        let deadline = Instant::now() + READY;
        while !lab_works(place, place.pool().ask(&Request::Connectable(CNI_SOCKET.into()))) {
            let ended = self.with(|process| process.wait(Duration::ZERO));
            let log = self.log();
            let log = logs::end(&log);
            assert!(ended.is_none(), "the agent of {} ended ({}):\n{log}", self.node.name, ended.unwrap_or_default());
            assert!(Instant::now() < deadline, "the agent of {} is not ready after {READY:?}:\n{log}", self.node.name);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it as a crash would.
    pub fn kill9(&self) {
        self.with(|process| process.kill(9));
        self.wait_ended();
    }

    /// Asks it to end, as Kubernetes does, and waits.
    pub fn stop(&self) {
        self.with(|process| process.kill(15));
        self.wait_ended();
    }

    /// Everything that it and its predecessors on this node have written.
    #[must_use]
    pub fn log(&self) -> String {
        self.with(Process::log)
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn wait_ended(&self) {
        let ended = self.with(|process| process.wait(READY));
        assert!(ended.is_some(), "the agent of {} does not end", self.node.name);
    }

    fn with<T>(&self, act: impl FnOnce(&Process) -> T) -> T {
        act(self.node.agent.lock().expect("no holder panics").as_ref().expect("a handle is given for an agent only"))
    }
}
