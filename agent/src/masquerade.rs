//! Whose address has what pods send out of the cluster, and from which port.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use fairlead_datapath::config::Config;
use ipnetwork::IpNetwork;

/// Ports that a range has at least: of fewer a pod's share of a destination would be none to speak of.
const FEWEST: u16 = 1024;

/// Whether pods' addresses are hidden behind the node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Mode {
    /// What leaves the cluster gets the node's address, except to destinations that see pods' own
    #[default]
    Auto,
    /// What leaves the cluster keeps the pod's: the network routes pods' addresses everywhere
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
    /// Prefixes outside of the cluster to which pods go with their own addresses, each once and without bits of a host.
    #[must_use]
    pub fn kept(&self) -> Vec<IpNetwork> {
        let everything = [IpAddr::from([0_u8; 4]), IpAddr::from([0_u8; 16])].map(|ip| IpNetwork::new(ip, 0));
        let mut kept: Vec<IpNetwork> = match self.mode {
            Mode::Auto => self.except.clone(),
            Mode::Never => everything.into_iter().flatten().collect(),
        };
        for prefix in &mut kept {
            *prefix = IpNetwork::new(prefix.network(), prefix.prefix()).unwrap_or(*prefix);
        }
        kept.sort_unstable();
        kept.dedup();
        kept
    }
}

impl fmt::Display for Masquerade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, except, ports } = self;
        match mode {
            Mode::Never => write!(f, "never: pods keep their addresses everywhere")?,
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

    fn kept(mode: Mode, except: &[&str]) -> Vec<String> {
        let except = except.iter().map(|text| destination(text).unwrap()).collect();
        Masquerade { mode, except, ..Masquerade::default() }.kept().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn prefixes_that_are_kept_are_exceptions_or_everything() {
        assert!(kept(Mode::Auto, &[]).is_empty());
        assert_eq!(kept(Mode::Auto, &["10.1.2.3/8", "10.0.0.0/8", "fd00::1/16"]), ["10.0.0.0/8", "fd00::/16"]);
        assert_eq!(kept(Mode::Never, &["10.0.0.0/8"]), ["0.0.0.0/0", "::/0"]);
        assert!(destination("::ffff:10.0.0.0/104").unwrap_err().contains("in IPv4 notation"));
        assert!(destination("10.0.0.0/33").is_err() && destination("x").is_err());
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
        assert!(Masquerade { mode: Mode::Never, ..all }.to_string().starts_with("never"));
    }
}
