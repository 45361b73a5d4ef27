//! What programs and agent share: the tables, as layouts of their keys and values, and as traits that read them.

pub mod bandwidth;
pub mod config;
pub mod dns;
pub mod entry;
pub mod errors;
pub mod flow;
pub mod key;
pub mod peer;
pub mod policy;
pub mod port;
pub mod reused;
pub mod service;
pub mod sock;
