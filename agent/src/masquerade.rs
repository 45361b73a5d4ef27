//! Whose address has what pods send out of the cluster, and from which port.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use fairlead_datapath::config::Config;
use ipnetwork::IpNetwork;

/// Ports that a range has at least: of fewer a pod's share of a destination would be none to speak of.
const FEWEST: u16 = 1024;

/// IPv4 link-local addresses (RFC 3927), with the services that clouds offer there. No network has routes for them, so what
/// has a pod's address there is not answered.
const LINK_LOCAL: (IpAddr, u8) = (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16);

/// Whether pods' addresses are hidden behind the node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Mode {
    /// What leaves the cluster gets the node's address, except to destinations that see pods' own
    #[default]
    Auto,
    /// What leaves the cluster keeps the pod's, except to 169.254.0.0/16: the network routes pods' addresses everywhere
    Never,
}

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Masquerade {
    /// Whether there is any.
    pub mode: Mode,
    /// Destinations for which there is none.
    pub except: Vec<IpNetwork>,
    /// Where translated sources get their ports from.
    pub ports: PortRange,
}

impl Masquerade {
    /// Of a node whose pods another network connects: it gives what they send its source, to link-local addresses too.
    #[must_use]
    pub fn beside(self) -> Self {
        let link_local = IpNetwork::new(LINK_LOCAL.0, LINK_LOCAL.1).ok();
        Self { mode: Mode::Never, except: link_local.into_iter().collect(), ports: self.ports }
    }

    /// Where pods go with their own addresses. Of link-local addresses those alone that an exception names: one that only
    /// holds them all, as everything does, does not mean them.
    #[must_use]
    pub fn own_sources(&self) -> OwnSources {
        let everything = [IpAddr::from([0_u8; 4]), IpAddr::from([0_u8; 16])].map(|ip| IpNetwork::new(ip, 0));
        let all: Vec<IpNetwork> = match self.mode {
            Mode::Auto => self.except.clone(),
            Mode::Never => everything.into_iter().flatten().chain(self.link_local_exceptions()).collect(),
        };
        let whole = |prefix: IpNetwork| IpNetwork::new(prefix.network(), prefix.prefix()).unwrap_or(prefix);
        let mut own: BTreeMap<_, _> = all.into_iter().map(|prefix| (whole(prefix), true)).collect();
        let link_local = IpNetwork::new(LINK_LOCAL.0, LINK_LOCAL.1).ok();
        if let Some(link_local) = link_local.filter(|prefix| own.keys().any(|outer| holds(*outer, *prefix))) {
            own.entry(link_local).or_insert(false);
        }
        OwnSources(own)
    }

    fn link_local_exceptions(&self) -> impl Iterator<Item = IpNetwork> {
        let (network, length) = LINK_LOCAL;
        let link_local = IpNetwork::new(network, length).ok();
        self.except.iter().copied().filter(move |prefix| link_local.is_some_and(|outer| holds(outer, *prefix)))
    }
}

/// Prefixes outside of the cluster with whether pods go there with their own addresses, each without bits of a host. Of
/// several that hold an address the longest decides; where none does they don't.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnSources(BTreeMap<IpNetwork, bool>);

impl OwnSources {
    /// The prefixes.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNetwork> {
        self.0.keys().copied()
    }

    /// Whether pods go to a prefix with their own addresses, as far as no longer one of these says otherwise.
    #[must_use]
    pub fn at(&self, prefix: IpNetwork) -> bool {
        let around = self.0.iter().filter(|(outer, _)| holds(**outer, prefix));
        around.max_by_key(|(outer, _)| outer.prefix()).is_some_and(|(_, own)| *own)
    }
}

/// Whether all of a prefix is in another.
fn holds(outer: IpNetwork, prefix: IpNetwork) -> bool {
    outer.prefix() <= prefix.prefix() && outer.contains(prefix.network())
}

impl fmt::Display for Masquerade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, except, ports } = self;
        match mode {
            Mode::Never => {
                write!(f, "never: pods keep their addresses, except to {}/{}", LINK_LOCAL.0, LINK_LOCAL.1)?;
                let but: Vec<_> = self.link_local_exceptions().map(|prefix| prefix.to_string()).collect();
                if !but.is_empty() {
                    write!(f, " without {}", but.join(", "))?;
                }
            }
            Mode::Auto if except.is_empty() => write!(f, "auto")?,
            Mode::Auto => {
                let except: Vec<_> = except.iter().map(ToString::to_string).collect();
                write!(f, "auto, except to {}", except.join(", "))?;
            }
        }
        write!(f, "; source ports {ports}")
    }
}

/// A range of ports, both ends in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The first.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// How many there are.
    #[must_use]
    pub const fn count(self) -> u16 {
        // None begins at 0.
        self.last - self.first + 1
    }
}

impl Default for PortRange {
    fn default() -> Self {
        Self { first: Config::SNAT_FIRST, last: u16::MAX }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ends = text.split_once('-').map(|(first, last)| (first.trim().parse(), last.trim().parse()));
        let Some((Ok(first), Ok(last))) = ends else {
            return Err(format!("expected the first and the last port, such as {}", Self::default()));
        };
        if first < Config::SNAT_FIRST {
            return Err(format!(
                "ports below {} are not used as source ports: start there or above",
                Config::SNAT_FIRST
            ));
        }
        if last < first || last - first < FEWEST - 1 {
            return Err(format!("expected at least {FEWEST} ports, the last not below the first"));
        }
        Ok(Self { first, last })
    }
}

/// Reads a destination that is not masqueraded.
///
/// # Errors
/// It is no prefix, or one of IPv4 that is written as IPv6.
pub fn destination(text: &str) -> Result<IpNetwork, String> {
    let prefix: IpNetwork = text.parse().map_err(|error| format!("{error}"))?;
    if prefix.ip().to_canonical() != prefix.ip() {
        return Err("write an IPv4 prefix in IPv4 notation, such as 192.0.2.0/24".to_owned());
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masquerade(mode: Mode, except: &[&str]) -> Masquerade {
        let except = except.iter().map(|text| destination(text).unwrap()).collect();
        Masquerade { mode, except, ..Masquerade::default() }
    }

    fn prefixes(mode: Mode, except: &[&str]) -> Vec<String> {
        let own = masquerade(mode, except).own_sources();
        own.0.iter().map(|(prefix, own)| if *own { prefix.to_string() } else { format!("not {prefix}") }).collect()
    }

    #[test]
    fn pods_keep_their_addresses_to_exceptions_or_to_everything() {
        assert!(prefixes(Mode::Auto, &[]).is_empty());
        assert_eq!(prefixes(Mode::Auto, &["10.1.2.3/8", "10.0.0.0/8", "fd00::1/16"]), ["10.0.0.0/8", "fd00::/16"]);
        assert_eq!(prefixes(Mode::Never, &["10.0.0.0/8"]), ["0.0.0.0/0", "not 169.254.0.0/16", "::/0"]);
        assert!(destination("::ffff:10.0.0.0/104").unwrap_err().contains("in IPv4 notation"));
        assert!(destination("10.0.0.0/33").is_err() && destination("x").is_err());
    }

    #[test]
    fn p51_to_link_local_addresses_pods_keep_theirs_only_if_an_exception_names_them() {
        let keeps = |mode, except: &[&str], to: &str| masquerade(mode, except).own_sources().at(to.parse().unwrap());
        let (link_local, server) = ("169.254.0.0/16", "169.254.169.254/32");
        for (mode, except) in [
            (Mode::Never, &[][..]),
            (Mode::Never, &["0.0.0.0/0"]),
            (Mode::Never, &["169.254.42.0/24"]),
            (Mode::Auto, &["0.0.0.0/0"]),
            (Mode::Auto, &["169.254.42.0/24", "169.0.0.0/8"]),
        ] {
            assert!(!keeps(mode, except, link_local) && !keeps(mode, except, server), "{mode:?} {except:?}");
            assert!(keeps(mode, except, "169.253.0.1/32"), "{mode:?} {except:?}");
        }
        for mode in [Mode::Never, Mode::Auto] {
            assert!(keeps(mode, &[link_local], server) && keeps(mode, &["0.0.0.0/0", server], server), "{mode:?}");
            assert!(!keeps(mode, &[server, "0.0.0.0/0"], "169.254.169.253/32"), "{mode:?}");
        }
    }

    #[test]
    fn a_range_of_ports_is_large_enough_and_leaves_privileged_ports_alone() {
        let range = |text: &str| text.parse::<PortRange>();
        assert_eq!(range("1024-65535"), Ok(PortRange::default()));
        assert_eq!(PortRange::default().count(), Config::SNAT_COUNT);
        let some = range("30000 - 31023").unwrap();
        assert_eq!((some.first(), some.count(), some.to_string().as_str()), (30_000, 1024, "30000-31023"));
        for (text, why) in [
            ("30000-31022", "at least 1024 ports"),
            ("40000-30000", "not below the first"),
            ("1023-65535", "below 1024"),
            ("0-65535", "below 1024"),
            ("1024-65536", "as 1024-65535"),
            ("1024", "as 1024-65535"),
            ("", "as 1024-65535"),
        ] {
            let error = range(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn status_says_what_is_masqueraded() {
        let all = Masquerade::default();
        assert_eq!(all.to_string(), "auto; source ports 1024-65535");
        let some = Masquerade { except: vec![destination("10.0.0.0/8").unwrap()], ..all.clone() };
        assert_eq!(some.to_string(), "auto, except to 10.0.0.0/8; source ports 1024-65535");
        let never = "never: pods keep their addresses, except to 169.254.0.0/16";
        assert_eq!(masquerade(Mode::Never, &["10.0.0.0/8"]).to_string(), format!("{never}; source ports 1024-65535"));
        let but = masquerade(Mode::Never, &["169.254.42.0/24"]).to_string();
        assert_eq!(but, format!("{never} without 169.254.42.0/24; source ports 1024-65535"));
    }
}
