//! Whether the cluster's zone alone answers for its names, whoever asks.

use super::{Block, Cluster, Fall, Rules, Site};
use crate::WireName;
use crate::name::strip_suffix;

/// Whether a zone has names of another.
fn meets(zone: &WireName, other: &WireName) -> bool {
    let is_in = |one: &WireName, other: &WireName| strip_suffix(one.as_wire(), other.as_wire()).is_some();
    is_in(zone, other) || is_in(other, zone)
}

fn any_meets(zones: &[WireName], origin: &WireName) -> bool {
    zones.iter().any(|zone| meets(zone, origin))
}

impl Fall {
    /// Whether some names in a zone go on.
    fn lets_some_through(&self, origin: &WireName) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Everywhere => true,
            Self::In(zones) => any_meets(zones, origin),
        }
    }

    /// Whether all names in a zone go on.
    fn lets_all_through(&self, origin: &WireName) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Everywhere => true,
            Self::In(zones) => zones.iter().any(|zone| strip_suffix(origin.as_wire(), zone.as_wire()).is_some()),
        }
    }
}

impl Site {
    /// What has to do with some names in the cluster's zone besides that, if anything has: then a query for such a name is this
    /// server's to answer.
    #[must_use]
    pub fn besides(&self, origin: &WireName) -> Option<&'static str> {
        let inside =
            |zone: &WireName| strip_suffix(zone.as_wire(), origin.as_wire()).is_some_and(|front| !front.is_empty());
        if self.blocks.iter().flat_map(|block| &block.rules.zones).any(inside) {
            return Some("a server block for names in it");
        }
        match self.block(origin.as_wire()) {
            None => Some("no server block for it"),
            Some(block) => block.besides(origin),
        }
    }
}

impl Block {
    fn besides(&self, origin: &WireName) -> Option<&'static str> {
        let Rules { zones: _, log, acl, rewrites, templates, hosts, external, cluster, transfers: _, dns64 } =
            &self.rules;
        let falls = |Cluster { origin: own, fall, .. }: &Cluster| own != origin || fall.lets_some_through(origin);
        let fixed = || {
            hosts.first
                && any_meets(&hosts.zones, origin)
                && (self.hosts.has_names_in(origin) || !hosts.fall.lets_all_through(origin))
        };
        let reasons = [
            (cluster.is_none(), "a server block without it"),
            (cluster.as_ref().is_some_and(falls), "names that go on where they don't exist (fallthrough)"),
            (!log.is_empty(), "the query log"),
            (!acl.is_empty(), "rules for who may ask (acl)"),
            (!rewrites.is_empty(), "rewritten queries (rewrite)"),
            (templates.iter().any(|template| any_meets(&template.zones, origin)), "answers from templates (template)"),
            (fixed(), "fixed addresses (hosts)"),
            (
                external.as_ref().is_some_and(|external| any_meets(&external.zones, origin)),
                "external addresses (k8s_external)",
            ),
            (dns64.is_some(), "addresses of IPv6 that are made of those of IPv4 (dns64)"),
        ];
        reasons.into_iter().find(|(is_so, _)| *is_so).map(|(_, reason)| reason)
    }
}
