//! Plays the control plane once: from the manifests that people write to the objects that nodes see.
//!
//! It does what the controllers and the scheduler of a real cluster would have done, and always in the same way: pods with
//! names, nodes and addresses, slices with their endpoints, services with addresses. The lab calls it for clusters of any
//! number of nodes; `fairlead-generate` writes what it gives for the one that is committed.

mod cluster;
mod manifests;
mod nodes;
mod pods;
mod services;
mod slices;

pub use cluster::Cluster;
pub use manifests::Manifests;
pub use nodes::{Place, Topology};

#[cfg(test)]
mod tests;
