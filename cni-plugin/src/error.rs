//! What can go wrong, with the code that CNI gives it.

use std::io;

use crate::protocol::Failure;

/// CNI error codes (SPEC.md, "Error"; codes from 100 on are the plugin's own).
pub mod code {
    /// The configuration's `cniVersion` is not served.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// The configuration has a field that can't be served.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// A necessary environment variable is missing or wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// The input can't be decoded.
    pub const DECODING: u32 = 6;
    /// The configuration is wrong.
    pub const INVALID_CONFIG: u32 = 7;
    /// Not now: the runtime should try again.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: an ADD can't be served.
    pub const NOT_AVAILABLE: u32 = 50;
    /// STATUS: an ADD can't be served and pods that exist may be impaired.
    pub const IMPAIRED: u32 = 51;
    /// The kernel refused to make or change something.
    pub const KERNEL: u32 = 100;
    /// CHECK: what is there is not what ADD left.
    pub const DIFFERS: u32 = 101;
    /// ADD: this interface of this container was added before.
    pub const ALREADY_ADDED: u32 = 102;
}

/// Why a verb failed. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The version is unknown, or too old for the verb.
    #[error("cniVersion {version:?} is not supported: {reason}")]
    Version {
        /// `cniVersion` of the configuration.
        version: String,
        /// Why not, and which to use.
        reason: String,
    },
    /// A field that this plugin can't honour.
    #[error("unsupported field {key} = {value}: {remedy}")]
    UnsupportedField {
        /// The path of the field.
        key: &'static str,
        /// Its value.
        value: String,
        /// What to do.
        remedy: &'static str,
    },
    /// An environment variable is missing or wrong.
    #[error("invalid environment variable {variable}: {reason}")]
    Env {
        /// Its name.
        variable: &'static str,
        /// What is wrong and what is expected.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The input is not the JSON that was expected.
    #[error("can't decode {what}: {reason}")]
    Decode {
        /// What was read.
        what: &'static str,
        /// Where it went wrong.
        reason: String,
    },
    /// The configuration is wrong.
    #[error("invalid network configuration: {key}: {reason}")]
    Config {
        /// The path of the field.
        key: &'static str,
        /// What is wrong and what is expected.
        reason: String,
    },
    /// The agent does not answer.
    #[error(
        "the Fairlead agent does not answer at {socket}: {reason}; check that the fairlead pod on this node is running"
    )]
    AgentAway {
        /// The socket that was tried.
        socket: String,
        /// What the system said.
        reason: String,
    },
    /// The agent is there and does not answer in time.
    #[error(
        "the Fairlead agent hangs: it accepted no request at {socket} in time; its liveness probe will restart it, \
         see the log of the fairlead pod on this node"
    )]
    AgentHangs {
        /// The socket that was tried.
        socket: String,
    },
    /// STATUS while the agent does not answer, on a node where it was never ready since boot.
    #[error(
        "the Fairlead agent does not answer at {socket} and has not been ready since the node booted: {reason}; check that the \
         fairlead pod on this node is running"
    )]
    NotAvailable {
        /// The socket that was tried.
        socket: String,
        /// What the system said.
        reason: String,
    },
    /// The kernel refused something.
    #[error("the kernel refused to {what}: {source}")]
    Kernel {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// CHECK found a difference.
    #[error("{0}; delete the pod so that it is recreated")]
    Differs(String),
    /// The agent refused.
    #[error("{}", .0.msg)]
    Agent(Failure),
}

impl Error {
    /// The CNI error code.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Version { .. } => code::INCOMPATIBLE_VERSION,
            Self::UnsupportedField { .. } => code::UNSUPPORTED_FIELD,
            Self::Env { .. } => code::INVALID_ENVIRONMENT,
            Self::Io { .. } => code::IO,
            Self::Decode { .. } => code::DECODING,
            Self::Config { .. } => code::INVALID_CONFIG,
            Self::AgentAway { .. } | Self::AgentHangs { .. } => code::TRY_AGAIN,
            Self::NotAvailable { .. } => code::NOT_AVAILABLE,
            Self::Kernel { .. } => code::KERNEL,
            Self::Differs(_) => code::DIFFERS,
            Self::Agent(failure) => failure.code,
        }
    }

    /// More about it; empty where the message says everything.
    #[must_use]
    pub fn details(&self) -> &str {
        match self {
            Self::Agent(failure) => &failure.details,
            _ => "",
        }
    }
}
