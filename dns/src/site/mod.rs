//! What is answered besides the cluster's zone, and for whom: server blocks, each for the names in some zones.
//!
//! In a block a query meets, in CoreDNS' order: [`dns64`], [`rewrite`], who may ask ([`acl`]), [`template`], fixed
//! addresses, [`external`] zones, the cluster's zone, and the servers to forward to. The whole is replaced when the
//! configuration changes.

pub mod acl;
mod alone;
pub mod dns64;
pub mod external;
pub mod log;
pub mod rewrite;
pub mod scope;
pub mod template;
pub mod text;
pub mod transfer;

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::{Name, Record};

use crate::WireName;
use crate::forward::Forwarder;
pub use crate::forward::Route;
use crate::hosts::Hosts;
use crate::manner::Manner;
use crate::name::strip_suffix;
use crate::wire::RecordType;
use crate::zone::Answer;

use acl::{AclRule, Verdict};
use dns64::Dns64;
use external::External;
use log::LogRule;
use rewrite::Rewrite;
pub(crate) use scope::Fall;
use scope::covers;
use template::Template;
use transfer::Transfer;

/// Every block.
#[derive(Default)]
pub struct Site {
    blocks: Vec<Block>,
    /// How many lines of the query log are written in a second, at most.
    log_rate: u32,
    /// There is one block, for all names, with nothing that could be in the way of a plain answer.
    plain: bool,
}

/// A block.
#[derive(Default)]
pub struct Block {
    /// What it does.
    pub rules: Rules,
    /// Its fixed addresses.
    pub hosts: Arc<Hosts>,
    /// Where it forwards to, in order.
    pub routes: Vec<Route>,
}

/// What a block does, apart from what has to be read from elsewhere.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    /// The zones whose names it is for.
    pub zones: Vec<WireName>,
    /// What is logged.
    pub log: Vec<LogRule>,
    /// Who may ask what.
    pub acl: Vec<AclRule>,
    /// Questions that are answered as others.
    pub rewrites: Vec<Rewrite>,
    /// Answers that are made of questions.
    pub templates: Vec<Template>,
    /// How fixed addresses are given.
    pub hosts: HostsRules,
    /// Zones of addresses that Services have for the outside.
    pub external: Option<External>,
    /// What is answered of the cluster's zone.
    pub cluster: Option<Cluster>,
    /// Who may have whole zones.
    pub transfers: Vec<Transfer>,
    /// Addresses of IPv6 that are made of those of IPv4.
    pub dns64: Option<Dns64>,
}

/// How fixed addresses are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostsRules {
    /// The zones in which they count.
    pub zones: Vec<WireName>,
    /// Which names that have none go on.
    pub fall: Fall,
    /// How long clients may keep them, in seconds.
    pub ttl: u32,
    /// Addresses lead back to names.
    pub reverse: bool,
    /// They come before the cluster's zone.
    pub first: bool,
    /// Of names that go on where they have none, types that are no addresses go on too.
    pub other_types: bool,
}

impl Default for HostsRules {
    fn default() -> Self {
        Self { zones: Vec::new(), fall: Fall::Everywhere, ttl: 30, reverse: true, first: false, other_types: false }
    }
}

/// What is answered of the cluster's zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The zone.
    pub origin: WireName,
    /// Reverse zones whose names are answered here.
    pub reverse: Vec<WireName>,
    /// Which names that don't exist go on.
    pub fall: Fall,
}

/// What names of addresses end in.
const ARPA: &[u8] = b"\x04arpa\x00";

/// The zones of reverse names.
pub const REVERSE: [&str; 2] = ["in-addr.arpa", "ip6.arpa"];

impl Cluster {
    /// The zone with the names of its addresses; other reverse names go on.
    #[must_use]
    pub fn usual(origin: &WireName) -> Self {
        let reverse: Vec<WireName> = REVERSE.iter().filter_map(|zone| WireName::parse(zone).ok()).collect();
        Self { origin: origin.clone(), fall: Fall::In(reverse.clone()), reverse }
    }

    /// Whether nothing but the zone's own answer is to be looked at.
    fn is_usual(&self) -> bool {
        *self == Self::usual(&self.origin)
    }

    /// What the zone's answer means here. A reverse zone stands for a name in it that does not exist.
    pub fn judge<'a>(&'a self, name: &[u8], answer: Answer<'a>) -> Judged<'a> {
        let reverse = self.reverse.iter().find(|zone| strip_suffix(name, zone.as_wire()).is_some());
        let own = strip_suffix(name, self.origin.as_wire()).is_some();
        match (answer, reverse) {
            (Answer::NoName, _) if own && self.fall.through(name) => Judged::Next,
            (answer, _) if own => Judged::Zone(answer),
            (Answer::Elsewhere, Some(zone)) if !self.fall.through(name) => Judged::Denied(zone),
            (Answer::Elsewhere, _) | (_, None) => Judged::Next,
            (answer, Some(_)) => Judged::Zone(answer),
        }
    }
}

/// Who has the answer to a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Judged<'z> {
    /// The cluster's zone.
    Zone(Answer<'z>),
    /// There is no such name in this reverse zone.
    Denied(&'z WireName),
    /// Whoever is next.
    Next,
}

/// What fixed addresses say to a question.
pub enum Fixed {
    /// Nothing: somebody else may know.
    Next,
    /// These records; none: the name has no such record.
    Records(Vec<Record>),
    /// The name is not among them, and nobody else is to be asked.
    Unknown,
}

impl Block {
    /// The servers to forward a question to, if there are any.
    #[must_use]
    pub fn forwarder(&self, name: &[u8]) -> Option<&Arc<Forwarder>> {
        self.routes.iter().find(|route| route.is_for(name)).map(|route| &route.forwarder)
    }

    /// What fixed addresses say to a question.
    #[must_use]
    pub fn fixed(&self, name: &[u8], record_type: RecordType, owner: &Name) -> Fixed {
        let rules = &self.rules.hosts;
        let pointer = record_type == RecordType::PTR;
        if !self.may_be_fixed(name, record_type) {
            return Fixed::Next;
        }
        match self.hosts.records(name, record_type, owner, rules.ttl) {
            Some(records) => Fixed::Records(records),
            None if pointer || rules.fall.through(name) => Fixed::Next,
            None => Fixed::Unknown,
        }
    }

    /// Whether fixed addresses are asked for a name at all.
    fn may_be_fixed(&self, name: &[u8], record_type: RecordType) -> bool {
        let rules = &self.rules.hosts;
        if record_type == RecordType::PTR {
            return !rules.zones.is_empty() && rules.reverse;
        }
        let has_type = matches!(record_type, RecordType::A | RecordType::AAAA);
        covers(&rules.zones, name) && (has_type || !rules.other_types || !rules.fall.through(name))
    }

    /// Whether fixed addresses have something to say.
    pub(crate) fn is_fixed(&self, name: &[u8], record_type: RecordType) -> bool {
        let rules = &self.rules.hosts;
        if self.hosts.is_empty() && (rules.zones.is_empty() || rules.fall == Fall::Everywhere) {
            return false;
        }
        let pointer = record_type == RecordType::PTR;
        let knows = || self.hosts.knows(name, record_type) || !(pointer || rules.fall.through(name));
        self.may_be_fixed(name, record_type) && knows()
    }

    /// Whether a question can be answered on the short way.
    fn is_short(&self, name: &[u8], record_type: RecordType, client: IpAddr, origin: &WireName) -> bool {
        let Rules { acl, rewrites, templates, hosts, external, cluster, dns64, .. } = &self.rules;
        let own = strip_suffix(name, origin.as_wire()).is_some();
        // What is no answer of the zone may be somebody else's to give, and the zone's may not be this block's.
        let settled = match cluster {
            _ if !own && !name.ends_with(ARPA) => true,
            Some(cluster) if own => !cluster.fall.through(name),
            Some(cluster) => cluster.is_usual(),
            None => false,
        };
        settled
            && acl::judge(acl, name, record_type, client) == Verdict::Allow
            && !rewrite::touches(rewrites, name, record_type)
            && !templates.iter().any(|template| covers(&template.zones, name))
            && !(hosts.first && self.is_fixed(name, record_type))
            && external.as_ref().is_none_or(|external| !covers(&external.zones, name))
            && !dns64.is_some_and(|dns64| dns64.is_for(record_type, client))
    }
}

impl Site {
    /// A site of these blocks.
    #[must_use]
    pub fn new(mut blocks: Vec<Block>, log_rate: u32) -> Self {
        let root = |zones: &[WireName]| zones.iter().any(|zone| zone.as_wire().len() == 1);
        let is_plain = |block: &Block| {
            let Rules { zones, acl, rewrites, templates, hosts, external, cluster, dns64, .. } = &block.rules;
            root(zones)
                && acl.is_empty()
                && rewrites.is_empty()
                && templates.is_empty()
                && !hosts.first
                && external.is_none()
                && dns64.is_none()
                && cluster.as_ref().is_some_and(Cluster::is_usual)
        };
        // Blocks for the same zone are refused; the longest zone that a name is in counts.
        blocks.retain(|block| !block.rules.zones.is_empty());
        let plain = matches!(&blocks[..], [block] if is_plain(block));
        Self { blocks, log_rate, plain }
    }

    /// One block for all names: the cluster's zone, and servers for other names.
    #[must_use]
    pub fn plain(origin: &WireName, forwarder: Option<Arc<Forwarder>>, hosts: Hosts) -> Self {
        let root = || WireName::parse(".").into_iter();
        let rules = Rules {
            zones: root().collect(),
            hosts: HostsRules { zones: root().collect(), ..HostsRules::default() },
            cluster: Some(Cluster::usual(origin)),
            ..Rules::default()
        };
        let route =
            |forwarder| root().map(move |from| Route { from, except: vec![], forwarder: Arc::clone(&forwarder) });
        let routes = forwarder.into_iter().flat_map(route).collect();
        Self::new(vec![Block { rules, hosts: Arc::new(hosts), routes }], 0)
    }

    /// Its blocks.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// How many lines of the query log are written in a second, at most.
    #[must_use]
    pub fn log_rate(&self) -> u32 {
        self.log_rate
    }

    /// The block for a name in lower case and wire format: the one with the longest zone.
    #[must_use]
    pub fn block(&self, name: &[u8]) -> Option<&Block> {
        let length = |block: &Block| {
            let zones = block.rules.zones.iter().filter(|zone| strip_suffix(name, zone.as_wire()).is_some());
            zones.map(|zone| zone.as_wire().len()).max()
        };
        if self.plain {
            return self.blocks.first();
        }
        self.blocks
            .iter()
            .filter_map(|block| Some((length(block)?, block)))
            .max_by_key(|(length, _)| *length)
            .map(|(_, block)| block)
    }

    /// Every forwarder, each once.
    #[must_use]
    pub fn forwarders(&self) -> Vec<Arc<Forwarder>> {
        let mut all: Vec<Arc<Forwarder>> = Vec::new();
        for route in self.blocks.iter().flat_map(|block| &block.routes) {
            if !all.iter().any(|known| Arc::ptr_eq(known, &route.forwarder)) {
                all.push(Arc::clone(&route.forwarder));
            }
        }
        all
    }

    /// Whether a name in the cluster's zone is answered from there only: nothing comes first, nothing afterwards.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// Sizes and flags, with what the site knows of them.
    #[must_use]
    pub fn manner(&self, manner: Manner) -> Manner {
        Manner { recursion: self.blocks.iter().any(|block| !block.routes.is_empty()), ..manner }
    }

    /// Whether a question can be answered on the short way; the name in lower case.
    #[must_use]
    pub fn is_short(&self, name: &[u8], record_type: RecordType, client: IpAddr) -> bool {
        let Some(origin) = self.blocks.iter().find_map(|block| Some(&block.rules.cluster.as_ref()?.origin)) else {
            return false;
        };
        self.plain || self.block(name).is_some_and(|block| block.is_short(name, record_type, client, origin))
    }

    /// Whether any query is logged.
    #[must_use]
    pub fn logs(&self) -> bool {
        self.blocks.iter().any(|block| !block.rules.log.is_empty())
    }
}
