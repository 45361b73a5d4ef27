//! What the loop shares with those who ask.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use fairlead_objects::kubernetes::{Cluster, RequestCounts, WatchState};
use fairlead_objects::{Kind, ObjectKey};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::{Checks, Freshness, Metrics, Repairs, RuleHits, Subject};
use crate::audit::Findings;
use crate::bpf::{Migration, ProgramInfo};
use crate::cni::{Health, KnownPod, NodeNetwork};
use crate::compile::claims::PodRanges;
use crate::events::Recorder;
use crate::model::Model;
use crate::names::Told;
use crate::network::Network;
use crate::plan::policy::CutOff;
use crate::repair::Looked;
use crate::zone;

/// The port of a URL that names none.
const HTTPS: u16 = 443;

/// Failed attempts in a row after which the node says that its pods may suffer.
const PATIENCE: u32 = 3;

/// The state of the agent. The loop is the only writer of the model.
#[derive(Debug)]
pub struct Shared {
    model: RwLock<Model>,
    /// The API server, where objects come from one.
    cluster: Option<Cluster>,
    /// Says on an object what is wrong with it.
    pub events: Recorder,
    progress: RwLock<Progress>,
    /// What the programs are.
    pub programs: Vec<ProgramInfo>,
    /// Whether maps of an earlier agent were adopted.
    pub adopted: bool,
    /// What it read from tables of another version when it started.
    pub migrated: Vec<Migration>,
    /// When this agent started.
    pub started: Instant,
    /// Whether what the source told has reached the kernel.
    pub freshness: Freshness,
    /// What is counted.
    pub metrics: Metrics,
    /// What rules of policies have decided on.
    pub rule_hits: Arc<RuleHits>,
    /// What policies in audit mode would have dropped.
    audit: Mutex<Findings>,
    /// What is counted of what pods are told by DNS.
    pub told: Arc<Told>,
    /// How the cluster's zone in the kernel is.
    pub zone: Arc<zone::State>,
    /// What others undid and what became of it.
    pub repairs: Repairs,
    /// The health checks that load balancers look for.
    pub checks: watch::Sender<Checks>,
    /// Pods whose plugins have hung up since the last look at pods: their slots and names.
    finished_plugins: Mutex<BTreeSet<(u16, ObjectKey)>>,
    /// Asks for a look at what was made, as when Nodes changed.
    pub(crate) look: Notify,
    /// Asks for a look at the interfaces of pods that another plugin has wired, as when pods changed.
    pub(crate) foreign: Notify,
}

/// How far the loop is.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Progress {
    /// Whether the tables have been what the model says once.
    pub in_force: bool,
    /// Whether the routes to other nodes have been set once.
    pub wired: bool,
    /// Plans that were executed.
    pub plans: u64,
    /// Operations in them.
    pub operations: u64,
    /// Duration of the last compilation and its execution, in microseconds.
    pub last_micros: u64,
    /// Failed attempts in a row.
    pub failures: u32,
    /// What failed last, while it does.
    pub trouble: Option<String>,
    /// Whether the CNI configuration is in its place.
    pub conflist: bool,
    /// What an operator should know of the node, by topic.
    pub warnings: BTreeMap<&'static str, String>,
    /// Directions of pods that are cut off, since their policies do not fit.
    #[serde(skip)]
    pub cut_off: Arc<Vec<CutOff>>,
    /// Services that do not fit, and why.
    #[serde(skip)]
    pub refused: Arc<Vec<(String, String)>>,
    /// How many services do not fit.
    pub services_refused: usize,
    /// Tables that are nearly full.
    pub nearly_full: Vec<&'static str>,
    /// What objects claim in vain: the object, why, and what to do.
    #[serde(skip)]
    pub claims: Arc<Vec<(String, String)>>,
    /// How many claims are in vain.
    pub claims_refused: usize,
    /// Elements that were left out of tables that are full, by table.
    pub left_out: BTreeMap<&'static str, usize>,
    /// The interfaces that lead out of the node.
    #[serde(skip)]
    pub network: Network,
    /// The names of those by which other nodes are reached; nothing before they were looked at.
    #[serde(skip)]
    pub uplinks: Option<Vec<String>>,
    /// The uplinks, and why XDP is not there if it is not.
    #[serde(skip)]
    pub xdp: Vec<(String, Option<String>)>,
}

impl Shared {
    pub(crate) fn new(
        model: Model,
        cluster: Option<Cluster>,
        events: Recorder,
        programs: Vec<ProgramInfo>,
        adopted: bool,
    ) -> Self {
        let progress = RwLock::new(Progress::default());
        Self {
            model: RwLock::new(model),
            cluster,
            events,
            progress,
            programs,
            adopted,
            migrated: Vec::new(),
            started: Instant::now(),
            freshness: Freshness::default(),
            metrics: Metrics::default(),
            rule_hits: Arc::default(),
            audit: Mutex::default(),
            told: Arc::default(),
            zone: Arc::default(),
            repairs: Repairs::default(),
            checks: watch::Sender::default(),
            finished_plugins: Mutex::default(),
            look: Notify::new(),
            foreign: Notify::new(),
        }
    }

    /// The same of an agent that has read tables of another version.
    pub(crate) fn with_migrated(self, migrated: Vec<Migration>) -> Self {
        let lost: Vec<_> = migrated.iter().filter_map(Migration::loss).collect();
        self.warn("tables", (!lost.is_empty()).then(|| lost.join("; ")));
        Self { migrated, ..self }
    }

    /// Pods whose plugins have hung up since the last look at pods.
    pub(crate) fn finished_plugins(&self) -> MutexGuard<'_, BTreeSet<(u16, ObjectKey)>> {
        self.finished_plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What policies in audit mode would have dropped. It is asked for after the model where both are.
    pub fn audit(&self) -> MutexGuard<'_, Findings> {
        self.audit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model, for reading.
    pub fn model(&self) -> RwLockReadGuard<'_, Model> {
        self.model.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn model_mut(&self) -> RwLockWriteGuard<'_, Model> {
        self.model.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the loop is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn note(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Says what an operator should know about a topic, in the log and in the status from now on, or that there is
    /// nothing any more. What was said already is not said again.
    pub fn warn(&self, topic: &'static str, text: Option<String>) {
        let mut progress = self.progress.write().unwrap_or_else(PoisonError::into_inner);
        match text {
            Some(text) if progress.warnings.get(topic) != Some(&text) => {
                warn!(topic, "{text}");
                progress.warnings.insert(topic, text);
            }
            Some(_) => {}
            None => {
                if progress.warnings.remove(topic).is_some() {
                    info!(topic, "resolved");
                }
            }
        }
    }

    /// What a look at the node has found: said in the log and on the Node, and counted.
    pub(crate) fn looked(&self, subject: Subject, looked: &Looked) {
        let new = self.repairs.note(subject, looked);
        let repaired = looked.summary();
        for repair in &repaired {
            warn!(kind = repair.kind.as_str(), "changed outside Fairlead, and repaired: {}", repair.what);
        }
        for broken in &new {
            warn!("can't check or repair {}", broken.what);
        }
        let list = |all: &mut dyn Iterator<Item = &str>| all.collect::<Vec<_>>().join("; ");
        let node = ObjectKey::cluster(self.model().node_name());
        if !repaired.is_empty() {
            let note = list(&mut repaired.iter().map(|repair| repair.what.as_str()));
            self.events.warn(
                Kind::Node,
                &node,
                "",
                "Repaired",
                format!("changed outside Fairlead, and repaired: {note}"),
            );
        }
        if !new.is_empty() {
            let note = list(&mut new.iter().map(|broken| broken.what.as_str()));
            self.events.warn(Kind::Node, &node, "", "NotRepaired", format!("can't check or repair {note}"));
        }
    }

    /// Where the API server is asked at present, if that is an address and no name.
    pub(crate) fn api_server(&self) -> Option<SocketAddr> {
        let text = self.cluster.as_ref()?.server()?;
        text.parse().ok().or_else(|| {
            let host = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&text);
            Some(SocketAddr::new(host.parse().ok()?, HTTPS))
        })
    }

    /// What is wrong at present beside objects, and what to do: one text a matter.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        self.cluster.iter().flat_map(Cluster::troubles).chain(self.range_trouble()).collect()
    }

    /// How the watches of the API server are; none where objects come from a directory.
    #[must_use]
    pub fn watches(&self) -> Vec<WatchState> {
        self.cluster.as_ref().map(Cluster::watches).unwrap_or_default()
    }

    /// The API server in use; nothing where objects come from a directory, and before one has answered.
    #[must_use]
    pub fn server(&self) -> Option<String> {
        self.cluster.as_ref().and_then(Cluster::server)
    }

    /// What was asked of API servers; nothing where objects come from a directory.
    #[must_use]
    pub fn requests(&self) -> RequestCounts {
        self.cluster.as_ref().map(Cluster::requests).unwrap_or_default()
    }

    /// Why the node has no addresses for its pods, if it has none.
    pub(crate) fn range_trouble(&self) -> Option<String> {
        let model = self.model();
        if model.waiting_for().any(|kind| kind == Kind::Node) || !model.rules().parts.wires() {
            return None;
        }
        let name = model.node_name();
        match model.own_node() {
            None => Some(format!(
                "there is no Node object {name}: its pods wait; is kubelet running, and is --node (NODE_NAME) the \
                 Node's name?"
            )),
            Some(node) if node.annotated.is_some() && node.pod_cidrs.is_empty() => model
                .not_given()
                .find(|(key, _)| key.name == name)
                .map(|(_, why)| format!("Node {name} has no pod range, so its pods wait: {why}")),
            Some(node) if node.pod_cidrs.is_empty() => Some(format!(
                "Node {name} has no pod range (spec.podCIDRs is empty): its pods wait; let the control plane assign \
                 ranges, with `kubeadm init --pod-network-cidr` or with kube-controller-manager's \
                 `--allocate-node-cidrs --cluster-cidr`; where that is not possible, set `annotatedRanges` and annotate \
                 the Node; if it is annotated, `fairlead status` says what is wrong with that"
            )),
            Some(_) => None,
        }
    }

    /// Whether pods can be served.
    #[must_use]
    pub fn health(&self) -> Health {
        let progress = self.progress();
        if let Some(trouble) = progress.trouble.filter(|_| progress.failures >= PATIENCE) {
            return Health::Impaired(trouble);
        }
        if let Some(broken) = self.repairs.broken(Subject::Programs).first() {
            return Health::Impaired(format!("can't check or repair {}", broken.what));
        }
        let waiting: Vec<_> = self.model().waiting_for().map(Kind::as_str).collect();
        if !waiting.is_empty() {
            let why = self.troubles().first().map(|trouble| format!(": {trouble}")).unwrap_or_default();
            return Health::Starting(format!("the first list of {} has not arrived{why}", waiting.join(", ")));
        }
        if let Some(trouble) = self.range_trouble() {
            return Health::Starting(trouble);
        }
        match (progress.in_force, progress.wired) {
            (true, true) => Health::Ready,
            (false, _) => Health::Starting("the initial state is being written to the kernel".to_owned()),
            (true, false) => Health::Starting("the routes to other nodes are being set".to_owned()),
        }
    }

    /// What the node gives to its pods.
    #[must_use]
    pub fn node(&self) -> Option<NodeNetwork> {
        let model = self.model();
        let pod_cidrs = model.own_node()?.pod_cidrs.clone();
        let network = self.progress().network;
        let mtu = network.pod_mtu(model.node_name(), model.nodes());
        Some(NodeNetwork { pod_cidrs, mtu, addresses: network.addresses })
    }

    /// A Pod object, if it is this node's.
    #[must_use]
    pub fn pod(&self, key: &ObjectKey) -> Option<KnownPod> {
        let model = self.model();
        let pod = model.pod(key).filter(|pod| pod.node_name.as_deref().is_none_or(|name| name == model.node_name()))?;
        Some(KnownPod { uid: pod.runtime_uid().to_owned(), ips: pod.owned_ips().to_vec() })
    }

    /// The pod whose object carries an address.
    #[must_use]
    pub fn owner(&self, ip: IpAddr) -> Option<ObjectKey> {
        let model = self.model();
        let ranges = PodRanges::new(model.nodes(), &model.rules().pod_ranges);
        model.pods().find(|pod| ranges.owned(pod).any(|owned| owned == ip)).map(|pod| pod.key.clone())
    }
}
