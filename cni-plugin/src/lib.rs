//! The CNI plugin of Fairlead: what the binary does, and the words in which it talks with the agent.
//!
//! The plugin wires a pod (a veth pair, addresses, routes, neighbours); the agent owns addresses, programs and policy.
//! CNI specification: <https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md>.
#![forbid(unsafe_code)]

pub mod client;
mod conf;
mod env;
mod error;
mod mac;
mod netlink;
pub mod protocol;
pub mod queue;
pub mod ready;
mod result;
mod run;
mod verbs;
mod version;
mod wire;

pub use conf::NetConf;
pub use env::{Command, Env, PodArgs};
pub use error::{Error, code};
pub use mac::Mac;
pub use run::{Outcome, run};
pub use version::Version;
