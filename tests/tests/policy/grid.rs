//! The grid: namespaces x, y and z with pods a, b and c in each, on two nodes, and a service for each pod.

use std::cell::RefCell;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fairlead_tests::{Lab, Pod, Probe, ProbeError, Probes, ServiceManifest, Transport, Vantage, Via};

use crate::model::Objects;

/// How long an answer is waited for where none may come: far longer than one takes.
const SILENCE: Duration = Duration::from_millis(100);

/// How long a policy may take to be in force.
const SOON: Duration = Duration::from_secs(30);

/// The ports that every pod serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Tcp80,
    Tcp81,
    Udp80,
}

impl Port {
    fn transport(self) -> Transport {
        match self {
            Self::Tcp80 | Self::Tcp81 => Transport::Tcp,
            Self::Udp80 => Transport::Udp,
        }
    }

    fn proto(self) -> u8 {
        match self.transport() {
            Transport::Tcp => 6,
            Transport::Udp => 17,
            Transport::Sctp => 132,
        }
    }

    fn number(self) -> u16 {
        match self {
            Self::Tcp80 | Self::Udp80 => 80,
            Self::Tcp81 => 81,
        }
    }
}

/// One way from one pod to another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell<'a> {
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) port: Port,
    pub(crate) v6: bool,
    service: bool,
    via: Via,
}

impl Cell<'_> {
    /// The namespace of the client.
    pub(crate) fn client_ns(&self) -> &str {
        &self.from[..1]
    }

    /// The namespace of the server.
    pub(crate) fn server_ns(&self) -> &str {
        &self.to[..1]
    }

    /// Whether this is a pod and itself.
    pub(crate) fn is_self(&self) -> bool {
        self.from == self.to
    }
}

impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        let way = if self.service { "through its service" } else { "at its address" };
        write!(f, "{} to {} {:?} {family} {way} by {:?}", self.from, self.to, self.port, self.via)
    }
}

/// The ways of every pair: both families, pod and service, at the socket and per packet.
const WAYS: [(Port, bool, bool, Via); 8] = [
    (Port::Tcp80, false, false, Via::Socket),
    (Port::Tcp80, true, false, Via::Packet),
    (Port::Tcp80, false, true, Via::Packet),
    (Port::Tcp80, true, true, Via::Socket),
    (Port::Tcp81, false, false, Via::Packet),
    (Port::Tcp81, true, false, Via::Socket),
    (Port::Udp80, false, false, Via::Socket),
    (Port::Udp80, true, false, Via::Packet),
];

/// The lab of all tests, which run one after the other.
struct Grid {
    lab: Lab,
    pods: Vec<Pod>,
}

impl Grid {
    fn new() -> Self {
        let lab = Lab::builder().zones(&["zone-a", "zone-b"]).start();
        for ns in ["x", "y", "z"] {
            lab.apply(&format!(
                "{{apiVersion: v1, kind: Namespace, metadata: {{name: '{ns}', labels: {{ns: '{ns}', \
                 kubernetes.io/metadata.name: '{ns}'}}}}}}"
            ));
        }
        let mut pods = Vec::new();
        for (n, ns) in ["x", "y", "z"].into_iter().enumerate() {
            for (p, name) in ["a", "b", "c"].into_iter().enumerate() {
                // The same name for another port in the pods named c.
                let (first, second) = if name == "c" { ("alt", "web") } else { ("web", "alt") };
                let node = &lab.nodes()[(n + p) % 2];
                let pod = node.pod(&format!("{ns}/{name}")).label("pod", name).tcp(80).tcp(81).udp(80);
                pods.push(pod.port_name(80, first).port_name(81, second).start());
                let service = ServiceManifest::new(&format!("{ns}/s-{name}"))
                    .ips(&[&format!("10.96.1.{}", n * 3 + p), &format!("fd00:10:96::1:{}", n * 3 + p)]);
                lab.apply(&service.tcp("http", 8080, 80).endpoint(&pods[n * 3 + p]).yaml());
            }
        }
        // A network outside that routes to pods, as many do: policies see its addresses.
        for node in lab.nodes() {
            let pod = pods.iter().find(|pod| pod.node().name() == node.name()).expect("each node has some");
            let [(v4, n4), (v6, n6)] = [(pod.ips()[0], node.v4().to_string()), (pod.ips()[1], node.v6().to_string())];
            lab.client().must_run(&["ip", "route", "add", &format!("{}/24", network(v4)), "via", &n4]);
            lab.client().must_run(&["ip", "route", "add", &format!("{}/64", network(v6)), "via", &n6]);
        }
        Self { lab, pods }
    }

    fn pod(&self, key: &str) -> &Pod {
        self.pods.iter().find(|pod| pod.key() == key).unwrap_or_else(|| panic!("the grid has no {key}"))
    }

    /// The addresses of a pod's service, which forwards port 8080 to port 80.
    fn service(&self, key: &str) -> [IpAddr; 2] {
        let place = self.pods.iter().position(|pod| pod.key() == key).expect("the grid has this pod");
        [format!("10.96.1.{place}"), format!("fd00:10:96::1:{place}")].map(|ip| ip.parse().expect("it is one"))
    }

    /// The cells that are not as they should be, with what they are. All pairs at once, the ways of each in order.
    fn try_all<'a>(&self, cells: &[(Cell<'a>, bool)]) -> Vec<(Cell<'a>, bool, String)> {
        let pairs: Vec<&[(Cell<'a>, bool)]> =
            cells.chunk_by(|(a, _), (b, _)| (a.from, a.to) == (b.from, b.to)).collect();
        let try_pair = |pair: &[(Cell<'a>, bool)]| -> Vec<(Cell<'a>, bool, String)> {
            pair.iter().filter_map(|(cell, allow)| Some((*cell, *allow, self.mismatch(cell, *allow)?))).collect()
        };
        thread::scope(|scope| {
            let threads: Vec<_> = pairs.into_iter().map(|pair| scope.spawn(move || try_pair(pair))).collect();
            threads.into_iter().flat_map(|each| each.join().expect("a pair is probed")).collect()
        })
    }

    fn mismatch(&self, cell: &Cell<'_>, allow: bool) -> Option<String> {
        let to = self.pod(cell.to);
        let (ip, port) = if cell.service {
            (self.service(cell.to)[usize::from(cell.v6)], 8080)
        } else {
            (to.ips()[usize::from(cell.v6)], cell.port.number())
        };
        let probe = Probe::new(cell.port.transport(), (ip, port).into());
        verdict(&self.pod(cell.from).via(cell.via), &probe, allow, Some(cell.to)).err()
    }
}

/// The network of a pod's address.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip) & !0xff).into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
    }
}

/// A test's time on the grid. Its policies go when it ends.
pub(crate) struct Turn {
    grid: MutexGuard<'static, Grid>,
    policies: RefCell<Vec<String>>,
}

/// Waits for the grid.
pub(crate) fn turn() -> Turn {
    static GRID: OnceLock<Mutex<Grid>> = OnceLock::new();
    let grid = GRID.get_or_init(|| Mutex::new(Grid::new())).lock().unwrap_or_else(PoisonError::into_inner);
    Turn { grid, policies: RefCell::default() }
}

impl Turn {
    pub(crate) fn lab(&self) -> &Lab {
        &self.grid.lab
    }

    pub(crate) fn pod(&self, key: &str) -> &Pod {
        self.grid.pod(key)
    }

    /// The addresses of a pod's service, which forwards port 8080 to port 80.
    pub(crate) fn service(&self, key: &str) -> [IpAddr; 2] {
        self.grid.service(key)
    }

    /// Adds or replaces a policy and waits until the agents know it: `turn.policy("x/web", "{podSelector: {}}")`.
    pub(crate) fn policy(&self, key: &str, spec: &str) {
        let (namespace, name) = key.split_once('/').expect("policies are named so");
        self.lab().apply(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{namespace: '{namespace}', name: {name}}}\n\
             spec: {spec}\n"
        ));
        let mut policies = self.policies.borrow_mut();
        policies.retain(|known| known != key);
        policies.push(key.to_owned());
        wait_for_policies(self.lab(), policies.len());
    }

    /// The same of a policy of the cluster, by its whole manifest: whichever is named in it.
    pub(crate) fn cluster_policy(&self, manifest: &str) {
        self.lab().apply(manifest);
        let manifest: serde_json::Value = serde_saphyr::from_str(manifest).expect("a manifest");
        let name = manifest["metadata"]["name"].as_str().expect("its name").to_owned();
        let mut policies = self.policies.borrow_mut();
        policies.retain(|known| *known != name);
        policies.push(name);
        wait_for_policies(self.lab(), policies.len());
    }

    /// Removes a policy before the test's end.
    pub(crate) fn remove(&self, key: &str) {
        let mut policies = self.policies.borrow_mut();
        policies.retain(|known| known != key);
        self.lab().delete(kind(key), key);
        wait_for_policies(self.lab(), policies.len());
    }

    /// Probes every cell. Each has to be as `expected` and the model say, at the latest when policies have to be in
    /// force; what may not pass has to meet silence: P47.
    #[track_caller]
    pub(crate) fn matrix(&self, expected: impl Fn(&Cell<'_>) -> bool) {
        self.probe_all(Some(&expected));
    }

    /// The same where nobody has an opinion but the model.
    #[track_caller]
    pub(crate) fn matrix_by_model(&self) {
        self.probe_all(None);
    }

    #[track_caller]
    fn probe_all(&self, expected: Option<&dyn Fn(&Cell<'_>) -> bool>) {
        let objects = Objects::read(self.lab());
        let mut cells = Vec::new();
        for from in &self.grid.pods {
            for to in &self.grid.pods {
                for (port, v6, service, via) in WAYS {
                    // A pod that reaches itself through its service has a test of its own: P32.
                    if service && from.key() == to.key() {
                        continue;
                    }
                    let cell = Cell { from: from.key(), to: to.key(), port, v6, service, via };
                    let model = cell.is_self() || self.model(&objects, &cell);
                    if let Some(expected) = expected {
                        assert_eq!(model, expected(&cell), "the model's and the test's word on {cell}");
                    }
                    cells.push((cell, model));
                }
            }
        }
        let deadline = Instant::now() + SOON;
        let mut wrong = self.grid.try_all(&cells);
        if wrong.is_empty() {
            return;
        }
        while !wrong.is_empty() && Instant::now() < deadline {
            let again: Vec<_> = wrong.iter().map(|(cell, allow, _)| (*cell, *allow)).collect();
            wrong = self.grid.try_all(&again);
        }
        // What was right before the policy was in force has to be right after, too.
        if wrong.is_empty() {
            wrong = self.grid.try_all(&cells);
        }
        let allowed = cells.iter().filter(|(_, allow)| *allow).count();
        let said: Vec<String> = wrong.iter().map(|(cell, allow, was)| format!("{cell}: {was}, not {allow}")).collect();
        assert!(said.is_empty(), "{} of {} cells ({allowed} allow):\n{}", said.len(), cells.len(), said.join("\n"));
    }

    fn model(&self, objects: &Objects, cell: &Cell<'_>) -> bool {
        let ip = |key: &str| self.pod(key).ips()[usize::from(cell.v6)];
        objects.allow((cell.from, ip(cell.from)), (cell.to, ip(cell.to)), cell.port.proto(), cell.port.number())
    }
}

/// Whether a probe is answered by the pod given, or meets silence.
pub(crate) fn verdict(from: &Vantage, probe: &Probe, allow: bool, by: Option<&str>) -> Result<(), String> {
    let probe = if allow { probe.clone() } else { probe.clone().timeout(SILENCE) };
    match from.probe(&probe) {
        Ok(reply) if allow && by.is_none_or(|by| reply.server.pod == by) => Ok(()),
        Ok(reply) => Err(format!("answered by {}", reply.server.pod)),
        Err(ProbeError::TimedOut) if !allow => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in self.lab().nodes() {
                eprintln!("{}:\n{}", node.name(), node.fairlead(&["drops"]).stdout);
            }
        }
        for policy in self.policies.borrow().iter() {
            self.lab().delete(kind(policy), policy);
        }
        if !thread::panicking() {
            wait_for_policies(self.lab(), 0);
        }
    }
}

/// What a policy is, by its key.
fn kind(key: &str) -> &'static str {
    if key.contains('/') { "NetworkPolicy" } else { "ClusterNetworkPolicy" }
}

/// Waits until every agent knows so many policies.
fn wait_for_policies(lab: &Lab, count: usize) {
    for node in lab.nodes() {
        lab.wait_until("the agent knows the policies", || {
            let status = node.fairlead(&["status", "-o", "json"]);
            let view: serde_json::Value = serde_json::from_str(&status.stdout).map_err(|_| status.clone())?;
            let of_policies =
                |each: &&serde_json::Value| each["kind"].as_str().is_some_and(|kind| kind.ends_with("policies"));
            let known = view["objects"].as_array().into_iter().flatten().filter(of_policies);
            let known: u64 = known.filter_map(|known| known["count"].as_u64()).sum();
            if known == count as u64 { Ok(()) } else { Err(status) }
        });
    }
}
