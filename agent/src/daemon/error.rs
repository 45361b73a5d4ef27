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
    #[error("can't create the run directory {path}: {source}; choose another with --run-dir")]
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
    #[error("can't use the socket {path}: {source}; choose another directory with --run-dir")]
    Admin {
        /// The socket.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The socket for the DNS server can't be made.
    #[error("can't listen for the node's DNS server in {path}: {source}; choose another directory with --run-dir")]
    Names {
        /// The directory.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// More addresses are to be closed than the programs can be told.
    #[error(
        "metadata.addresses has {0} addresses, and the limit is {MAX_CLOSED}: remove some, and block those \
         with a NetworkPolicy"
    )]
    Metadata(usize),
    /// The source of objects ended.
    #[error("the source of objects ended; restart the agent")]
    SourceEnded,
    /// The loop ended.
    #[error("the agent's loop ended; restart the agent")]
    LoopEnded,
}
