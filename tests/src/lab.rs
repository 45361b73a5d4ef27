//! A lab.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::deploy::{self, Pods};
use crate::guardian::KEEP;
use crate::logs;
use crate::manifests::Manifests;
use crate::node::Node;
use crate::vantage::Vantage;

/// How long [`Lab::wait_until`] waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster on this machine: nodes, the network between them and two clients outside. It ends when it is dropped, and
/// when its process ends in whatever way.
#[derive(Debug)]
pub struct Lab {
    pub(crate) id: String,
    pub(crate) directory: PathBuf,
    pub(crate) guardian: Child,
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) client: Vantage,
    pub(crate) far_client: Vantage,
    pub(crate) fabric: Vantage,
    pub(crate) manifests: Arc<Manifests>,
    pub(crate) kept: bool,
}

impl Lab {
    /// What tells it from other labs on this machine: `fairlead-lab enter ID …` takes it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A node by its name: `node-1` is the first.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    #[track_caller]
    pub fn node(&self, name: &str) -> &Arc<Node> {
        self.nodes.iter().find(|node| node.name() == name).unwrap_or_else(|| panic!("this lab has no {name}"))
    }

    /// All nodes, in order.
    #[must_use]
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// Has a node that was left out join the cluster.
    #[track_caller]
    pub fn join(&self, name: &str) -> &Arc<Node> {
        let node = self.node(name);
        self.manifests.apply(&node.manifest());
        node.start_agent();
        node
    }

    /// The client outside of the cluster, on the nodes' network: 172.18.0.100 and fd00:172:18::100.
    #[must_use]
    pub fn client(&self) -> &Vantage {
        &self.client
    }

    /// A client behind a router: 192.0.2.100 and 2001:db8::100.
    #[must_use]
    pub fn far_client(&self) -> &Vantage {
        &self.far_client
    }

    /// The network between nodes, from inside: a bridge for each subnet, `br0` for the first, whose ports are named as what
    /// they lead to.
    #[must_use]
    pub fn fabric(&self) -> &Vantage {
        &self.fabric
    }

    /// The cluster's objects, which all agents watch.
    #[must_use]
    pub fn objects(&self) -> &Manifests {
        &self.manifests
    }

    /// Applies Kubernetes objects: YAML with any number of documents.
    #[track_caller]
    pub fn apply(&self, yaml: &str) {
        self.manifests.apply(yaml);
    }

    /// Deploys ready-made objects: makes their pods on the nodes that they are bound to, with a server on every declared
    /// port unless `serves` says no to the Pod, and applies the objects with the addresses that the pods got.
    ///
    /// # Panics
    /// When a pod can't be made.
    #[track_caller]
    pub fn deploy(&self, yaml: &str, serves: impl Fn(&serde_json::Value) -> bool + Sync) -> Pods {
        match deploy::deploy(&self.manifests, &self.nodes, yaml, &serves) {
            Ok(pods) => pods,
            Err(error) => panic!("can't deploy: {error:#}"),
        }
    }

    /// Deletes an object: `lab.delete("Service", "shop/web")`.
    #[track_caller]
    pub fn delete(&self, kind: &str, key: &str) {
        self.manifests.delete(kind, key);
    }

    /// Waits until this node's kernel has backends for each of these frontends: `fairlead service explain` says so. A
    /// Service and its slices are objects of their own, so one family is often in force before the other.
    ///
    /// # Panics
    /// When one is not in force after half a minute.
    #[track_caller]
    pub fn wait_in_force(&self, node: &Node, frontends: impl IntoIterator<Item = SocketAddr>) {
        for frontend in frontends {
            self.wait_until("the service is in force", || {
                let text = node.fairlead(&["service", "explain", &frontend.to_string()]).stdout;
                if text.contains("goes to") && !text.contains("not in the kernel") { Ok(()) } else { Err(text) }
            });
        }
    }

    /// Tries something until it works, and gives what it gave.
    ///
    /// # Panics
    /// When it still does not work after half a minute, with the last reason.
    #[track_caller]
    pub fn wait_until<T, E: std::fmt::Debug>(&self, what: &str, attempt: impl FnMut() -> Result<T, E>) -> T {
        self.wait_within(PATIENCE, what, attempt)
    }

    /// The same, for what takes a machine long that has much to do.
    ///
    /// # Panics
    /// When it still does not work after that time, with the last reason.
    #[track_caller]
    pub fn wait_within<T, E: std::fmt::Debug>(
        &self,
        patience: Duration,
        what: &str,
        mut attempt: impl FnMut() -> Result<T, E>,
    ) -> T {
        let deadline = Instant::now() + patience;
        loop {
            match attempt() {
                Ok(value) => return value,
                Err(reason) if Instant::now() >= deadline => {
                    panic!("after {patience:?} it is still not so that {what}: {reason:?}")
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Leaves the lab running when this process ends; `fairlead-lab stop ID` ends it.
    pub fn keep(&mut self) {
        let said = self.guardian.stdin.as_mut().map(|stdin| writeln!(stdin, "{KEEP}"));
        self.kept = matches!(said, Some(Ok(())));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            logs::show(&self.directory);
        }
        drop(self.guardian.stdin.take());
        if !self.kept {
            let _ = self.guardian.wait();
        }
    }
}
