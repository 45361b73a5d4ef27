//! Executes the built plugin as a container runtime does, in network namespaces of the test's own, against the agent's
//! CNI server with a datapath that does nothing, and looks at what the kernel shows.
#![forbid(unsafe_code)]

mod add;
mod check;
mod del;
mod harness;
mod netns;
mod others;
