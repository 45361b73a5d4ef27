//! Which interfaces are uplinks: those that the settings name, and not those that they exclude.

use std::fmt;
use std::str::FromStr;

use super::Uplink;

/// A name of interfaces, in which `*` stands for any characters and `?` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(String);

impl NamePattern {
    /// Whether it means an interface.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        matches(self.0.as_bytes(), name.as_bytes())
    }
}

/// Goes back to the last `*` where the rest does not match, so that no pattern takes long.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut here, mut star) = (0, 0, None);
    while here < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, here));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[here] => {
                at += 1;
                here += 1;
            }
            _ => {
                let Some((place, from)) = star else { return false };
                star = Some((place, from + 1));
                at = place + 1;
                here = from + 1;
            }
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

impl FromStr for NamePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // IFNAMSIZ (include/uapi/linux/if.h) with its final zero; a pattern may have a few stars more.
        const LONGEST: usize = 32;
        let is_name = |c: char| c.is_ascii_graphic() && c != '/' && c != ',';
        match !text.is_empty() && text.len() <= LONGEST && text.chars().all(is_name) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("{text:?} is not an interface name or pattern, such as eth0 or docker*")),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the settings say of uplinks.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// If there are any, those alone.
    pub named: Vec<NamePattern>,
    /// Never these.
    pub excluded: Vec<NamePattern>,
}

impl Choice {
    /// Leaves those that the settings mean. Nodes are reached by those that are named.
    #[must_use]
    pub fn of(&self, mut uplinks: Vec<Uplink>) -> Vec<Uplink> {
        let any = |patterns: &[NamePattern], name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        uplinks.retain(|uplink| !any(&self.excluded, &uplink.name));
        if !self.named.is_empty() {
            uplinks.retain(|uplink| any(&self.named, &uplink.name));
            uplinks.iter_mut().for_each(|uplink| uplink.is_primary = true);
        }
        uplinks
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_are_of_interface_names() {
        let is = |pattern: &str, name: &str| pattern.parse::<NamePattern>().unwrap().matches(name);
        assert!(is("eth0", "eth0") && !is("eth0", "eth01") && !is("eth0", "eth"));
        assert!(is("docker*", "docker0") && is("docker*", "docker") && !is("docker*", "br-docker"));
        assert!(is("*.100", "bond0.100") && is("eth?", "eth7") && !is("eth?", "eth10") && is("*a*b*", "xxaabbb"));
        for wrong in ["", "eth 0", "a/b", "a,b", "veth0123456789veth0123456789veth01234"] {
            assert!(wrong.parse::<NamePattern>().is_err(), "{wrong}");
        }
    }

    /// The same by trying everything.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) if naive(rest, name) => true,
            (Some((b'*', _)), Some((_, tail))) => naive(pattern, tail),
            (Some((byte, rest)), Some((first, tail))) => (*byte == b'?' || byte == first) && naive(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn they_match_as_the_naive_way_does(pattern in "[ab?*]{0,8}", name in "[ab]{0,8}") {
            prop_assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), naive(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
