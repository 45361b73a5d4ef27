//! Values of flags that are more than a word.

use fairlead_dns::WireName;
use fairlead_dns::corefile::{self, Corefile};
use fairlead_dns::site::acl::Prefix;
use fairlead_dns::site::log::{COMMON, Kinds, LogRule};
use fairlead_dns::site::rewrite::Rewrite;
use fairlead_dns::site::template::Template;

/// Queries that are logged.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    Zone(WireName),
    From(Prefix),
}

impl Wanted {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match Prefix::parse(text) {
            Some(prefix) => Ok(Self::From(prefix)),
            None => WireName::parse(text).map(Self::Zone).map_err(|error| error.to_string()),
        }
    }

    /// The rule in a block for some zones.
    pub(crate) fn rule(&self, block: &[WireName]) -> LogRule {
        let (zones, sources) = match self {
            Self::Zone(zone) => (vec![zone.clone()], vec![]),
            Self::From(prefix) => (block.to_vec(), vec![*prefix]),
        };
        LogRule { zones, sources, kinds: Kinds::ALL, format: COMMON.to_owned() }
    }
}

/// A rule as CoreDNS has it.
pub(crate) fn rewrite_rule(text: &str) -> Result<Rewrite, String> {
    let directive = Corefile::directive("rewrite", text).map_err(|mistake| mistake.text)?;
    corefile::rewrite(&directive).map_err(|mistake| mistake.text)
}

/// A template as CoreDNS has it.
pub(crate) fn template_rule(text: &str) -> Result<Template, String> {
    let directive = Corefile::directive("template", text).map_err(|mistake| mistake.text)?;
    let root = WireName::parse(".").map_err(|error| error.to_string())?;
    corefile::template(&directive, &[root]).map_err(|mistake| mistake.text)
}
