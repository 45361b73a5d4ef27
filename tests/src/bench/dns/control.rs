//! etcd and an API server with the cluster's objects.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fairlead_cluster::{Builder, CLUSTER, Part};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use serde_json::{Value, json};

use super::perf::service_name;
use super::{NAMESPACES, SERVICES, upstream};

/// Where the API server is.
const ADDRESS: &str = "192.0.2.1";

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(90);

/// It ends with this.
pub(super) struct Control {
    dir: PathBuf,
    children: Vec<Child>,
}

impl Control {
    /// Starts it in the network namespace that this thread is in, and creates the objects.
    pub(super) fn start() -> Result<Self> {
        let upstream = upstream::ADDRESS.to_string();
        succeed(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        for address in [ADDRESS, &upstream] {
            succeed(Command::new("ip").args(["address", "add", &format!("{address}/32"), "dev", "lo"]))?;
        }
        let dir = std::env::temp_dir().join(format!("fairlead-bench-dns-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let mut control = Self { dir, children: Vec::new() };
        control.write_files()?;
        let etcd = [
            format!("--data-dir={}", control.dir.join("etcd").display()),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=error".to_owned(),
        ];
        let child = control.program("etcd", &part(CLUSTER, "etcd")?, &etcd)?;
        control.children.push(child);
        let file = |flag: &str, name: &str| format!("--{flag}={}", control.dir.join(name).display());
        let flags = [
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--bind-address={ADDRESS}"),
            format!("--advertise-address={ADDRESS}"),
            file("tls-cert-file", "tls.crt"),
            file("tls-private-key-file", "tls.key"),
            file("token-auth-file", "tokens"),
            file("service-account-key-file", "sa.pub"),
            file("service-account-signing-key-file", "sa.key"),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            // Nobody makes service accounts here, and nobody reports on nodes.
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition".to_owned(),
        ];
        let child = control.program("kube-apiserver", &part(CLUSTER, "kube-apiserver")?, &flags)?;
        control.children.push(child);
        control.wait()?;
        control.create()?;
        Ok(control)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// How everybody reaches it.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// A certificate that is good for TLS of all servers.
    pub(super) fn certificate(&self) -> PathBuf {
        self.dir.join("tls.crt")
    }

    pub(super) fn key(&self) -> PathBuf {
        self.dir.join("tls.key")
    }

    fn write_files(&self) -> Result<()> {
        let names = ["kubernetes.default.svc", ADDRESS, "127.0.0.1"].map(str::to_owned);
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names)?;
        let accounts = KeyPair::generate()?;
        let authority = self.certificate().display().to_string();
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: \"https://{ADDRESS}:6443\", certificate-authority: {authority}}}}}]\n\
             users: [{{name: c, user: {{token: admin}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: c}}}}]\n"
        );
        let files = [
            ("tls.crt", cert.pem()),
            ("tls.key", signing_key.serialize_pem()),
            ("sa.key", accounts.serialize_pem()),
            ("sa.pub", accounts.public_key_pem()),
            ("tokens", "admin,admin,1,system:masters\n".to_owned()),
            ("kubeconfig", kubeconfig),
        ];
        files.into_iter().try_for_each(|(name, text)| fs::write(self.dir.join(name), text))?;
        Ok(())
    }

    /// Starts a program, whose output is kept while this lives. It ends with this thread, also when that is killed.
    pub(super) fn program(&self, name: &str, program: &Path, flags: &[String]) -> Result<Child> {
        let log = File::create(self.dir.join(format!("{name}.log")))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).args(flags);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("can't start {}", program.display()))
    }

    fn kubectl(&self) -> Result<Command> {
        let mut command = Command::new(part(CLUSTER, "kubectl")?);
        command.arg("--kubeconfig").arg(self.kubeconfig()).env("HOME", &self.dir);
        Ok(command)
    }

    fn wait(&self) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let asked = self.kubectl()?.args(["get", "--raw", "/readyz"]).output()?;
            if asked.status.success() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(300));
        }
        let log = fs::read_to_string(self.dir.join("kube-apiserver.log")).unwrap_or_default();
        let end: Vec<&str> = log.lines().rev().take(10).collect();
        bail!("no API server within {} s:\n{}", PATIENCE.as_secs(), end.join("\n"));
    }

    fn create(&self) -> Result<()> {
        eprintln!("creating {SERVICES} Services");
        let file = self.dir.join("objects.json");
        fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": objects()}).to_string())?;
        let ended = self.kubectl()?.args(["create", "--validate=false", "-f"]).arg(file).output()?;
        ensure!(ended.status.success(), "kubectl create: {}", String::from_utf8_lossy(&ended.stderr));
        Ok(())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            drop(child.kill());
            drop(child.wait());
        }
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// Namespaces, Services, and the endpoints of headless ones.
fn objects() -> Vec<Value> {
    let mut objects: Vec<Value> = (0..NAMESPACES)
        .map(|number| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("ns-{number}")}}))
        .collect();
    for number in 0..SERVICES {
        let full = service_name(number);
        let (name, namespace) = full.split_once('.').unwrap_or_default();
        let headless = number % 10 == 9;
        let port = json!({"name": "http", "port": 80, "protocol": "TCP"});
        let mut spec = json!({"ports": [port], "selector": {"app": name}});
        if headless {
            spec["clusterIP"] = json!("None");
        }
        objects.push(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        }));
        if headless {
            let endpoint = |last: usize| json!({"addresses": [format!("10.244.{}.{last}", number % 200)], "conditions": {"ready": true}});
            objects.push(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {
                    "name": format!("{name}-1"), "namespace": namespace, "labels": {"kubernetes.io/service-name": name},
                },
                "endpoints": (1..6).map(endpoint).collect::<Vec<_>>(), "ports": [port],
            }));
        }
    }
    objects
}

/// A part of the cluster, built if it is missing.
pub(super) fn part(parts: &[Part], name: &str) -> Result<PathBuf> {
    let builder = Builder::new(fairlead_tree::path("tests/cluster")?)?;
    let part =
        parts.iter().find(|part| part.name == name).with_context(|| format!("{name} is no part of a cluster"))?;
    builder.build(&[*part])?;
    builder.path(part)
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("can't start {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
