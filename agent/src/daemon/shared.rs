//! What the loop shares with those who ask: the CNI server and the admin socket.

use std::net::IpAddr;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use fairlead_objects::ObjectKey;
use serde::Serialize;
use tokio::sync::Notify;

use crate::bpf::ProgramInfo;
use crate::cni::{Health, KnownPod, NodeNetwork};
use crate::model::Model;
use crate::network::Network;

/// Failed attempts in a row after which the node says that its pods may suffer.
const PATIENCE: u32 = 3;

/// The state of the agent. The loop is the only writer of the model.
#[derive(Debug)]
pub struct Shared {
    model: RwLock<Model>,
    progress: RwLock<Progress>,
    /// What the programs are.
    pub programs: Vec<ProgramInfo>,
    /// Whether maps of an earlier agent were adopted.
    pub adopted: bool,
    /// When this agent started.
    pub started: Instant,
    /// Tells when Nodes changed.
    pub(super) nodes_changed: Notify,
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
    /// The interfaces that lead out of the node.
    #[serde(skip)]
    pub network: Network,
}

impl Shared {
    pub(super) fn new(model: Model, programs: Vec<ProgramInfo>, adopted: bool) -> Self {
        let progress = RwLock::new(Progress::default());
        Self {
            model: RwLock::new(model),
            progress,
            programs,
            adopted,
            started: Instant::now(),
            nodes_changed: Notify::new(),
        }
    }

    /// The model, for reading.
    pub fn model(&self) -> RwLockReadGuard<'_, Model> {
        self.model.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn model_mut(&self) -> RwLockWriteGuard<'_, Model> {
        self.model.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the loop is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether pods can be served.
    #[must_use]
    pub fn health(&self) -> Health {
        let progress = self.progress();
        if let Some(trouble) = progress.trouble.filter(|_| progress.failures >= PATIENCE) {
            return Health::Impaired(trouble);
        }
        let waiting: Vec<_> = self.model().waiting_for().map(fairlead_objects::Kind::as_str).collect();
        if !waiting.is_empty() {
            return Health::Starting(format!("the first list of {} has not arrived", waiting.join(", ")));
        }
        match (progress.in_force, progress.wired) {
            (true, true) => Health::Ready,
            (false, _) => Health::Starting("the first content is on its way to the kernel".to_owned()),
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
        Some(KnownPod { uid: pod.uid.clone(), ips: pod.owned_ips().to_vec() })
    }

    /// The pod whose object carries an address.
    #[must_use]
    pub fn owner(&self, ip: IpAddr) -> Option<ObjectKey> {
        self.model().pods().find(|pod| pod.owned_ips().contains(&ip)).map(|pod| pod.key.clone())
    }
}
