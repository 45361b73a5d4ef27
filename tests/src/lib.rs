//! The lab: a small cluster of network namespaces on one machine, for the behaviour tests and the demo.

#![forbid(unsafe_code)]

mod binaries;
mod guardian;
mod init;
mod lab;
mod link;
mod load;
mod logs;
mod manifests;
mod node;
mod packets;
mod plan;
mod pod;
mod probe;
mod proto;
mod site;
mod system;
mod vantage;
mod visit;
mod wiring;
mod worker;

pub use lab::{Builder, Lab};
pub use load::{Load, Report, Tally};
pub use manifests::Manifests;
pub use node::{Agent, Node, Process};
pub use packets::{Frame, Packets, checksum};
pub use pod::{Pod, PodBuilder};
pub use probe::{Echo, Identity, Ping, Probe, ProbeError, Reply, Transport};
pub use proto::Ended;
pub use vantage::{Connection, Probes, Vantage, Via};

/// The processes of a lab, which the program `fairlead-lab` runs.
pub mod processes {
    pub use crate::guardian::guard;
    pub use crate::init::init;
    pub use crate::site::worker;
    pub use crate::visit::{enter, list, stop};
}
