//! Names of domains, and sets of them.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name without the dot at its end (RFC 1035 section 2.3.4).
const LONGEST: usize = 253;
/// Longest label.
const LONGEST_LABEL: usize = 63;

/// A name, or everything below one: `kubernetes.io`, `*.kubernetes.io`. In small letters, without a dot at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainName {
    name: String,
    /// Whether it is everything below the name, and not the name.
    below: bool,
}

impl DomainName {
    /// Reads one as the CRD's pattern has it (apis/v1beta1 of network-policy-api v0.3.0), of a length that DNS has.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_label = |label: &str| {
            let bytes = label.as_bytes();
            let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
            let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            bytes.len() <= LONGEST_LABEL && is_end(bytes.first()) && is_end(bytes.last()) && bytes.iter().all(is_inner)
        };
        let is_name = name.len() <= LONGEST && name.contains('.') && name.split('.').all(is_label);
        is_name.then(|| Self { name: name.to_ascii_lowercase(), below })
    }

    /// Whether it matches any name in a zone, which is given in small letters and without a dot at its end.
    #[must_use]
    pub fn meets(&self, zone: &str) -> bool {
        let is_in = |name: &str, zone: &str| {
            name.strip_suffix(zone).is_some_and(|front| front.is_empty() || front.ends_with('.'))
        };
        is_in(&self.name, zone) || (self.below && is_in(zone, &self.name))
    }

    /// Whether it matches a name in small letters, without a dot at its end. `*` stands for one label or more.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        if self.below {
            name.strip_suffix(&self.name).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
        } else {
            name == self.name
        }
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}

impl From<DomainName> for String {
    fn from(name: DomainName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for DomainName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is not a domain name"))
    }
}

/// Many of them: a name is looked up in time that grows with its labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DomainNames {
    exact: HashSet<String>,
    below: HashSet<String>,
}

impl DomainNames {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty()
    }

    /// Whether one of them matches a name in small letters, without a dot at its end.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.exact.contains(name)
            || name.char_indices().any(|(at, byte)| {
                at > 0 && byte == '.' && name.get(at + 1..).is_some_and(|outer| self.below.contains(outer))
            })
    }
}

impl<'a> FromIterator<&'a DomainName> for DomainNames {
    fn from_iter<T: IntoIterator<Item = &'a DomainName>>(names: T) -> Self {
        let mut set = Self::default();
        for DomainName { name, below } in names {
            let part = if *below { &mut set.below } else { &mut set.exact };
            part.insert(name.clone());
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn p65_names_are_those_of_the_definition() {
        for (text, is) in [
            ("kubernetes.io", Some("kubernetes.io")),
            ("*.Kubernetes.IO.", Some("*.kubernetes.io")),
            ("a_b.x-y.z1", Some("a_b.x-y.z1")),
            ("localhost", None),
            ("*.io", None),
            ("*", None),
            ("*.", None),
            ("", None),
            (".", None),
            ("www.*.io", None),
            ("*w.k8s.io", None),
            ("-a.io", None),
            ("a-.io", None),
            ("_dns.k8s.io", None),
            ("a..io", None),
            ("a.io..", None),
            ("bücher.example", None),
        ] {
            assert_eq!(DomainName::parse(text).map(|name| name.to_string()).as_deref(), is, "{text}");
        }
        assert_eq!(DomainName::parse(&format!("{}.io", "a".repeat(64))), None);
        assert_eq!(DomainName::parse(&vec!["a".repeat(60); 5].join(".")), None);
    }

    #[test]
    fn p65_a_wildcard_is_one_label_or_more() {
        for (pattern, name, is) in [
            ("kubernetes.io", "kubernetes.io", true),
            ("kubernetes.io", "www.kubernetes.io", false),
            ("kubernetes.io", "my-kubernetes.io", false),
            ("*.kubernetes.io", "www.kubernetes.io", true),
            ("*.kubernetes.io", "latest.blog.kubernetes.io", true),
            ("*.kubernetes.io", "kubernetes.io", false),
            ("*.kubernetes.io", "my-kubernetes.io", false),
            ("*.kubernetes.io", ".kubernetes.io", false),
            ("*.kubernetes.io", "wikipedia.org", false),
        ] {
            let pattern = DomainName::parse(pattern).unwrap();
            assert_eq!(pattern.matches(name), is, "{pattern} {name}");
            assert_eq!(DomainNames::from_iter([&pattern]).matches(name), is, "{pattern} {name}");
        }
    }

    #[test]
    fn p65_names_meet_a_zone_that_has_names_which_they_match() {
        for (pattern, is) in [
            ("cluster.local", true),
            ("*.cluster.local", true),
            ("web.shop.svc.cluster.local", true),
            ("*.svc.cluster.local", true),
            ("my-cluster.local", false),
            ("*.my-cluster.local", false),
            ("kubernetes.io", false),
        ] {
            assert_eq!(DomainName::parse(pattern).unwrap().meets("cluster.local"), is, "{pattern}");
        }
        let above = DomainName::parse("*.example.org").unwrap();
        assert!(above.meets("k8s.example.org") && above.meets("example.org"));
        assert!(!DomainName::parse("example.org").unwrap().meets("k8s.example.org"));
    }

    proptest! {
        #[test]
        fn a_set_matches_what_one_of_it_matches(
            patterns in prop::collection::vec("(\\*\\.)?([ab]\\.){1,3}[ab]", 0..6), name in "([ab]\\.){0,4}[ab]",
        ) {
            let patterns: Vec<_> = patterns.iter().map(|text| DomainName::parse(text).unwrap()).collect();
            let set: DomainNames = patterns.iter().collect();
            prop_assert_eq!(set.matches(&name), patterns.iter().any(|pattern| pattern.matches(&name)));
            prop_assert_eq!(set.is_empty(), patterns.is_empty());
            for pattern in patterns {
                let text = String::from(pattern.clone());
                prop_assert_eq!(DomainName::parse(&text), Some(pattern));
            }
        }
    }
}
