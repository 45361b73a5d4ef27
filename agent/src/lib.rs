//! The agent of a node. An object's way through it is the order of these modules:
//!
//! watch ([`fairlead_objects`]) → [`model`] → [`compile`] (pure) → [`plan`] (pure) → [`apply`].
//!
//! Around that: [`bpf`] loads, pins and attaches the programs, [`layout`] reads tables of other versions, [`cni`] serves the plugin, [`network`] says how other nodes
//! are reached, [`masquerade`] with which address pods leave the cluster, [`conntrack`] how long flows are
//! remembered, [`names`] what pods were told by DNS, [`wiring`] keeps the node's routes and its tunnel, [`repair`] says what of all that others have undone,
//! [`sockets`] ends those of the node's processes whose other end is gone,
//! [`daemon`] is the loop that connects them all, [`state`] what it knows of itself, [`admin`] answers those who look in,
//! [`observe`] probes and Prometheus, [`events`] tells the cluster, [`settings`] is what can be set, [`install`] brings all
//! of it to a node and takes it away, [`zone`] has the kernel answer DNS queries of pods, and [`doctor`] looks for what is in its way there.
#![deny(unsafe_code)]

pub mod admin;
pub mod apply;
pub mod audit;
pub mod bpf;
pub mod cli;
pub mod cni;
pub mod compile;
pub mod conntrack;
pub mod daemon;
pub mod doctor;
pub mod events;
pub mod foreign;
pub mod install;
pub mod layout;
mod lines;
pub mod log;
pub mod masquerade;
pub mod model;
pub mod names;
pub mod network;
pub mod observe;
pub mod parts;
pub mod plan;
pub mod repair;
mod seats;
pub mod settings;
mod socket;
pub mod sockets;
pub mod state;
pub mod wiring;
pub mod xdp;
pub mod zone;
