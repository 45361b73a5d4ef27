//! A cluster that is up, and what can be done with it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::inner::Helper;
use crate::place::{FABRIC, Home, Place, Record, Spec};
use crate::{node_config, teardown};

/// A cluster. To drop it changes nothing, unless it is guarded.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) home: Home,
    pub(crate) record: Record,
    pub(crate) helper: Helper,
    /// Takes the cluster down when we are gone.
    guard: Option<Child>,
}

impl Cluster {
    pub(crate) fn new(home: Home, record: Record, helper: Helper) -> Self {
        Self { home, record, helper, guard: None }
    }

    /// The cluster in a directory.
    pub fn open(directory: &Path, helper: Helper) -> Result<Self> {
        let home = Home::new(directory);
        let record = home.record()?;
        Ok(Self::new(home, record, helper))
    }

    /// Has the cluster go down when this value is dropped or this process ends, however that comes.
    pub(crate) fn guarded(mut self) -> Result<Self> {
        let guard = self.helper.command("guard", &self.home.path)?.stdin(Stdio::piped()).spawn();
        self.guard = Some(guard.context("can't start what takes the cluster down")?);
        Ok(self)
    }

    /// What it was asked to be.
    pub fn spec(&self) -> &Spec {
        &self.record.spec
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.home.path
    }

    /// The kubeconfig of its administrator; it works from the fabric.
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.path.join("admin.conf")
    }

    /// Writes down who connects the pods, for whoever comes later.
    pub fn set_network(&self, name: &str) -> Result<()> {
        Ok(std::fs::write(self.home.path.join("network"), name)?)
    }

    /// Who connects the pods, as was written down.
    pub fn network(&self) -> String {
        std::fs::read_to_string(self.home.path.join("network")).unwrap_or_else(|_| "none".to_owned())
    }

    /// One of the cluster's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.record.programs.join(name)
    }

    /// The logs of the fabric, or of a node.
    pub fn logs(&self, place: &str) -> PathBuf {
        self.place(place).logs()
    }

    pub(crate) fn place(&self, name: &str) -> Place {
        self.home.place(name)
    }

    /// A command that runs in the fabric's network, where the API server and all nodes are reached.
    pub fn in_fabric(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.place(FABRIC).alive()?.pid)).arg("--").arg(program);
        for variable in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env_remove(variable);
        }
        Ok(command)
    }

    /// A command that runs as a process of a node.
    pub fn in_node(&self, node: &str) -> Result<Command> {
        self.place(node).alive()?;
        let mut command = self.helper.command("enter", &self.home.path)?;
        command.arg(node);
        Ok(command)
    }

    /// A command that runs in a container of a node by its id, without the API server and kubelet having part in it.
    pub fn in_container(&self, node: &str, id: &str) -> Result<Command> {
        let mut command = self.ctr(node)?;
        let exec = format!(
            "exec-{:x}",
            u128::from(std::process::id()) ^ SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos()
        );
        command.args(["tasks", "exec", "--exec-id", &exec, id]);
        Ok(command)
    }

    /// Gives an image of a node another name too.
    pub fn tag_image(&self, node: &str, name: &str, other: &str) -> Result<()> {
        let output = self.ctr(node)?.args(["images", "tag", "--force", name, other]).stdin(Stdio::null()).output()?;
        ensure!(
            output.status.success(),
            "{node} has no {name}: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(())
    }

    /// The command line of a node's containerd, where Kubernetes has its containers.
    fn ctr(&self, node: &str) -> Result<Command> {
        let mut command = self.in_node(node)?;
        command.arg(format!("{}/ctr", node_config::PROGRAMS)).args(["--namespace", "k8s.io"]);
        Ok(command)
    }

    /// A kubectl command, as the administrator.
    pub fn kubectl_command(&self) -> Result<Command> {
        let mut command = self.in_fabric(self.program("kubectl"))?;
        command.arg("--kubeconfig").arg(self.kubeconfig());
        Ok(command)
    }

    /// Runs kubectl and gives what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.kubectl_command()?.args(arguments).stdin(Stdio::null()).output()?;
        ensure!(
            output.status.success(),
            "`kubectl {}` failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `kubectl apply` of a text.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let mut child = self
            .kubectl_command()?
            .args(["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        std::io::Write::write_all(&mut child.stdin.take().context("it is piped")?, manifest.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "can't apply: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        Ok(())
    }

    /// Brings the images of an archive into every node.
    pub fn load(&self, archive: &Path) -> Result<()> {
        thread::scope(|scope| {
            let loads: Vec<_> =
                self.spec().node_names().map(|(_, node)| scope.spawn(move || self.load_into(&node, archive))).collect();
            loads.into_iter().try_for_each(|load| load.join().expect("it returns its errors"))
        })
    }

    /// Brings the images of an archive into one node.
    pub(crate) fn load_into(&self, node: &str, archive: &Path) -> Result<()> {
        let init = self.place(node).alive()?;
        // The node's files, as seen from here.
        let socket = format!("/proc/{}/root/run/containerd/containerd.sock", init.pid);
        wait(
            Duration::from_secs(30),
            || format!("containerd of {node} does not answer: see {}", self.logs(node).display()),
            || Ok(Path::new(&socket).exists().then_some(())),
        )?;
        let output = Command::new(self.program("ctr"))
            .args(["--address", &socket, "--namespace", "k8s.io", "images", "import", "--local"])
            .arg(archive)
            .stdin(Stdio::null())
            .output()
            .context("can't start ctr")?;
        ensure!(
            output.status.success(),
            "{node} does not take {}: {}",
            archive.display(),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(())
    }

    /// Waits until every node can have pods, and DNS answers.
    pub fn wait_until_ready(&self) -> Result<()> {
        self.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=120s"])?;
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let pods = self.kubectl(&[
                "wait",
                "--for=condition=Ready",
                "pod",
                "--all",
                "--namespace=kube-system",
                "--timeout=120s",
            ]);
            match pods {
                // A pod that goes meanwhile is an error to kubectl.
                Err(error) if format!("{error:#}").contains("NotFound") && Instant::now() < deadline => {}
                result => return result.map(drop),
            }
        }
    }

    /// The networks of a node's pods, IPv4 first.
    pub fn pod_cidrs(&self, node: &str) -> Result<Vec<String>> {
        let text = self.kubectl(&["get", "node", node, "--output=json"])?;
        pod_cidrs(&text).with_context(|| format!("{node} has no addresses for pods yet"))
    }

    /// The addresses of a node.
    pub fn node_addresses(&self, node: &str) -> Result<(std::net::Ipv4Addr, std::net::Ipv6Addr)> {
        crate::inner::addresses(&self.record, node)
    }

    /// What of the cluster runs, a line for each place.
    pub fn status(&self) -> Vec<String> {
        let mut lines = vec![format!("cluster {} in {}", self.spec().name, self.home.path.display())];
        for name in [FABRIC.to_owned()].into_iter().chain(self.spec().node_names().map(|(_, name)| name)) {
            let place = self.place(&name);
            lines.push(match place.alive() {
                Ok(init) => format!("{name:<10} runs, first process {}, logs in {}", init.pid, place.logs().display()),
                Err(error) => format!("{error:#}"),
            });
        }
        lines
    }

    /// Ends it and gives the machine back.
    pub fn down(mut self) -> Result<()> {
        let result = teardown::down(&self.home);
        self.guard_ends();
        result
    }

    fn guard_ends(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            // It says by itself what it could not do.
            let _ = guard.wait();
        }
    }

    /// The image that holds pods' namespaces, which no pod names.
    pub fn pause_image() -> &'static str {
        node_config::PAUSE_IMAGE
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.guard_ends();
    }
}

pub(crate) fn pod_cidrs(node: &str) -> Option<Vec<String>> {
    let node: Value = serde_json::from_str(node).ok()?;
    let cidrs = node["spec"]["podCIDRs"].as_array()?;
    Some(cidrs.iter().filter_map(|cidr| cidr.as_str().map(str::to_owned)).collect())
}

/// Asks again and again until there is an answer.
pub(crate) fn wait<T>(
    time: Duration,
    complaint: impl Fn() -> String,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + time;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("{} (waited {} s)", complaint(), time.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
}
