//! Who may have whole zones.

use std::net::IpAddr;

use crate::WireName;
use crate::name::strip_suffix;

/// Who may have some zones (RFC 5936).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// The zones, and those below.
    pub zones: Vec<WireName>,
    /// Everybody may.
    pub anybody: bool,
    /// These may.
    pub to: Vec<IpAddr>,
}

/// Whether a client may have the zone with this name, in lower case and wire format. The rule with the longest zone
/// decides; of two the first.
#[must_use]
pub fn may(rules: &[Transfer], name: &[u8], client: IpAddr) -> bool {
    let length = |rule: &Transfer| {
        let zones = rule.zones.iter().filter(|zone| strip_suffix(name, zone.as_wire()).is_some());
        zones.map(|zone| zone.as_wire().len()).max()
    };
    let longest = rules.iter().rev().filter_map(|rule| Some((length(rule)?, rule))).max_by_key(|(length, _)| *length);
    longest.is_some_and(|(_, rule)| rule.anybody || rule.to.contains(&client.to_canonical()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_with_the_longest_zone_decides() {
        let name = |text| WireName::parse(text).unwrap();
        let rule = |zone, to: &[&str]| Transfer {
            zones: vec![name(zone)],
            anybody: to.contains(&"*"),
            to: to.iter().filter_map(|to| to.parse().ok()).collect(),
        };
        let rules = [rule(".", &["*"]), rule("a.b", &["192.0.2.1", "2001:db8::1"]), rule("a.b", &["*"])];
        let may = |zone, client: &str| may(&rules, name(zone).as_wire(), client.parse().unwrap());
        assert!(may("b", "192.0.2.9"));
        assert!(may("a.b", "192.0.2.1") && may("a.b", "::ffff:192.0.2.1") && may("a.b", "2001:db8::1"));
        assert!(!may("a.b", "192.0.2.9") && !may("c.a.b", "192.0.2.9"));
        assert!(!super::may(&[], name("b").as_wire(), "192.0.2.1".parse().unwrap()));
    }
}
