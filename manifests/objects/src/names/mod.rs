//! Names of domains as peers of a policy (NPEP-133): what they match, and what the agent and the DNS server of a node say to each
//! other about them.

mod domain;
mod line;
mod protocol;

pub use domain::{DomainName, DomainNames};
pub use line::Line;
pub use protocol::{Ask, LONGEST, MOST_ADDRESSES, NameRules, RULES, Reply, SOCKET, Said, Unreadable};
