//! The maps, a file for each concept, and [`Maps`], which lets the datapath read them.

mod flow;
mod peer;
mod policy;
mod service;
pub(crate) mod sock;

pub(crate) use flow::{config, host_flows, report, uplink, walk};

/// All maps of the object: what the datapath's table traits are implemented for.
#[derive(Clone, Copy)]
pub(crate) struct Maps;
