//! The log, and its level, which can be changed while the agent runs.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// What is logged by default.
pub const DEFAULT: &str = "info";

/// What is not logged unless a filter names it: the watches say themselves what is wrong with them, and how often; and what
/// comes by netlink of pods' links is as much as they like.
const QUIET: &str = "kube_client=off,kube_runtime=off,netlink_proto=off";

/// The log of this process.
#[derive(Debug, Clone)]
pub struct Log {
    handle: reload::Handle<EnvFilter, Registry>,
    level: Arc<Mutex<String>>,
}

/// Why the level can't be changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It is no filter.
    #[error("{0}")]
    Filter(String),
    /// The log is gone.
    #[error("the log is gone: {0}; restart the agent")]
    Gone(#[from] reload::Error),
}

/// Checks a filter.
///
/// # Errors
/// What is wrong with it, and what is allowed.
pub fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "{text:?} is not a log level: {error}; use error, warn, info, debug or trace, and levels of modules after \
             commas, such as info,fairlead_agent::cni=debug"
        )),
    }
}

impl Log {
    /// Starts the log of this process, on its standard error.
    ///
    /// # Panics
    /// There is one already.
    #[must_use]
    pub fn start(filter: &str) -> Self {
        let level = Arc::new(Mutex::new(filter.to_owned()));
        let (filter, handle) = reload::Layer::new(quiet(filter));
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
        tracing_subscriber::registry().with(filter).with(lines).init();
        Self { handle, level }
    }

    /// What is logged.
    #[must_use]
    pub fn level(&self) -> String {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs this from now on.
    ///
    /// # Errors
    /// The text is no filter.
    pub fn set_level(&self, text: &str) -> Result<(), LogError> {
        filter(text).map_err(LogError::Filter)?;
        self.handle.reload(quiet(text))?;
        text.clone_into(&mut self.level.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

fn quiet(filter: &str) -> EnvFilter {
    EnvFilter::new(format!("{QUIET},{filter}"))
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT, filter};

    #[test]
    fn filters_are_checked() {
        for good in [DEFAULT, "debug", "info,fairlead_agent::cni=trace", "off"] {
            assert_eq!(filter(good).as_deref(), Ok(good));
        }
        let text = filter("info,loud=very").unwrap_err();
        assert!(text.contains("info,loud=very") && text.contains("use error, warn, info, debug or trace"), "{text}");
    }
}
