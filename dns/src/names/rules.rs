//! Whose answers concern policy, as the node's agent has written it down.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use fairlead_objects::DomainNames;
use fairlead_objects::names::{NameRules, Unreadable};

/// The names that rules have, by client.
#[derive(Debug, Default)]
pub(super) struct Rules {
    clients: HashMap<IpAddr, Arc<DomainNames>>,
    /// Those that are only counted.
    audited: HashMap<IpAddr, Arc<DomainNames>>,
    /// Those of the whole cluster.
    all: DomainNames,
    own: NameRules,
}

impl Rules {
    pub(super) fn of(read: NameRules) -> Self {
        let lists: Vec<Arc<DomainNames>> = read.lists.iter().map(|list| Arc::new(list.iter().collect())).collect();
        let client = |(ip, list): (&IpAddr, &usize)| Some((*ip, Arc::clone(lists.get(*list)?)));
        let of = |clients: &BTreeMap<IpAddr, usize>| clients.iter().filter_map(client).collect();
        Self { clients: of(&read.clients), audited: of(&read.audited), all: read.all.iter().collect(), own: read }
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.audited.is_empty() && self.all.is_empty()
    }

    /// The names that rules for a client have.
    pub(super) fn of_client(&self, client: IpAddr) -> Option<&Arc<DomainNames>> {
        self.clients.get(&client)
    }

    /// The names that rules in audit mode for a client have.
    pub(super) fn audited_of(&self, client: IpAddr) -> Option<&Arc<DomainNames>> {
        self.audited.get(&client)
    }

    /// Whether a client is none of this node's pods, and a rule somewhere has this name.
    pub(super) fn is_elsewhere(&self, client: IpAddr, name: impl FnOnce() -> Option<String>) -> bool {
        let own = &self.own.own;
        !self.all.is_empty()
            && !own.is_empty()
            && !own.iter().any(|range| range.contains(client))
            && name().is_some_and(|name| self.all.matches(&name))
    }
}

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
pub(super) enum RulesError {
    #[error("can't be read: {0}: may the user of this process look into the directory?")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Content(#[from] Unreadable),
}

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Rules, RulesError> {
    Ok(Rules::of(NameRules::decode(&std::fs::read(path)?)?))
}
