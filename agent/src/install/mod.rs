//! How Fairlead comes to a node, and how it leaves.
//!
//! [`install()`] puts in place what the agent needs and can't make itself, since it runs with less: in a cluster it is an
//! init container, and [`keep()`] a container beside the agent, which puts it back. The agent then writes the [`Conflist`] when
//! pods can be served. [`uninstall()`] takes all of it away.

pub mod chain;
pub mod conflist;
mod keep;
pub mod kubeconfig;
mod setup;
mod survey;
mod uninstall;

use std::path::{Path, PathBuf};

pub use conflist::Conflist;
pub use keep::{keep, lock_of};
pub use setup::{Setup, install};
pub use survey::survey;
pub use uninstall::{Removal, uninstall};

/// The file in the run directory that has the API server's URL.
pub const API_SERVER: &str = "apiserver";

/// The plugin's name, which is its type in a [`Conflist`].
pub const PLUGIN: &str = "fairlead-cni";

/// Where a container has the node's directories; `kubectl debug node` mounts its root there.
pub const HOST: &str = "/host";

/// A path as the node has it, of one as this container has it.
fn on_node(path: &Path) -> PathBuf {
    path.strip_prefix(HOST).map_or_else(|_| path.to_owned(), |below| Path::new("/").join(below))
}

/// A step that was done or that failed; neither keeps the next from being tried.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// What it is about.
    pub what: String,
    /// What was done, where that went well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<String>,
    /// Why it was not, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Step {
    fn new(what: impl Into<String>, outcome: Result<String, impl ToString>) -> Self {
        let (done, failed) = match outcome {
            Ok(done) => (Some(done), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { what: what.into(), done, failed }
    }
}
