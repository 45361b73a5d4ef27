//! etcd and API servers.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fairlead_cluster::{Builder, CLUSTER, KUBE_PROXY};
use fairlead_objects::kubernetes::{Access, Cluster};
use fairlead_tests::Node;
use nix::sched::{CloneFlags, setns, unshare};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

/// How long anything may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(90);
const PORT: u16 = 6443;

/// Two addresses for API servers.
pub(crate) const FIRST: &str = "192.0.2.1";
pub(crate) const SECOND: &str = "192.0.2.2";

/// The node whose agent asks.
pub(crate) const NODE: &str = "node-1";

/// Who may do everything, and who may do what roles say.
pub(crate) const ADMIN: &str = "admin";
pub(crate) const AGENT: &str = "agent";

/// One test at a time: an API server takes half a second of two cores to start.
static TURN: Mutex<()> = Mutex::new(());

/// A control plane in this thread's network namespace. It ends with the test.
pub(crate) struct Control {
    dir: PathBuf,
    etcd: Option<Child>,
    servers: BTreeMap<&'static str, Child>,
    authority: (String, Issuer<'static, KeyPair>),
    _turn: MutexGuard<'static, ()>,
}

impl Control {
    /// Starts etcd in a fresh network namespace.
    pub(crate) fn new(name: &str) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("the test runs as root");
        ip(&["link", "set", "lo", "up"]);
        Self::here(name)
    }

    /// Starts etcd on a node of a lab, of which this thread becomes a process.
    pub(crate) fn on(node: &Node, name: &str) -> Self {
        setns(node.network(), CloneFlags::CLONE_NEWNET).expect("the test runs as root");
        Self::here(name)
    }

    fn here(name: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        ip(&["address", "add", &format!("{FIRST}/32"), "dev", "lo"]);
        ip(&["address", "add", &format!("{SECOND}/32"), "dev", "lo"]);
        let dir = std::env::temp_dir().join(format!("fairlead-control-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "cluster");
        let certificate = params.self_signed(&key).unwrap().pem();
        fs::write(dir.join("ca.crt"), &certificate).unwrap();
        let accounts = KeyPair::generate().unwrap();
        fs::write(dir.join("sa.key"), accounts.serialize_pem()).unwrap();
        fs::write(dir.join("sa.pub"), accounts.public_key_pem()).unwrap();
        fs::write(dir.join("tokens"), format!("{ADMIN},{ADMIN},1,system:masters\n{AGENT},{AGENT},2\n")).unwrap();
        let authority = (certificate, Issuer::new(params, key));
        let mut control = Self { dir, etcd: None, servers: BTreeMap::new(), authority, _turn: turn };
        control.etcd = Some(control.program(
            "etcd",
            "etcd",
            &[
                format!("--data-dir={}", control.dir.join("etcd").display()),
                "--unsafe-no-fsync".to_owned(),
                "--log-level=error".to_owned(),
            ],
        ));
        control
    }

    /// Where files of the test go.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts an API server whose certificate has these names beside `kubernetes.default.svc`, and waits until it is
    /// ready.
    pub(crate) async fn serve(&mut self, address: &'static str, names: &[&str], more: &[&str]) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["kubernetes.default.svc".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName((*name).try_into().unwrap()),
            });
        }
        let certificate = params.signed_by(&key, &self.authority.1).unwrap().pem();
        let file = |end: &str| self.dir.join(format!("{address}.{end}"));
        fs::write(file("crt"), certificate).unwrap();
        fs::write(file("key"), key.serialize_pem()).unwrap();
        let flag = |name: &str, path: PathBuf| format!("--{name}={}", path.display());
        let mut flags = vec![
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--bind-address={address}"),
            format!("--advertise-address={address}"),
            format!("--secure-port={PORT}"),
            flag("tls-cert-file", file("crt")),
            flag("tls-private-key-file", file("key")),
            flag("token-auth-file", self.dir.join("tokens")),
            flag("service-account-key-file", self.dir.join("sa.pub")),
            flag("service-account-signing-key-file", self.dir.join("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            // Nobody makes service accounts here, and nobody reports on nodes.
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition".to_owned(),
        ];
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        let child = self.program(address, "kube-apiserver", &flags);
        self.servers.insert(address, child);
        let begin = Instant::now();
        let client = self.cluster(ADMIN, address).client().await;
        loop {
            let ready = http::Request::get("/readyz").body(Vec::new()).unwrap();
            match client.request_text(ready).await {
                Ok(_) => return,
                Err(error) => {
                    let log = fs::read_to_string(self.dir.join(format!("{address}.log"))).unwrap_or_default();
                    let end: Vec<_> = log.lines().rev().take(20).collect();
                    let ended = self.servers.get_mut(address).is_some_and(|child| child.try_wait().unwrap().is_some());
                    assert!(
                        begin.elapsed() < PATIENCE && !ended,
                        "no API server at {address}: {error}\n{}",
                        end.join("\n")
                    );
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Ends an API server without a word, as kill -9 does.
    pub(crate) fn kill(&mut self, address: &str) {
        let mut child = self.servers.remove(address).expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The way of a user to one server, whatever address its certificate has.
    pub(crate) fn cluster(&self, user: &str, address: &str) -> Cluster {
        let kubeconfig = Some(self.kubeconfig(user, address, ", tls-server-name: kubernetes.default.svc"));
        Cluster::new(Access { kubeconfig, ..Access::default() })
    }

    /// The way of the agent of a node.
    pub(crate) fn node(&self, user: &str, address: &str) -> Cluster {
        let (kubeconfig, run_dir) = (Some(self.kubeconfig(user, address, "")), Some(self.dir.clone()));
        Cluster::new(Access { kubeconfig, run_dir, server: None })
    }

    /// A kubeconfig, with more of the server.
    pub(crate) fn kubeconfig(&self, user: &str, address: &str, more: &str) -> PathBuf {
        let path = self.dir.join(format!("{user}-{address}-{}.conf", more.len()));
        let authority = self.dir.join("ca.crt").display().to_string();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: \"https://{address}:{PORT}\", certificate-authority: {authority}{more}}}}}]\n\
             users: [{{name: c, user: {{token: {user}}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: c}}}}]\n"
        );
        fs::write(&path, text).unwrap();
        path
    }

    fn program(&self, name: &str, program: &str, flags: &[String]) -> Child {
        let log = fs::File::create(self.dir.join(format!("{name}.log"))).unwrap();
        // It ends with this thread, also when the test is killed.
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(part(program))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        for child in self.servers.values_mut().chain(&mut self.etcd) {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln!("logs of the control plane are in {}", self.dir.display());
        } else {
            drop(fs::remove_dir_all(&self.dir));
        }
    }
}

fn ip(words: &[&str]) {
    let status = Command::new("ip").args(words).status().expect("`ip` of iproute2: `cargo xtask setup` installs it");
    assert!(status.success(), "ip {words:?}: {status}");
}

/// A part of the cluster, built if it is missing, as `cargo xtask cluster up` does.
pub(crate) fn part(name: &str) -> PathBuf {
    let modules = fairlead_tree::path("tests/cluster").expect("tests run in a work tree");
    let builder = Builder::new(modules).expect("there is a place for parts");
    let part = CLUSTER.iter().chain(KUBE_PROXY).find(|part| part.name == name).expect("it is a part of a cluster");
    builder.build(&[*part]).expect("the parts of a cluster can be built");
    builder.path(part).unwrap()
}
