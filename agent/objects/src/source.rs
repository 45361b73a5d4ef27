//! Where objects come from.

use std::path::PathBuf;

use tokio::sync::mpsc;

use crate::{Event, directory};

/// Events that may wait for a slow consumer before the source waits too.
const QUEUE: usize = 1024;

/// Where objects come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Manifests in a directory: see [`directory`].
    Directory(PathBuf),
    /// An API server: see [`kubernetes`](crate::kubernetes).
    #[cfg(feature = "kubernetes")]
    Kubernetes {
        /// How to reach it; without, as a pod of the cluster does, or else as `kubectl` would.
        kubeconfig: Option<PathBuf>,
    },
}

impl Source {
    /// Starts the source as a task of the current tokio runtime. It ends when the receiver is dropped, and never before.
    #[must_use]
    pub fn spawn(self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        match self {
            Self::Directory(dir) => drop(tokio::spawn(async move { directory::watch(&dir, sender).await })),
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes { kubeconfig } => {
                drop(tokio::spawn(async move { crate::kubernetes::watch(kubeconfig.as_deref(), sender).await }));
            }
        }
        receiver
    }
}
