//! What the agent and the DNS server of a node say to each other.
//!
//! The agent writes a file of whose answers concern it ([`RULES`]), and listens beside it ([`SOCKET`]). The server asks with a
//! line of JSON ([`Ask`]) before it gives such an answer to the client, and is told in another ([`Reply`]), in any order. The file
//! says what is covered also while no agent is there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::DomainName;

/// The name of the socket in the directory that both see.
pub const SOCKET: &str = "agent.sock";

/// The name of the file in that directory.
pub const RULES: &str = "rules.json";

/// Most addresses of an answer: one with more of them is refused.
pub const MOST_ADDRESSES: usize = 1024;

/// Longest line, in bytes, with its end: so many addresses of IPv6 and a name.
pub const LONGEST: usize = 64 << 10;

/// The layout of the file.
const VERSION: u32 = 1;

/// Whose answers concern the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NameRules {
    version: u32,
    /// Lists of names.
    pub lists: Vec<Vec<DomainName>>,
    /// The clients that a rule with names is for, with the index of their list.
    pub clients: BTreeMap<IpAddr, usize>,
    /// The same of rules of policies in audit mode: the agent is told such answers, and nobody waits for it.
    #[serde(default)]
    pub audited: BTreeMap<IpAddr, usize>,
    /// The prefixes that this node's pods have their addresses from.
    pub own: Vec<IpNetwork>,
    /// Every name that a policy of the cluster has.
    pub all: Vec<DomainName>,
}

/// An answer that is to be given to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// What the reply repeats.
    pub id: u64,
    /// The client.
    pub client: IpAddr,
    /// The name that it asked for, in small letters, without a dot at its end.
    pub name: String,
    /// For how long the answer may be used, in seconds.
    pub ttl: u32,
    /// The addresses in it.
    pub addresses: Vec<IpAddr>,
}

/// What the agent has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// That of the question.
    pub id: u64,
    /// What it has done.
    pub said: Said,
}

/// What the agent has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// The client may connect to the addresses, as far as names open them.
    InForce,
    /// No rule with names is about this client and name.
    NotCovered,
    /// The addresses are not in force, and won't be for now.
    Refused,
}

/// Something that is none of these.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not JSON of this form.
    #[error("can't be read: {0}")]
    Form(#[from] serde_json::Error),
    /// It is of another release.
    #[error("is of version {0}, and this is for version {VERSION}: run one release of fairlead and fairlead-dns")]
    Version(u32),
}

fn line(value: &impl Serialize) -> Vec<u8> {
    // No map with keys that are no strings, and no custom serializer: there is nothing that fails.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

fn parsed<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, Unreadable> {
    Ok(serde_json::from_slice(line)?)
}

impl NameRules {
    /// The file's content.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        line(&Self { version: VERSION, ..self.clone() })
    }

    /// Reads the file's content.
    ///
    /// # Errors
    /// It is not what this release writes.
    pub fn decode(content: &[u8]) -> Result<Self, Unreadable> {
        let read: Self = parsed(content)?;
        if read.version == VERSION { Ok(Self { version: 0, ..read }) } else { Err(Unreadable::Version(read.version)) }
    }
}

impl Ask {
    /// The line.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        line(self)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// It is no question.
    pub fn decode(line: &[u8]) -> Result<Self, Unreadable> {
        parsed(line)
    }
}

impl Reply {
    /// The line.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        line(self)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// It is no reply.
    pub fn decode(line: &[u8]) -> Result<Self, Unreadable> {
        parsed(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let name = |text: &str| DomainName::parse(text).unwrap();
        let rules = NameRules {
            lists: vec![vec![name("a.example"), name("*.b.example")]],
            clients: BTreeMap::from([("10.244.1.5".parse().unwrap(), 0), ("fd00::5".parse().unwrap(), 0)]),
            audited: BTreeMap::from([("10.244.1.6".parse().unwrap(), 0)]),
            own: vec!["10.244.1.0/24".parse().unwrap()],
            all: vec![name("a.example")],
            ..NameRules::default()
        };
        assert_eq!(NameRules::decode(&rules.encode()).unwrap(), rules);
        let before = String::from_utf8(rules.encode()).unwrap().replace("\"audited\":{\"10.244.1.6\":0},", "");
        assert!(
            NameRules::decode(before.as_bytes()).unwrap().audited.is_empty(),
            "of an agent that does not audit names"
        );
        let later = String::from_utf8(rules.encode()).unwrap().replace("\"version\":1", "\"version\":2");
        assert!(NameRules::decode(later.as_bytes()).unwrap_err().to_string().contains("version 2"));
        assert!(NameRules::decode(b"{}").is_err());
        let addresses = vec!["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(); MOST_ADDRESSES];
        let client = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        let ask = Ask { id: u64::MAX, client, name: "a".repeat(253), ttl: u32::MAX, addresses };
        assert!(ask.encode().len() < LONGEST);
        assert_eq!(Ask::decode(&ask.encode()).unwrap(), ask);
        let reply = Reply { id: 7, said: Said::InForce };
        assert_eq!(reply.encode(), b"{\"id\":7,\"said\":\"in_force\"}\n");
        assert_eq!(Reply::decode(&reply.encode()).unwrap(), reply);
    }
}
