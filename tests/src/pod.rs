//! Pods: made as a container runtime makes them, each with its server and its object.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::node::{Node, Wiring};
use crate::process::Process;
use crate::proto::{Request, Serve};
use crate::vantage::{Probes, Vantage, lab_works};
use crate::wiring;

/// Container ids so far: no two pods of a process have the same.
static CONTAINERS: AtomicU64 = AtomicU64::new(1);

/// A pod to be made.
#[derive(Debug, Clone)]
#[must_use = "`start` makes the pod"]
pub struct PodBuilder {
    node: Arc<Node>,
    key: String,
    labels: BTreeMap<String, String>,
    tcp: Vec<u16>,
    udp: Vec<u16>,
    sctp: Vec<u16>,
    names: BTreeMap<u16, String>,
    host_ports: Vec<(u16, Value)>,
    object: bool,
    is_static: bool,
    annotations: BTreeMap<String, String>,
    mac: Option<String>,
    with_plugin: bool,
}

impl PodBuilder {
    pub(crate) fn new(node: Arc<Node>, key: &str) -> Self {
        assert!(key.split('/').count() == 2, "a pod is named by namespace and name: {key}");
        Self {
            node,
            key: key.to_owned(),
            labels: BTreeMap::new(),
            tcp: Vec::new(),
            udp: Vec::new(),
            sctp: Vec::new(),
            names: BTreeMap::new(),
            host_ports: Vec::new(),
            object: true,
            is_static: false,
            annotations: BTreeMap::new(),
            mac: None,
            with_plugin: false,
        }
    }

    /// With a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With an annotation.
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Its server listens on a TCP port.
    pub fn tcp(mut self, port: u16) -> Self {
        self.tcp.push(port);
        self
    }

    /// Its server listens on a UDP port.
    pub fn udp(mut self, port: u16) -> Self {
        self.udp.push(port);
        self
    }

    /// With a server at an SCTP port.
    pub fn sctp(mut self, port: u16) -> Self {
        self.sctp.push(port);
        self
    }

    /// The name of a port that it declares.
    pub fn port_name(mut self, port: u16, name: &str) -> Self {
        self.names.insert(port, name.to_owned());
        self
    }

    /// A hostPort for a port that it declares, at every address of its node.
    pub fn host_port(mut self, port: u16, host_port: u16) -> Self {
        self.host_ports.push((port, json!({"hostPort": host_port})));
        self
    }

    /// A hostPort for a port that it declares, at one address.
    pub fn host_port_at(mut self, port: u16, host_port: u16, host_ip: &str) -> Self {
        self.host_ports.push((port, json!({"hostPort": host_port, "hostIP": host_ip})));
        self
    }

    /// As kubelet runs a pod of a file: the runtime has it under the hash of that, and the object is its mirror, whose uid
    /// is another.
    pub fn static_pod(mut self) -> Self {
        self.is_static = true;
        self
    }

    /// With a plugin behind ours in the chain that gives its interface this MAC address: [`Pod::tune`].
    pub fn tuned(mut self, mac: &str) -> Self {
        self.mac = Some(mac.to_owned());
        self
    }

    /// Connected by Fairlead in a lab that is [plain](crate::Builder::plain) otherwise: one that is being migrated.
    pub fn with_plugin(mut self) -> Self {
        self.with_plugin = true;
        self
    }

    fn wiring(&self) -> Wiring {
        if self.with_plugin { Wiring::Fairlead } else { self.node.wiring }
    }

    /// Without a Pod object: the test applies its own.
    pub fn without_object(mut self) -> Self {
        self.object = false;
        self
    }

    /// Makes the pod. Its object is there before the runtime asks for its network, without addresses; when its server
    /// listens, the object has them and says that it runs.
    ///
    /// # Panics
    /// When it can't be made, saying why.
    #[track_caller]
    pub fn start(self) -> Pod {
        match self.make() {
            Ok(pod) => pod,
            Err(error) => panic!("no pod {}: {error:#}", self.key),
        }
    }

    fn make(&self) -> Result<Pod> {
        if self.object {
            let (namespace, _) = self.key.split_once('/').expect("checked when it was named");
            self.node.manifests.ensure_namespace(namespace)?;
            self.node.manifests.apply(&self.manifest(&[]));
        }
        let netns = self.key.replace('/', "_");
        let container = format!("{:032x}", CONTAINERS.fetch_add(1, Ordering::Relaxed));
        let host = self.node.vantage().pool();
        host.ask::<()>(&Request::AddNetns(netns.clone()))?;
        let mut pod = Pod {
            vantage: self.node.place(&self.key, Some(&netns)),
            node: self.node.clone(),
            made: self.clone(),
            key: self.key.clone(),
            object: self.object,
            uid: self.is_static.then(|| self.hash()),
            netns,
            container,
            v4: Ipv4Addr::UNSPECIFIED,
            v6: Ipv6Addr::UNSPECIFIED,
            result: Value::Null,
            added_in: Duration::ZERO,
        };
        let started = Instant::now();
        match self.wiring() {
            Wiring::Plain => (pod.v4, pod.v6) = wiring::plain(&self.node, &pod.vantage, &pod.netns)?,
            Wiring::Bridge => (pod.v4, pod.v6) = wiring::bridged(&self.node, &pod.vantage, &pod.netns)?,
            Wiring::Fairlead => pod.add()?,
        }
        pod.added_in = started.elapsed();
        if let Some(mac) = &self.mac {
            pod.tune(mac);
        }
        let serve = Serve {
            netns: Some(pod.netns.clone()),
            pod: self.key.clone(),
            node: self.node.name().to_owned(),
            addresses: Vec::new(),
            tcp: self.tcp.clone(),
            udp: self.udp.clone(),
            sctp: self.sctp.clone(),
        };
        pod.vantage.pool().ask::<()>(&Request::Serve(serve))?;
        if self.object {
            self.node.manifests.apply(&self.manifest(&[pod.v4.into(), pod.v6.into()]));
        }
        Ok(pod)
    }

    fn hash(&self) -> String {
        format!("hash-of-{}", self.key.replace('/', "-"))
    }

    /// The Pod object: JSON, which is YAML too.
    fn manifest(&self, ips: &[IpAddr]) -> String {
        let (namespace, name) = self.key.split_once('/').expect("checked when it was named");
        let port = |protocol: &'static str| {
            move |port: &u16| {
                let mut declared = json!({"containerPort": port, "protocol": protocol});
                if let Some(name) = self.names.get(port) {
                    declared["name"] = json!(name);
                }
                let host_ports = self.host_ports.iter().filter(|(of, _)| of == port);
                let with = |fields: &Value| {
                    let mut all = declared.clone();
                    for (field, value) in fields.as_object().into_iter().flatten() {
                        all[field] = value.clone();
                    }
                    all
                };
                let mut declared: Vec<Value> = host_ports.map(|(_, fields)| with(fields)).collect();
                if declared.is_empty() {
                    declared.push(with(&Value::Null));
                }
                declared
            }
        };
        let by_protocol = [("TCP", &self.tcp), ("UDP", &self.udp), ("SCTP", &self.sctp)];
        let ports: Vec<Value> =
            by_protocol.into_iter().flat_map(|(protocol, ports)| ports.iter().flat_map(port(protocol))).collect();
        let status = match ips {
            [] => json!({"phase": "Pending"}),
            ips => json!({
                "phase": "Running",
                "podIP": ips[0],
                "podIPs": ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
                "conditions": [{"type": "Ready", "status": "True"}],
            }),
        };
        let mut annotations = self.annotations.clone();
        if self.is_static {
            let of_mirror = ["kubernetes.io/config.hash", "kubernetes.io/config.mirror"];
            annotations.extend(of_mirror.map(|key| (key.to_owned(), self.hash())));
        }
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": namespace, "name": name, "uid": self.key, "labels": self.labels, "annotations": annotations,
            },
            "spec": {"nodeName": self.node.name(), "containers": [{"name": "server", "ports": ports}]},
            "status": status,
        })
        .to_string()
    }
}

/// A pod. It stays until [`Pod::delete`] or the end of the lab; dropping the handle does nothing to it.
#[derive(Debug)]
pub struct Pod {
    node: Arc<Node>,
    made: PodBuilder,
    key: String,
    object: bool,
    /// What the runtime says of its uid.
    uid: Option<String>,
    netns: String,
    container: String,
    vantage: Vantage,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    result: Value,
    added_in: Duration,
}

impl Probes for Pod {
    fn vantage(&self) -> &Vantage {
        &self.vantage
    }
}

impl Pod {
    /// Namespace and name, with a slash between.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its node.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn v4(&self) -> Ipv4Addr {
        self.v4
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn v6(&self) -> Ipv6Addr {
        self.v6
    }

    /// Its addresses, one of each family: what a test that holds for both goes through.
    #[must_use]
    pub fn ips(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// What the CNI plugin answered to ADD; null when pods are wired plainly.
    #[must_use]
    pub fn result(&self) -> &Value {
        &self.result
    }

    /// How long ADD took, from the start of the plugin to its end.
    #[must_use]
    pub fn added_in(&self) -> Duration {
        self.added_in
    }

    /// The environment in which a container runtime calls the plugin for this pod.
    #[must_use]
    pub fn cni_environment(&self, command: &str) -> Vec<(&'static str, String)> {
        let mut env = wiring::environment(command, &self.container, &self.netns, &self.key);
        if let (Some(uid), Some((_, args))) = (&self.uid, env.iter_mut().find(|(name, _)| *name == "CNI_ARGS")) {
            *args += &format!(";K8S_POD_UID={uid}");
        }
        env
    }

    /// Changes an annotation of its object, or takes it off.
    pub fn annotate(&mut self, key: &str, value: Option<&str>) {
        match value {
            Some(value) => drop(self.made.annotations.insert(key.to_owned(), value.to_owned())),
            None => drop(self.made.annotations.remove(key)),
        }
        self.node.manifests.apply(&self.made.manifest(&self.ips()));
    }

    /// Starts a process in the pod that stays: it is in the node's mounts and cgroup and in the pod's network.
    pub fn spawn(&self, name: &str, argv: &[&str], env: &[(&str, &str)]) -> Process {
        self.node.spawn_at(&self.vantage, &format!("{}.{name}", self.netns), argv, env)
    }

    /// Ends it as a container runtime does: its network is removed, then its namespace; then its object goes.
    ///
    /// # Panics
    /// When the plugin fails.
    #[track_caller]
    pub fn delete(self) {
        if self.made.wiring() == Wiring::Fairlead
            && let Err(error) = self.call("DEL", &wiring::configuration())
        {
            panic!("{} is not removed: {error:#}", self.key);
        }
        if self.made.wiring() != Wiring::Fairlead {
            // As a plugin does: a connection that policy has cut while it was closed keeps the namespace, with its interface, for minutes.
            self.vantage.must_run(&["ip", "link", "del", "eth0"]);
        }
        self.vantage.close();
        let host = self.node.vantage();
        lab_works(host, host.pool().ask::<()>(&Request::RemoveNetns(self.netns.clone())));
        if self.object {
            self.node.manifests.delete("Pod", &self.key);
        }
    }

    fn add(&mut self) -> Result<()> {
        self.result = self.call("ADD", &wiring::configuration())?;
        for ip in self.result["ips"].as_array().context("the plugin's answer has no ips")? {
            let address = ip["address"].as_str().unwrap_or_default();
            match address.split('/').next().unwrap_or_default().parse() {
                Ok(IpAddr::V4(ip)) => self.v4 = ip,
                Ok(IpAddr::V6(ip)) => self.v6 = ip,
                Err(_) => bail!("the plugin gave {address:?} for an address"),
            }
        }
        ensure!(!self.v4.is_unspecified() && !self.v6.is_unspecified(), "an address is missing: {}", self.result);
        Ok(())
    }

    fn call(&self, command: &str, stdin: &Value) -> Result<Value> {
        let env = self.cni_environment(command);
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let ended = self.node.cni(&env, &stdin.to_string());
        ensure!(ended.ok(), "{command} ended with {}: {}{}", ended.code, ended.stdout, ended.stderr);
        if ended.stdout.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&ended.stdout).with_context(|| format!("{command} answered {:?}", ended.stdout))
    }
}
