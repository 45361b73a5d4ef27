//! The cluster of the demo: nodes with agents, pods from the manifests, a DNS server on each node.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::unistd::Uid;
use serde::Serialize;

use super::objects::Objects;
use super::{say, services};
use crate::binaries::binary;
use crate::deploy::Pods;
use crate::lab::Lab;
use crate::pod::Pod;

/// How long the cluster may take until all of it is in force.
const PATIENCE: Duration = Duration::from_secs(15);

/// The cluster while it runs.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) lab: Lab,
    pub(super) pods: Pods,
    pub(super) objects: Objects,
}

/// A cluster that was left running.
#[derive(Debug, Clone, Serialize)]
pub struct Kept {
    /// The lab's name.
    pub lab: String,
    /// The program that enters and ends labs.
    pub program: String,
    /// The agent's program.
    pub fairlead: String,
    /// A service address and port to ask about.
    pub service: String,
    /// A pod to ask about and to enter.
    pub pod: String,
    /// Its node.
    pub node: String,
    /// A pod and port that it may or may not reach.
    pub to: String,
}

impl Stage {
    /// Brings the cluster up.
    pub(super) fn raise() -> Result<Self> {
        ensure!(
            Uid::effective().is_root(),
            "the demo makes network namespaces and loads programs: run it as root, or by `cargo xtask demo`"
        );
        let started = Instant::now();
        say("making three nodes in two zones, with an agent on each");
        let lab = Lab::new();
        say(&format!("{} are ready after {:.1?}", lab.nodes().len(), started.elapsed()));
        let started = Instant::now();
        let pods = lab.deploy(&manifests()?, |pod| !is_dns(&pod["metadata"]["labels"]["k8s-app"]));
        say(&format!("{} pods of the manifests run after {:.1?}", pods.len(), started.elapsed()));
        let program = binary("fairlead-dns")?;
        let directory = lab.objects().directory().to_owned();
        // No servers of other zones: the demo asks nothing of the machine's own network.
        let argv =
            [&*program.to_string_lossy(), "--objects", &directory.to_string_lossy(), "--resolv-conf", "/dev/null"];
        let objects = Objects::read(&directory)?;
        for pod in objects.pods.iter().filter(|pod| pod.labels.get("k8s-app").is_some_and(|app| app == "kube-dns")) {
            let pod = pods.get(&pod.key.to_string()).with_context(|| format!("{} is not on a node", pod.key))?;
            pod.spawn("dns", &argv, &[]);
        }
        Ok(Self { lab, pods, objects })
    }

    /// Waits until the services answer to those who only look, and gives how long it took.
    pub(super) fn settle(&self, problems: &mut Vec<String>) -> Result<Duration> {
        say("waiting until everything is in force");
        let started = Instant::now();
        let clients = self.clients()?;
        loop {
            let wrong = services::failures(self, &clients)?;
            if wrong.is_empty() {
                return Ok(started.elapsed());
            }
            if started.elapsed() > PATIENCE {
                say(&format!("still not all: going on without, after {PATIENCE:?}"));
                super::complain(problems, "services that did not come into force", wrong);
                return Ok(started.elapsed());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The pods that only look, one on each node.
    pub(super) fn clients(&self) -> Result<Vec<&Pod>> {
        let clients: Vec<&Pod> = self
            .lab
            .nodes()
            .iter()
            .filter_map(|node| self.pods.get(&format!("client/client-{}", node.name())))
            .collect();
        ensure!(clients.len() == self.lab.nodes().len(), "the manifests need a client pod on each node");
        Ok(clients)
    }

    /// The names of the nodes.
    pub(super) fn nodes(&self) -> Vec<String> {
        self.lab.nodes().iter().map(|node| node.name().to_owned()).collect()
    }

    /// Leaves the cluster running.
    pub(super) fn keep(&mut self) -> Result<Kept> {
        let echo = self.objects.service("extra", "echo")?;
        let service = echo.cluster_ips.first().context("the Service echo has no address")?;
        let service = format!("{service}:{}", echo.ports.first().context("the Service echo has no port")?.port);
        let of = |prefix: &str| {
            let pod = self.pods.values().find(|pod| pod.key().starts_with(prefix));
            pod.with_context(|| format!("no pod is named {prefix}…"))
        };
        let (from, to) = (of("sock-shop/front-end-")?, of("sock-shop/carts-")?);
        let (pod, node, to) = (from.key().to_owned(), from.node().name().to_owned(), format!("{}:80", to.key()));
        let path = |name| -> Result<String> { Ok(binary(name)?.display().to_string()) };
        let (program, fairlead) = (path("fairlead-lab")?, path("fairlead")?);
        self.lab.keep();
        let lab = self.lab.id().to_owned();
        Ok(Kept { lab, program, fairlead, service, pod, node, to })
    }
}

fn is_dns(app: &serde_json::Value) -> bool {
    app == "kube-dns"
}

/// The ready-made cluster.
fn manifests() -> Result<String> {
    let directory = fairlead_tree::path("tests/data/cluster")?;
    let mut text = String::new();
    for entry in std::fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            text += &std::fs::read_to_string(&path)?;
        }
    }
    Ok(text)
}
