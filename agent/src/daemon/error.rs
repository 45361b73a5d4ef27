//! Why an agent can't start or go on.

use std::io;
use std::path::PathBuf;

use fairlead_datapath::config::MAX_CLOSED;

use crate::bpf::BpfError;
use crate::cni::CniError;
use crate::wiring::WiringError;

/// An error of this module. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The run directory can't be made.
    #[error("the run directory {path} can't be made: {source}; name another with --run-dir")]
    RunDir {
        /// The directory.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// Programs or maps.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The CNI server.
    #[error(transparent)]
    Cni(#[from] CniError),
    /// Links and routes.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// The admin socket can't be made.
    #[error("the socket {path} can't be used: {source}; name another directory with --run-dir")]
    Admin {
        /// The socket.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// More addresses are to be closed than the programs can be told.
    #[error(
        "metadata.addresses has {0} addresses and there is room for {MAX_CLOSED}: leave some out, or close them by NetworkPolicy"
    )]
    Metadata(usize),
    /// The source of objects ended.
    #[error("the source of objects ended; start the agent again")]
    SourceEnded,
    /// The loop ended.
    #[error("the agent's loop ended; start the agent again")]
    LoopEnded,
}
