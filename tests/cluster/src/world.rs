//! The cluster that `cargo xtask test` has brought up.

use std::collections::BTreeMap;
use std::env;
use std::net::IpAddr;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fairlead_cluster::{Builder, CLUSTER_DNS, Cluster, Helper, Host};
use serde_json::Value;

use crate::load::Strain;
use crate::objects::{self, NAMESPACE};

/// The namespace of all that Fairlead consists of.
pub const SYSTEM: &str = "kube-system";
const DAEMON_SETS: [&str; 2] = ["fairlead", "fairlead-dns"];

/// A cluster with Fairlead on it.
#[derive(Debug)]
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// The machine that it is on.
    pub host: Host,
}

/// What pods leave on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// Links of pods, by `ip link`.
    pub links: usize,
    /// Pods that the agent knows.
    pub pods: usize,
    /// Names below the bpf file system.
    pub pins: usize,
}

/// A pod that can put load on others.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) node: String,
    /// The id of its container.
    pub(crate) container: String,
}

impl World {
    /// The cluster as it is.
    ///
    /// # Errors
    /// Nobody has brought it up.
    pub fn bare() -> Result<Self> {
        let said =
            |name: &str| env::var_os(name).with_context(|| format!("{name} is not set: `cargo xtask test` runs this"));
        let host = Host {
            builder: Builder::new(fairlead_tree::path("tests/cluster")?)?,
            clusters: fairlead_cluster::cache()?.join("clusters"),
            helper: Helper(vec![said("FAIRLEAD_XTASK")?, "cluster".into(), "inner".into()]),
        };
        let name = said("FAIRLEAD_CLUSTER")?;
        let cluster = host.open(&name.to_string_lossy())?;
        Ok(Self { cluster, host })
    }

    /// The cluster with Fairlead in force on every node.
    ///
    /// # Errors
    /// Something does not come up; the error says what.
    pub fn open() -> Result<Self> {
        let world = Self::bare()?;
        world.install()?;
        Ok(world)
    }

    /// `kubectl apply`, and waits until everything is ready. Fine if it is there already.
    ///
    /// # Errors
    /// Something does not become ready.
    pub fn install(&self) -> Result<()> {
        self.cluster.kubectl(&["apply", "--kustomize", &self.manifests()?])?;
        self.settle()
    }

    /// What is applied.
    ///
    /// # Errors
    /// This runs in no work tree.
    pub fn manifests(&self) -> Result<String> {
        Ok(fairlead_tree::path("tests/cluster/install")?.display().to_string())
    }

    /// Takes Fairlead away, as manifests/README.md says.
    ///
    /// # Errors
    /// Something stays.
    pub fn uninstall(&self) -> Result<()> {
        for name in DAEMON_SETS {
            self.system(&["delete", "daemonset", name, "--wait"])?;
        }
        let selector = "--selector=app.kubernetes.io/name in (fairlead,fairlead-dns)";
        self.system(&["wait", "--for=delete", "pod", selector, "--timeout=60s"])?;
        let folder = fairlead_tree::path("manifests/remove")?;
        self.cluster.kubectl(&["apply", "--kustomize", &folder.display().to_string()])?;
        self.system(&["rollout", "status", "daemonset/fairlead-remove", "--timeout=120s"])?;
        self.cluster.kubectl(&["delete", "--kustomize", &folder.display().to_string(), "--wait"])?;
        // The DaemonSet goes before its pods do.
        let selector = "--selector=app.kubernetes.io/name=fairlead-remove";
        self.system(&["wait", "--for=delete", "pod", selector, "--timeout=60s"])?;
        Ok(())
    }

    /// Takes the agents away, as whoever replaces them by another version does for a while. What they made stays.
    ///
    /// # Errors
    /// The API server refuses.
    pub fn remove_agents(&self) -> Result<()> {
        self.system(&["delete", "daemonset", "fairlead", "--cascade=foreground", "--wait"]).map(drop)
    }

    /// Has every pod of Fairlead run this image, and waits for the end of the rollout.
    ///
    /// # Errors
    /// It does not end.
    pub fn upgrade(&self, image: &str) -> Result<()> {
        let containers = [("fairlead", ["install", "agent", "keep"].as_slice()), ("fairlead-dns", &["dns"])];
        for (set, containers) in containers {
            let set = format!("daemonset/{set}");
            let images: Vec<_> = containers.iter().map(|container| format!("{container}={image}")).collect();
            let mut arguments = vec!["set", "image", &set];
            arguments.extend(images.iter().map(String::as_str));
            self.system(&arguments)?;
        }
        self.settle()
    }

    /// kubectl in the namespace of the cluster's own parts.
    ///
    /// # Errors
    /// It fails.
    pub fn system(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(&[&["--namespace", SYSTEM], arguments].concat())
    }

    /// Takes the peer's DNS away.
    ///
    /// # Errors
    /// The API server refuses.
    pub fn remove_coredns(&self) -> Result<()> {
        self.system(&["delete", "deployment", "coredns", "--wait"])?;
        Ok(())
    }

    /// Waits until Fairlead runs everywhere as it should, and nodes are ready.
    ///
    /// # Errors
    /// They don't become so.
    pub fn settle(&self) -> Result<()> {
        for name in DAEMON_SETS {
            let set = format!("daemonset/{name}");
            if let Err(error) = self.system(&["rollout", "status", &set, "--timeout=120s"]) {
                bail!("{error:#}\n{}", self.complaints());
            }
        }
        wait(Duration::from_secs(60), || self.nodes_are_ready())
    }

    /// What may tell why something is not ready.
    fn complaints(&self) -> String {
        [
            vec!["get", "nodes,pods", "--all-namespaces", "--output=wide"],
            vec!["--namespace", SYSTEM, "describe", "pods", "--selector=app.kubernetes.io/name=fairlead"],
            vec!["--namespace", SYSTEM, "logs", "daemonset/fairlead", "--all-containers", "--tail=50"],
            vec!["--namespace", SYSTEM, "logs", "daemonset/fairlead-dns", "--tail=50"],
        ]
        .iter()
        .map(|arguments| self.cluster.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}")))
        .collect::<Vec<_>>()
        .join("\n")
    }

    /// Makes servers and clients, and gives the load that clients can put on servers.
    ///
    /// # Errors
    /// They don't come up.
    pub fn strain(&self) -> Result<Strain> {
        self.cluster.apply(&objects::strain())?;
        for name in ["echo", "client"] {
            let set = format!("daemonset/{name}");
            self.own(&["rollout", "status", &set, "--timeout=120s"])?;
        }
        Ok(Strain::new("echo", self.addresses_of("echo")?, CLUSTER_DNS.parse()?))
    }

    /// The same servers behind one more service, of this name.
    ///
    /// # Errors
    /// They don't come up, or the API server refuses the name.
    pub fn strain_by(&self, name: &str) -> Result<Strain> {
        self.strain()?;
        self.cluster.apply(&objects::service(name, "echo"))?;
        Ok(Strain::new(name, self.addresses_of(name)?, CLUSTER_DNS.parse()?))
    }

    /// The addresses of a Service of the tests' namespace.
    ///
    /// # Errors
    /// It is not there.
    pub fn addresses_of(&self, service: &str) -> Result<Vec<IpAddr>> {
        let service: Value = self.json(&["--namespace", NAMESPACE, "get", "service", service])?;
        let addresses = service["spec"]["clusterIPs"].as_array().context("the service has addresses")?;
        Ok(addresses.iter().filter_map(|ip| ip.as_str()?.parse().ok()).collect())
    }

    /// Makes the pods of [`Self::strain`] anew, as must be done when another network has come.
    ///
    /// # Errors
    /// They don't go, or don't come up.
    pub fn renew(&self) -> Result<Strain> {
        self.own(&["delete", "pods", "--all", "--wait", "--timeout=120s"])?;
        self.strain()
    }

    /// Has so many pods exist that only exist; waits until all are ready, or gone.
    ///
    /// # Errors
    /// They don't become so in time.
    pub fn crowd(&self, count: usize, patience: Duration) -> Result<()> {
        self.cluster.apply(&objects::crowd(count))?;
        wait(patience, || {
            let pods = self.json(&["--namespace", NAMESPACE, "get", "pods", "--selector=app=crowd"])?;
            let pods = pods["items"].as_array().context("a list")?;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            ensure!(ready == count && pods.len() == count, "{ready} of {} pods are ready, {count} wanted", pods.len());
            Ok(())
        })
    }

    /// kubectl in the namespace of the tests' own pods.
    ///
    /// # Errors
    /// It fails.
    pub fn own(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(&[&["--namespace", NAMESPACE], arguments].concat())
    }

    /// The clients that can put load on servers.
    pub(crate) fn clients(&self) -> Result<Vec<Client>> {
        let pods = self.json(&["--namespace", NAMESPACE, "get", "pods", "--selector=app=client"])?;
        let client = |pod: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let id = text(&pod["status"]["containerStatuses"][0]["containerID"]);
            let container = id.trim_start_matches("containerd://").to_owned();
            Client { name: text(&pod["metadata"]["name"]), node: text(&pod["spec"]["nodeName"]), container }
        };
        Ok(pods["items"].as_array().context("a list")?.iter().map(client).collect())
    }

    /// Fairlead's pods of one of its daemon sets.
    ///
    /// # Errors
    /// The API server does not say.
    pub fn pods_of(&self, set: &str) -> Result<Vec<Value>> {
        let selector = format!("--selector=app.kubernetes.io/name={set}");
        let mut list = self.json(&["--namespace", SYSTEM, "get", "pods", &selector])?;
        match list["items"].take() {
            Value::Array(pods) => Ok(pods),
            other => bail!("no list of pods: {other}"),
        }
    }

    /// Their names, by node.
    ///
    /// # Errors
    /// The API server does not say.
    pub fn own_pods(&self, set: &str) -> Result<BTreeMap<String, String>> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pods = self.pods_of(set)?;
        Ok(pods.iter().map(|pod| (text(&pod["spec"]["nodeName"]), text(&pod["metadata"]["name"]))).collect())
    }

    /// Replaces every pod of Fairlead, as an upgrade does, and waits for the end.
    ///
    /// # Errors
    /// It does not end.
    pub fn roll_out(&self) -> Result<()> {
        for name in DAEMON_SETS {
            self.system(&["rollout", "restart", &format!("daemonset/{name}")])?;
        }
        self.settle()
    }

    /// Ends the process of one of Fairlead's containers as `kill -9` does, and returns when all is well again.
    ///
    /// # Errors
    /// It is not there, or does not come back.
    pub fn kill(&self, set: &str, node: &str) -> Result<()> {
        self.kill_process(set, node)?;
        self.settle()
    }

    /// The same, and returns when the next process is there; it need not be able to do anything yet.
    ///
    /// # Errors
    /// It is not there, or does not come back.
    pub fn kill_process(&self, set: &str, node: &str) -> Result<()> {
        let program = program(set);
        let pid = self.pid_of(node, program)?;
        self.in_node(node, &["kill", "-9", &pid.to_string()])?;
        wait(Duration::from_secs(60), || {
            let now = self.pid_of(node, program)?;
            ensure!(now != pid, "{program} of {node} still runs");
            Ok(())
        })
    }

    /// The memory of the process of one of Fairlead's containers that is in use, in KiB.
    ///
    /// # Errors
    /// It is not there.
    pub fn resident(&self, set: &str, node: &str) -> Result<u64> {
        let pid = self.pid_of(node, program(set))?;
        let status = self.in_node(node, &["cat", &format!("/proc/{pid}/status")])?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process has memory")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// The process of a node whose command line begins with a path that ends in this.
    fn pid_of(&self, node: &str, program: &str) -> Result<u32> {
        let text = self.in_node(node, &["ps", "-eo", "pid,args"])?;
        let found = text.lines().find_map(|line| {
            let (pid, arguments) = line.trim_start().split_once(' ')?;
            arguments.trim_start().strip_prefix("/usr/bin/")?.starts_with(program).then(|| pid.parse().ok())?
        });
        found.with_context(|| format!("{node} runs no {program}"))
    }

    /// Runs a command as a process of a node and gives what it printed.
    ///
    /// # Errors
    /// It fails.
    pub fn in_node(&self, node: &str, command: &[&str]) -> Result<String> {
        let output = self.cluster.in_node(node)?.args(command).stdin(Stdio::null()).output()?;
        ensure!(
            output.status.success(),
            "{command:?} on {node} failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What an agent says to a question of its command line.
    ///
    /// # Errors
    /// It does not say.
    pub fn ask(&self, node: &str, question: &[&str]) -> Result<Value> {
        let pods = self.own_pods("fairlead")?;
        let pod = pods.get(node).with_context(|| format!("{node} has no agent"))?;
        let mut arguments =
            vec!["--namespace", SYSTEM, "exec", pod, "--container=agent", "--", "/usr/bin/fairlead", "-o", "json"];
        arguments.extend(question);
        Ok(serde_json::from_str(&self.cluster.kubectl(&arguments)?)?)
    }

    /// What pods have left on a node at this moment.
    ///
    /// # Errors
    /// The node does not say.
    pub fn footprint(&self, node: &str) -> Result<Footprint> {
        let status = self.ask(node, &["status"])?;
        let pods = status["pods"].as_array().with_context(|| format!("status lists no pods: {status}"))?.len();
        let links = self.in_node(node, &["ip", "-oneline", "link", "show", "type", "veth"])?;
        let pins = self.in_node(node, &["find", "/sys/fs/bpf/fairlead"])?;
        Ok(Footprint { links: links.lines().count(), pods, pins: pins.lines().count() })
    }

    /// Whether every node may have pods at this moment.
    ///
    /// # Errors
    /// One may not.
    pub fn nodes_are_ready(&self) -> Result<()> {
        let nodes = self.json(&["get", "nodes"])?;
        let away = nodes["items"].as_array().context("a list")?.iter().find(|node| !is_ready(node));
        away.map_or(Ok(()), |node| bail!("{} is not ready: {}", node["metadata"]["name"], node["status"]["conditions"]))
    }

    /// The names of the nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        self.cluster.spec().node_names().map(|(_, name)| name).collect()
    }

    /// A kubectl answer as JSON.
    ///
    /// # Errors
    /// kubectl fails.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut arguments = arguments.to_vec();
        arguments.push("--output=json");
        Ok(serde_json::from_str(&self.cluster.kubectl(&arguments)?)?)
    }
}

/// What the command line of a daemon set's process begins with.
fn program(set: &str) -> &'static str {
    if set == "fairlead" { "fairlead agent" } else { "fairlead-dns" }
}

/// Of pods and of nodes.
fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Tries until it succeeds; the last error when the time is over.
///
/// # Errors
/// The time is over.
pub fn wait<T>(patience: Duration, attempt: impl Fn() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(250)),
            result => return result.with_context(|| format!("after {} s", patience.as_secs())),
        }
    }
}
