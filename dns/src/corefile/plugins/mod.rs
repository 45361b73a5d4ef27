//! Plugins, one function each: from a directive to what a plan has for it.

mod cache;
mod forward;
mod hosts;
mod kubernetes;
mod log;
mod outside;
mod rewrite;
mod small;
mod template;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::ResponseCode;

use super::syntax::{Directive, Mistake, Word};
use crate::WireName;
use crate::site::scope::Fall;
use crate::wire::RecordType;

pub(super) use cache::cache;
pub(super) use forward::forward;
pub(super) use hosts::hosts;
pub(super) use kubernetes::{Kubernetes, kubernetes};
pub(super) use log::log;
pub(super) use outside::{dns64, k8s_external, transfer};
pub use rewrite::rewrite;
pub(super) use small::{acl, bind, errors, health, loadbalance, place, ready};
pub use template::template;

/// What to do about plugins that are not here; nothing of those that nobody has.
pub(super) fn advice(name: &str) -> Option<&'static str> {
    Some(match name {
        "autopath" => "remove it: a name that does not exist costs a few microseconds here",
        "bufsize" => "remove it, and give --max-udp or maxUdp",
        "nsid" | "chaos" | "metadata" | "debug" | "pprof" | "trace" => {
            "remove it: clients get the same answers without"
        }
        "any" | "minimal" | "header" => "remove it: answers have what was asked for, and the flags that RFCs say",
        "shed" => "remove it: one client can't take the place of others here",
        "tls" => "remove it, and give --tls-bind, --tls-cert and --tls-key",
        "https" => "remove it, and give --https-bind, --tls-cert and --tls-key",
        "file" | "auto" | "secondary" | "etcd" | "route53" | "azure" | "clouddns" | "nomad" | "dnssec" | "sign"
        | "dynupdate" => "serve that zone with CoreDNS, and forward to it: forward ZONE ADDRESS",
        "federation" | "proxy" => "CoreDNS has it no longer either: use forward",
        "multisocket" | "timeouts" | "local" | "root" | "on" | "cancel" => "remove it: it is not needed here",
        "view" | "geoip" | "tsig" | "grpc" | "grpc_server" | "quic" | "https3" | "dnstap" | "erratic" | "whoami"
        | "proxyproto" | "siit" => "remove it, or keep CoreDNS for this block",
        _ => return None,
    })
}

impl Directive {
    /// The only argument, if there is one.
    pub(super) fn at_most_one(&self) -> Result<Option<&Word>, Mistake> {
        match &self.args[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            [_, more, ..] => Err(more.wrong(format!("{} takes one value: remove {:?}", self.name.text, more.text))),
        }
    }

    /// The only argument.
    pub(super) fn one(&self) -> Result<&Word, Mistake> {
        self.at_most_one()?
            .ok_or_else(|| self.wrong(format!("{} needs a value: write it after the name", self.name.text)))
    }

    /// No braces behind it.
    pub(super) fn plain(&self) -> Result<&Self, Mistake> {
        match self.body.first() {
            None => Ok(self),
            Some(line) => Err(line.wrong(format!("{} takes no options: remove the braces", self.name.text))),
        }
    }

    /// Neither arguments nor braces.
    pub(super) fn bare(&self) -> Result<(), Mistake> {
        match self.plain()?.args.first() {
            None => Ok(()),
            Some(word) => Err(word.wrong(format!("{} takes no value: remove {:?}", self.name.text, word.text))),
        }
    }

    /// An option that the plugin does not have.
    pub(super) fn unknown(&self, plugin: &str, known: &str) -> Mistake {
        self.wrong(format!("{plugin} has no option {:?} here: remove it, or use one of {known}", self.name.text))
    }
}

/// Zones: names, or networks for the names of their addresses. Without any, those of the block.
pub(super) fn zones(words: &[Word], block: &[WireName]) -> Result<Vec<WireName>, Mistake> {
    if words.is_empty() {
        return Ok(block.to_vec());
    }
    words.iter().map(zone).collect()
}

/// A zone.
pub(super) fn zone(word: &Word) -> Result<WireName, Mistake> {
    let name = match word.text.split_once('/') {
        Some((address, length)) => reverse(address, length).ok_or_else(|| {
            let text = "is not a network whose names are a zone: use lengths of 8, 16 or 24, or multiples of 4 for \
                IPv6";
            word.wrong(format!("{:?} {text}", word.text))
        })?,
        None => word.text.clone(),
    };
    WireName::parse(&name).map_err(|error| word.wrong(error.to_string()))
}

/// The zone of a network's reverse names.
fn reverse(address: &str, length: &str) -> Option<String> {
    let length: usize = length.parse().ok()?;
    let (labels, zone): (Vec<String>, _) = match address.parse().ok()? {
        IpAddr::V4(v4) if length.is_multiple_of(8) && (8..=32).contains(&length) => {
            (v4.octets().iter().take(length / 8).map(ToString::to_string).collect(), "in-addr.arpa")
        }
        IpAddr::V6(v6) if length.is_multiple_of(4) && (4..=128).contains(&length) => {
            let digits = format!("{:032x}", v6.to_bits());
            (digits.chars().take(length / 4).map(String::from).collect(), "ip6.arpa")
        }
        _ => return None,
    };
    let reversed: Vec<String> = labels.into_iter().rev().collect();
    Some(format!("{}.{zone}", reversed.join(".")))
}

/// What `fallthrough [ZONES...]` says.
pub(super) fn fall(line: &Directive) -> Result<Fall, Mistake> {
    if line.plain()?.args.is_empty() { Ok(Fall::Everywhere) } else { Ok(Fall::In(zones(&line.args, &[])?)) }
}

/// A number in a range.
pub(super) fn number(word: &Word, range: std::ops::RangeInclusive<u32>) -> Result<u32, Mistake> {
    let (least, most) = (*range.start(), *range.end());
    word.text
        .parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| word.wrong(format!("{:?} is invalid: write a number from {least} to {most}", word.text)))
}

/// A time, as `5s`, `1m30s` or `500ms`.
pub(super) fn duration(word: &Word) -> Result<Duration, Mistake> {
    parse_duration(&word.text).ok_or_else(|| {
        word.wrong(format!("{:?} is not a duration: write a number with its unit, such as 5s or 1m", word.text))
    })
}

fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = number.parse::<f64>().ok()? * seconds;
        total = total.checked_add(Duration::try_from_secs_f64(part).ok()?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// An address to listen on: `ADDR:PORT`, or `:PORT` for all.
pub(super) fn listen(word: &Word) -> Result<SocketAddr, Mistake> {
    let wrong = || word.wrong(format!("can't listen on {:?}: write ADDR:PORT or :PORT", word.text));
    if let Ok(address) = word.text.parse() {
        return Ok(address);
    }
    let (host, port) = word.text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    match host {
        "" => Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)),
        "localhost" => Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        _ => Err(wrong()),
    }
}

/// A record's type by its name.
pub(super) fn record_type(word: &Word) -> Result<RecordType, Mistake> {
    let known: Result<hickory_proto::rr::RecordType, _> = word.text.to_ascii_uppercase().parse();
    let number = word.text.strip_prefix("TYPE").and_then(|number| number.parse().ok());
    known
        .map(|known| RecordType(known.into()))
        .ok()
        .or(number.map(RecordType))
        .ok_or_else(|| word.wrong(format!("{:?} is not a record type: write one such as AAAA", word.text)))
}

/// A response code by its name.
pub(super) fn code(word: &Word) -> Result<ResponseCode, Mistake> {
    Ok(match word.text.to_ascii_uppercase().as_str() {
        "NOERROR" => ResponseCode::NoError,
        "FORMERR" => ResponseCode::FormErr,
        "SERVFAIL" => ResponseCode::ServFail,
        "NXDOMAIN" => ResponseCode::NXDomain,
        "NOTIMP" => ResponseCode::NotImp,
        "REFUSED" => ResponseCode::Refused,
        text => {
            return Err(word.wrong(format!("{text:?} is not a code here: use NOERROR, NXDOMAIN, REFUSED or SERVFAIL")));
        }
    })
}
