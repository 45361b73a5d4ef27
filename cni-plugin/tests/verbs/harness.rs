//! A node with an agent whose datapath does nothing, and a runtime that calls the plugin.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fairlead_agent::cni::{AttachError, AttachedPod, Health, KnownPod, NodeNetwork, PodNetwork, Server};
use fairlead_agent::wiring::{Netlink, PodLinks};
use fairlead_cni::protocol::Attachment;
use fairlead_objects::ObjectKey;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};

use crate::netns::Netns;

/// What the double does with an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attaching {
    Succeeds,
    Fails,
    /// Until the test lets it go on.
    Waits,
}

/// The double of model and datapath.
pub(crate) struct Double {
    pub(crate) health: Mutex<Health>,
    pub(crate) node: Mutex<Option<NodeNetwork>>,
    pub(crate) pods: Mutex<HashMap<ObjectKey, KnownPod>>,
    pub(crate) attaching: Mutex<Attaching>,
    /// What lets attachments go on that wait, one each.
    pub(crate) go_on: Semaphore,
    pub(crate) attached: Mutex<Vec<AttachedPod>>,
    /// Pods to and from which nothing passes any more.
    pub(crate) closed: Mutex<Vec<AttachedPod>>,
    pub(crate) detached: Mutex<Vec<AttachedPod>>,
    /// Host sides that are deleted.
    pub(crate) deleted: Mutex<Vec<String>>,
}

impl PodNetwork for Double {
    fn health(&self) -> Health {
        self.health.lock().unwrap().clone()
    }

    fn node(&self) -> Option<NodeNetwork> {
        self.node.lock().unwrap().clone()
    }

    fn pod(&self, key: &ObjectKey) -> Option<KnownPod> {
        let unknown = KnownPod { uid: String::new(), ips: Vec::new() };
        Some(self.pods.lock().unwrap().get(key).cloned().unwrap_or(unknown))
    }

    fn owner(&self, ip: IpAddr) -> Option<ObjectKey> {
        let pods = self.pods.lock().unwrap();
        pods.iter().find(|(_, pod)| pod.ips.contains(&ip)).map(|(key, _)| key.clone())
    }

    async fn attach(&self, pod: AttachedPod) -> Result<(), AttachError> {
        let attaching = *self.attaching.lock().unwrap();
        match attaching {
            Attaching::Succeeds => {}
            Attaching::Fails => return Err(AttachError("the verifier said no".to_owned())),
            Attaching::Waits => self.go_on.acquire().await.unwrap().forget(),
        }
        self.attached.lock().unwrap().push(pod);
        Ok(())
    }

    async fn close(&self, pod: AttachedPod) -> bool {
        self.closed.lock().unwrap().push(pod);
        true
    }

    async fn detach(&self, pod: AttachedPod) {
        self.detached.lock().unwrap().push(pod);
    }

    fn deleted(&self, host_link: &str) {
        let links = nix::net::if_::if_nameindex().unwrap();
        let there = links.iter().any(|link| link.name().to_bytes() == host_link.as_bytes());
        assert!(!there, "{host_link} is still there");
        self.deleted.lock().unwrap().push(host_link.to_owned());
    }
}

/// A node.
pub(crate) struct Node {
    pub(crate) netns: Netns,
    pub(crate) double: Arc<Double>,
    pub(crate) directory: PathBuf,
    agent: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

pub(crate) const NODE_V4: &str = "172.18.0.2";
pub(crate) const NODE_V6: &str = "fd00:172:18::2";

impl Node {
    /// A node whose agent runs.
    pub(crate) fn new() -> Self {
        let mut node = Self::without_agent();
        node.start_agent();
        node
    }

    pub(crate) fn without_agent() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        // As /run is: memory, where the journal's syncs cost nothing.
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let directory = base.join(format!("fairlead-cni-{}-{n}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let netns = Netns::new();
        netns.command("ip link set lo up");
        netns.command("ip link add uplink type veth peer name fabric");
        netns.command("ip link set fabric up");
        netns.command("ip link set uplink up mtu 1450");
        netns.command(&format!("ip addr add {NODE_V4}/24 dev uplink"));
        netns.command(&format!("ip addr add {NODE_V6}/64 dev uplink nodad"));
        let network = NodeNetwork {
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd00:10:244:1::/64".parse().unwrap()],
            mtu: 1450,
            addresses: vec![NODE_V4.parse().unwrap(), NODE_V6.parse().unwrap()],
        };
        let double = Arc::new(Double {
            health: Mutex::new(Health::Ready),
            node: Mutex::new(Some(network)),
            pods: Mutex::default(),
            attaching: Mutex::new(Attaching::Succeeds),
            go_on: Semaphore::new(0),
            attached: Mutex::default(),
            closed: Mutex::default(),
            detached: Mutex::default(),
            deleted: Mutex::default(),
        });
        Self { netns, double, directory, agent: None }
    }

    /// Connections of plugins to the agent.
    pub(crate) fn connections(&self) -> usize {
        const CONNECTED: Option<&str> = Some("03");
        // A socket keeps the name that it was bound to.
        let path = self.socket().with_extension("new").display().to_string();
        let sockets = self.netns.run(|| std::fs::read_to_string("/proc/thread-self/net/unix").unwrap());
        sockets.lines().filter(|line| line.ends_with(&path) && line.split_whitespace().nth(5) == CONNECTED).count()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("cni.sock")
    }

    pub(crate) fn start_agent(&mut self) {
        let (stop, stopped) = oneshot::channel();
        let (ready, listening) = std::sync::mpsc::channel();
        let (double, socket) = (Arc::clone(&self.double), self.socket());
        let agent = async move {
            let links = PodLinks::new(Netlink::open().unwrap());
            let server = Server::open(double, links, &socket).await.unwrap();
            ready.send(()).unwrap();
            tokio::select! {
                ended = server.run() => panic!("{ended:?}"),
                _ = stopped => {}
            }
        };
        let thread = self.netns.run(move || {
            std::thread::spawn(move || {
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(agent);
            })
        });
        listening.recv().expect("the agent did not start");
        self.agent = Some((stop, thread));
    }

    /// Stops it as kill -9 would: nothing is tidied up.
    pub(crate) fn stop_agent(&mut self) {
        if let Some((stop, thread)) = self.agent.take() {
            drop(stop);
            thread.join().unwrap();
        }
    }

    /// A configuration as a runtime passes it.
    pub(crate) fn conf(&self, version: &str) -> Value {
        json!({"cniVersion": version, "name": "pods", "type": "fairlead-cni", "socket": self.socket()})
    }

    /// Executes the plugin with these variables and this input.
    pub(crate) fn call(&self, vars: &[(&str, &str)], input: impl AsRef<[u8]>) -> Answer {
        call_in(&self.netns, vars, input)
    }

    /// Executes the plugin for a container.
    pub(crate) fn verb(&self, verb: &str, container: &Container, conf: &Value) -> Answer {
        self.call(&container.vars(verb).iter().map(|(k, v)| (*k, v.as_str())).collect::<Vec<_>>(), conf.to_string())
    }

    /// The same for a further interface of it.
    pub(crate) fn verb_of(&self, verb: &str, container: &Container, ifname: &str, conf: &Value) -> Answer {
        let vars = container.vars_of(verb, ifname);
        self.call(&vars.iter().map(|(k, v)| (*k, v.as_str())).collect::<Vec<_>>(), conf.to_string())
    }

    /// An ADD that has to succeed.
    pub(crate) fn add(&self, container: &Container) -> Value {
        self.verb("ADD", container, &self.conf("1.1.0")).result()
    }

    /// Waits until what goes on behind the answer of a DEL is done.
    pub(crate) fn finished(&self) {
        let directory = fairlead_cni::queue::directory(&self.socket());
        let deadline = Instant::now() + Duration::from_secs(30);
        while !fairlead_cni::queue::list(&directory).unwrap().is_empty() {
            assert!(Instant::now() < deadline, "the deletion is not done");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The host sides that exist.
    pub(crate) fn host_links(&self) -> Vec<Value> {
        let links: Vec<Value> = serde_json::from_str(&self.netns.command("ip -j -d link show type veth")).unwrap();
        links.into_iter().filter(|link| link["ifname"].as_str().is_some_and(|name| name.starts_with("fl"))).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop_agent();
        let _leftover = std::fs::remove_dir_all(&self.directory);
    }
}

/// Executes the plugin in a namespace.
pub(crate) fn call_in(netns: &Netns, vars: &[(&str, &str)], input: impl AsRef<[u8]>) -> Answer {
    let vars: Vec<(String, String)> = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let input = input.as_ref().to_vec();
    netns.run(move || execute(&vars, &input))
}

/// Executes the plugin in the namespace of the calling thread.
pub(crate) fn execute<K: AsRef<std::ffi::OsStr>>(vars: &[(K, String)], input: &[u8]) -> Answer {
    {
        let mut child = Command::new(std::env::var_os("CARGO_BIN_EXE_fairlead-cni").expect("`cargo test` sets it"))
            .env_clear()
            .envs(vars.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
        let out = child.wait_with_output().unwrap();
        Answer {
            success: out.status.success(),
            stdout: String::from_utf8(out.stdout).unwrap(),
            stderr: String::from_utf8(out.stderr).unwrap(),
        }
    }
}

/// What the plugin said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    /// The result of a verb that has to succeed and print one.
    pub(crate) fn result(&self) -> Value {
        assert!(self.success, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Success without a result.
    pub(crate) fn is_empty_success(&self) -> bool {
        self.success && self.stdout.is_empty()
    }

    /// The error, which has to be in CNI's form, and its code.
    pub(crate) fn error(&self) -> (u64, String) {
        assert!(!self.success, "expected an error: {self:?}");
        let error: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        assert!(error["cniVersion"].is_string(), "{error}");
        (error["code"].as_u64().unwrap(), error["msg"].as_str().unwrap().to_owned())
    }
}

/// A sandbox of a pod: a namespace and what the runtime knows about it.
pub(crate) struct Container {
    pub(crate) netns: Netns,
    pub(crate) id: String,
    pub(crate) pod: String,
}

impl Container {
    pub(crate) fn new(pod: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let id = format!("{:064x}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self { netns: Netns::new(), id, pod: pod.to_owned() }
    }

    pub(crate) fn attachment(&self) -> Attachment {
        Attachment { container_id: self.id.clone(), ifname: "eth0".to_owned() }
    }

    pub(crate) fn vars(&self, verb: &str) -> Vec<(&'static str, String)> {
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID=uid-1",
            self.pod, self.id
        );
        vec![
            ("CNI_COMMAND", verb.to_owned()),
            ("CNI_CONTAINERID", self.id.clone()),
            ("CNI_NETNS", self.netns.path.clone()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_ARGS", args),
            ("CNI_PATH", "/opt/cni/bin".to_owned()),
        ]
    }

    /// The same for a further interface.
    pub(crate) fn vars_of(&self, verb: &str, ifname: &str) -> Vec<(&'static str, String)> {
        let mut vars = self.vars(verb);
        vars[3].1 = ifname.to_owned();
        vars
    }

    /// Whether it has an interface beside lo.
    pub(crate) fn is_wired(&self) -> bool {
        self.netns.try_command("ip link show eth0").0
    }
}

/// The addresses of a result, without their length.
pub(crate) fn ips(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().unwrap().iter();
    ips.map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned()).collect()
}
