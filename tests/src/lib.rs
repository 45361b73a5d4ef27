//! The lab: a small cluster of network namespaces on one machine, for the behaviour tests and the demo.
//!
//! A test makes a [`Lab`], pods in it and the objects that a control plane would have written, then probes from
//! where it likes. It reads like this:
//!
//! ```no_run
//! use fairlead_tests::{Lab, Probe, ProbeError, Probes, ServiceManifest, Via};
//!
//! #[test]
//! fn s33_no_endpoints_refuses() {
//!     // Three nodes in two zones with an agent each: node-1 and node-2 in zone-a, node-3 in zone-b.
//!     let lab = Lab::new();
//!     let client = lab.node("node-1").pod("shop/client").label("app", "client").start();
//!     let near = lab.node("node-1").pod("shop/near").tcp(8080).start();
//!     let far = lab.node("node-3").pod("shop/far").tcp(8080).start();
//!
//!     let web = ServiceManifest::new("shop/web").ips(&["10.96.1.1", "fd00:10:96::1:1"]).tcp("http", 80, 8080);
//!     lab.apply(&web.clone().endpoints(&[&near, &far]).yaml());
//!     for ip in ["10.96.1.1", "fd00:10:96::1:1"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap()) {
//!         for via in Via::BOTH {
//!             let reply = lab.wait_until("the service answers", || client.via(via).tcp(ip, 80));
//!             assert_eq!(reply.peer.ip(), ip, "the client talks to the service");
//!             assert!(client.ips().contains(&reply.server.peer.ip()), "the server sees the client");
//!         }
//!     }
//!
//!     lab.apply(&web.yaml());
//!     for via in Via::BOTH {
//!         lab.wait_until("the service refuses", || match client.via(via).tcp([10, 96, 1, 1], 80) {
//!             Err(ProbeError::Refused) => Ok(()),
//!             other => Err(other),
//!         });
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! - Objects are YAML in the test: [`Lab::apply`] and [`Lab::delete`]. Nodes, namespaces and pods of the lab have theirs
//!   by themselves. What is wrong on purpose goes through [`Manifests::write`].
//! - A probe is one attempt and connects sooner than TCP would try again, so a lost packet is a failed probe. What takes
//!   time to come into force is waited for with [`Lab::wait_until`].
//! - [`Via`] says whether the socket hooks see a client. Both ways have to work by themselves.
//! - Places to probe from are pods, nodes (then it is a process of the host), [`Lab::client`] and [`Lab::far_client`];
//!   [`Probes`] lists what can be done from each: probes, pings, connections that stay, frames, load, any command.
//! - When a test fails, the ends of all logs are shown. `FAIRLEAD_LAB_LOG=debug` has agents and DNS servers log more.
//!
//! # How it is made
//! The owner of a lab, a test, starts a *guardian*, which makes cgroups and the lab's first process, *init*, in a
//! process namespace. Init's network namespace is the fabric between nodes. It starts *workers*: one in each node, in
//! network, mount and cgroup namespaces of its own; one beside it in the same network but in another cgroup, which no
//! hook of the node sees; one in each client. Workers make pods' namespaces and act there by threads. The owner talks
//! to them over Unix sockets in the lab's directory. Nothing of a lab is in the machine's own namespaces but that
//! directory and the cgroups, and the guardian removes both when its owner has ended, in whatever way.
//!
//! A test must find the same on every machine. So a node sees an /etc of its own, nothing of what CNI plugins, kubelets or
//! container runtimes have left on the machine, and neither its cgroups nor its environment; its network has the settings
//! that the kernel is built with. It can write nowhere but in the lab.
//!
//! What a lab runs when it isn't a small test's own is made by [`generate`], from manifests of the field.
//!
//! `fairlead-lab` is the program of all these processes, and shows and enters labs that were kept ([`Lab::keep`]).

#![forbid(unsafe_code)]

pub mod bench;
mod binaries;
mod builder;
mod bulk;
pub mod demo;
mod deploy;
mod drive;
mod drops;
pub mod foreign;
pub mod frames;
pub mod generate;
mod guardian;
mod hide;
mod init;
mod lab;
mod link;
mod load;
mod logs;
mod manifests;
mod node;
mod offloads;
mod packets;
mod plan;
mod pod;
mod probe;
mod process;
pub mod promql;
mod proto;
mod reach;
mod relayout;
mod service;
mod site;
mod sysctls;
mod system;
mod tune;
mod vantage;
mod visit;
mod wiring;
mod worker;

pub use binaries::binary;
pub use builder::Builder;
pub use bulk::Bulk;
pub use deploy::Pods;
pub use drive::{Drive, Driven, Ending, Held, Hold, Sink};
pub use drops::Drops;
pub use lab::Lab;
pub use load::{Load, Loading, Report, Tally};
pub use manifests::Manifests;
pub use node::{Agent, Node};
pub use packets::{Frame, Packets, checksum};
pub use pod::{Pod, PodBuilder};
pub use probe::{Echo, Identity, Ping, Probe, ProbeError, Reply, Transport};
pub use process::Process;
pub use proto::Ended;
pub use reach::{assert_reaches, probes};
pub use relayout::relayout;
pub use service::ServiceManifest;
pub use vantage::{Connection, Probes, Vantage, Via};

/// The processes of a lab, which the program `fairlead-lab` runs.
pub mod processes {
    pub use crate::guardian::guard;
    pub use crate::init::init;
    pub use crate::offloads::set as set_offloads;
    pub use crate::site::worker;
    pub use crate::visit::{enter, list, stop};
    pub use crate::worker::{load, serve};

    /// What the program says when a load is under way.
    pub const UNDER_WAY: &str = "under way";
}
