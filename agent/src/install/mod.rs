//! How Fairlead comes to a node, and how it leaves.
//!
//! [`install`] puts in place what the agent needs and can't make itself, since it runs with less: in a cluster it is an
//! init container. The agent then writes the [`Conflist`] when pods can be served. [`uninstall()`] takes all of it away.

pub mod chain;
pub mod conflist;
pub mod kubeconfig;
mod setup;
mod survey;
mod uninstall;

pub use conflist::Conflist;
pub use setup::{Setup, install};
pub use survey::survey;
pub use uninstall::{Removal, uninstall};

/// The file in the run directory that has the API server's URL.
pub const API_SERVER: &str = "apiserver";

/// The plugin's name, which is its type in a [`Conflist`].
pub const PLUGIN: &str = "fairlead-cni";

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
