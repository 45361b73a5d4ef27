//! Answers that open something: `domainNames` of ClusterNetworkPolicies.
//!
//! The node's agent says in a file which names are rules' for which of its pods ([`rules`]). A pod gets such an answer once the
//! agent has said that its addresses are in force ([`agent`]); without that word it gets SERVFAIL. All other answers go as they
//! would: the [`Gate`] looks at the response as it is sent, whoever made it, and whatever it came over.

mod agent;
mod budget;
mod gate;
mod response;
mod rules;

pub use agent::PATIENCE;
pub use gate::{Counters, Gate, Look, Question, WAITS};
