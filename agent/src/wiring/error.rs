//! What can go wrong.

use std::io;

use super::sysctl::record::RecordError;

/// Why the node could not be wired.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// No rtnetlink socket.
    #[error("can't open an rtnetlink socket: {0}; does the agent run with NET_ADMIN in the node's network namespace?")]
    Socket(#[source] io::Error),
    /// The kernel refused something.
    #[error("the kernel refused to {what}: {source}")]
    Kernel {
        /// What was tried.
        what: String,
        /// What it said.
        source: io::Error,
    },
    /// Somebody else has a route to the same prefix.
    #[error(
        "there is another program's route {theirs} where {wanted} should be; remove what makes it, or delete it with ip route"
    )]
    Taken {
        /// The route as it is.
        theirs: String,
        /// The one that was to be there.
        wanted: String,
    },
    /// A list was never that of one moment.
    #[error("can't {0}: interfaces come and go faster than the kernel can list them; find out who creates them")]
    Changing(&'static str),
    /// A sysctl could not be written.
    #[error("can't set {path} to {value}: {source}; is /proc/sys mounted writable in the agent's container?")]
    Sysctl {
        /// The file.
        path: String,
        /// What it should hold.
        value: String,
        /// What the system said.
        source: io::Error,
    },
    /// What a sysctl was is not recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A sysctl is neither what it was nor what it was made.
    #[error("{key} is {now}, which Fairlead did not set; before Fairlead it was {old}")]
    Changed {
        /// Its name.
        key: String,
        /// Its value.
        now: String,
        /// What it was.
        old: String,
    },
    /// The worker that deletes links is gone, because the agent is stopping.
    #[error("the agent is stopping")]
    Stopping,
}

/// What became of making something be as it should.
#[derive(Debug, Default)]
pub struct Kept {
    /// What was not so, and is now.
    pub changed: Vec<String>,
    /// What could not be changed.
    pub errors: Vec<WiringError>,
}

impl Kept {
    pub(super) fn note(&mut self, what: impl FnOnce() -> String, outcome: Result<(), WiringError>) {
        match outcome {
            Ok(()) => self.changed.push(what()),
            Err(error) => self.errors.push(error),
        }
    }
}

impl WiringError {
    /// Wraps what rtnetlink said about an attempt.
    pub(crate) fn kernel(what: impl Into<String>, error: &rtnetlink::Error) -> Self {
        let source = match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other.to_string()),
        };
        Self::Kernel { what: what.into(), source }
    }

    /// The system's error number, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { source, .. } | Self::Socket(source) | Self::Sysctl { source, .. } => source.raw_os_error(),
            Self::Record(_) | Self::Taken { .. } | Self::Changing(_) | Self::Changed { .. } | Self::Stopping => None,
        }
    }
}
