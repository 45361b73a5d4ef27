//! Events: what is wrong with an object is said on the object, where `kubectl describe` shows it.
//!
//! Whoever finds something tells the [`Recorder`], which never makes anybody wait: it puts the warning into a short queue
//! and a task of its own writes it (events.k8s.io/v1). The same warning is written once and then counted in the event's
//! series; a burst is cut off; while no API server answers warnings are lost, since the log has them too.

mod condition;
mod ledger;
mod write;

use std::time::Instant;

use fairlead_objects::kubernetes::Cluster;
use fairlead_objects::{Kind, ObjectKey};
use tokio::sync::mpsc;
use tracing::debug;

pub use condition::keep_network_available;

use ledger::{Ledger, Step};

/// Warnings that may wait to be written; further ones are lost.
const QUEUE: usize = 64;

/// Who finds it: what is wrong with the object itself is found by every node, and written once for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// It is so on this node.
    Node,
    /// It is so on every node.
    Cluster,
}

/// A warning about an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Warning {
    /// What the object is.
    pub kind: Kind,
    /// Its name.
    pub key: ObjectKey,
    /// Its uid, or nothing: then it is looked up.
    pub uid: String,
    /// One word in CamelCase, as `InvalidObject`.
    pub reason: &'static str,
    /// What is wrong and what to do. Longer ones than 1024 bytes are cut.
    pub note: String,
    /// Where it is so.
    pub scope: Scope,
    /// The namespace that there is room for fewer warnings about now: that of whoever is to blame.
    pub charged: String,
}

/// Takes warnings.
#[derive(Debug, Clone)]
pub struct Recorder(Option<mpsc::Sender<Warning>>);

impl Recorder {
    /// A recorder that nobody reads, for a node without an API server.
    #[must_use]
    pub fn nowhere() -> Self {
        Self(None)
    }

    /// Starts the task that writes, in the current tokio runtime. It ends with the last recorder.
    #[must_use]
    pub fn start(cluster: Cluster, node: &str) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        drop(tokio::spawn(run(cluster, node.to_owned(), receiver)));
        Self(Some(sender))
    }

    /// A recorder whose warnings a test reads.
    #[cfg(test)]
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Warning>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(Some(sender)), receiver)
    }

    /// A warning about an object, as this node sees it. Never waits.
    pub fn warn(&self, kind: Kind, key: &ObjectKey, uid: &str, reason: &'static str, note: impl Into<String>) {
        let (charged, uid, note) = (key.namespace.clone(), uid.to_owned(), note.into());
        self.record(Warning { kind, key: key.clone(), uid, reason, note, scope: Scope::Node, charged });
    }

    /// A warning about an object that every node sees alike. Never waits.
    pub fn warn_for_all(&self, kind: Kind, key: &ObjectKey, reason: &'static str, note: impl Into<String>) {
        let (charged, note) = (key.namespace.clone(), note.into());
        self.record(Warning {
            kind,
            key: key.clone(),
            uid: String::new(),
            reason,
            note,
            scope: Scope::Cluster,
            charged,
        });
    }

    /// A warning. Never waits.
    pub fn record(&self, warning: Warning) {
        let Some(sender) = &self.0 else { return };
        if let Err(error) = sender.try_send(warning) {
            debug!(%error, "dropped an event: too many are waiting");
        }
    }
}

async fn run(cluster: Cluster, node: String, mut warnings: mpsc::Receiver<Warning>) {
    let writer = write::Writer::new(cluster, node);
    let mut ledger = Ledger::default();
    while let Some(warning) = warnings.recv().await {
        let done = match ledger.step(&warning, Instant::now()) {
            Step::Nothing => continue,
            Step::Create => writer.create(&warning).await,
            Step::Count(count) => writer.count(&warning, count).await,
        };
        if !done {
            ledger.forget(&warning);
        }
    }
}
