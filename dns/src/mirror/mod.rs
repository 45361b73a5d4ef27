//! What the kernel of the node may say in this server's place, told to the node's agent, which writes it.
//!
//! The agent gets names as they change, in the order in which the [`zone`](crate::zone) changes, and in between that all of it
//! holds ([`Mirror::keep`]). It gets nothing of what this server would not say by the zone alone ([`Site::besides`](crate::site::Site::besides)), and nothing
//! while what is known of the cluster may be old: then queries come here as they always have.

mod facts;
mod tell;

pub use facts::told;
pub use tell::{Mirror, Server};
