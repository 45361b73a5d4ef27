//! Where objects come from.

use std::path::PathBuf;

use tokio::sync::mpsc;

#[cfg(feature = "kubernetes")]
use crate::kubernetes::{Cluster, Interest};
use crate::{Event, directory};

/// Events that may wait for a slow consumer before the source waits too.
const QUEUE: usize = 1024;

/// Where objects come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Manifests in a directory: see [`directory`].
    Directory(PathBuf),
    /// An API server: see [`kubernetes`](crate::kubernetes).
    #[cfg(feature = "kubernetes")]
    Kubernetes(Cluster, Interest),
}

impl Source {
    /// The API server, if objects come from one.
    #[cfg(feature = "kubernetes")]
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Directory(_) => None,
            Self::Kubernetes(cluster, _) => Some(cluster),
        }
    }

    /// Starts the source as a task of the current tokio runtime. It ends when the receiver is dropped, and never before.
    #[must_use]
    pub fn spawn(self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        match self {
            Self::Directory(dir) => drop(tokio::spawn(async move { directory::watch(&dir, sender).await })),
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(cluster, interest) => {
                drop(tokio::spawn(async move { crate::kubernetes::watch(&cluster, interest, sender).await }));
            }
        }
        receiver
    }
}
