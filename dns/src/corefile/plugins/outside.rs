//! What is for others than the cluster's pods: addresses for the outside, whole zones, and NAT64.

use std::net::IpAddr;

use super::super::syntax::{Directive, Mistake, Word};
use super::{fall, number, zones};
use crate::WireName;
use crate::site::dns64::{Dns64, Prefix};
use crate::site::external::External;
use crate::site::scope::Fall;
use crate::site::transfer::Transfer;

/// `dns64 [PREFIX] { prefix PREFIX, translate_all, allow_ipv4 }`.
pub(crate) fn dns64(directive: &Directive) -> Result<Dns64, Mistake> {
    let prefix = |word: &Word| {
        Prefix::parse(&word.text).ok_or_else(|| {
            word.wrong(format!(
                "{:?} is not a prefix for NAT64: write an IPv6 network of 32, 40, 48, 56, 64 or 96 bits, such as \
                 64:ff9b::/96",
                word.text
            ))
        })
    };
    let given = directive.at_most_one()?.map(prefix).transpose()?;
    let mut rules = Dns64 { prefix: given.unwrap_or(Prefix::WELL_KNOWN), all: false, over_v4: false };
    for line in &directive.body {
        match line.plain()?.name.text.as_str() {
            "prefix" => rules.prefix = prefix(line.one()?)?,
            "translate_all" => {
                line.bare()?;
                rules.all = true;
            }
            "allow_ipv4" => {
                line.bare()?;
                rules.over_v4 = true;
            }
            _ => return Err(line.unknown("dns64", "prefix, translate_all, allow_ipv4")),
        }
    }
    Ok(rules)
}

/// `k8s_external [ZONES...] { apex LABEL, ttl SECONDS, headless, fallthrough [ZONES...] }`.
pub(crate) fn k8s_external(directive: &Directive, block: &[WireName]) -> Result<External, Mistake> {
    let zones = zones(&directive.args, block)?;
    let mut rules = External { zones, apex: "dns".to_owned(), ttl: 5, headless: false, fall: Fall::Nowhere };
    for line in &directive.body {
        match line.plain()?.name.text.as_str() {
            "apex" => {
                let word = line.one()?;
                let fits = WireName::parse(&word.text).is_ok_and(|apex| {
                    rules.zones.iter().all(|zone| zone.below(&["hostmaster", &word.text]).is_some())
                        && apex.as_wire().len() > 1
                });
                if !fits || word.text.contains('.') {
                    return Err(word.wrong(format!(
                        "{:?} is not a name below the zones: write one label, such as dns",
                        word.text
                    )));
                }
                rules.apex = word.text.to_ascii_lowercase();
            }
            "ttl" => rules.ttl = number(line.one()?, 0..=3600)?,
            "headless" => {
                line.bare()?;
                rules.headless = true;
            }
            "fallthrough" => rules.fall = fall(line)?,
            // Names of load balancers are looked up by the block's own forward.
            "upstream" => {}
            _ => return Err(line.unknown("k8s_external", "apex, ttl, headless, fallthrough")),
        }
    }
    Ok(rules)
}

/// `transfer [ZONES...] { to ADDRESS... }`.
pub(crate) fn transfer(
    directive: &Directive,
    block: &[WireName],
    notes: &mut Vec<String>,
) -> Result<Transfer, Mistake> {
    let zones = zones(&directive.args, block)?;
    let mut rules = Transfer { zones, anybody: false, to: Vec::new() };
    for line in &directive.body {
        match line.plain()?.name.text.as_str() {
            "to" if line.args.is_empty() => {
                return Err(line.wrong("to needs an address: write it after the word, or * for all"));
            }
            "to" => {
                for word in &line.args {
                    match word.text.as_str() {
                        "*" => rules.anybody = true,
                        text => {
                            rules.to.push(host(text).ok_or_else(|| {
                                word.wrong(format!("{text:?} is not an address: write one, or * for all"))
                            })?);
                        }
                    }
                }
            }
            "source" => notes.push(format!("{}: source has no effect: nobody is notified", line.name.place)),
            _ => return Err(line.unknown("transfer", "to")),
        }
    }
    if !rules.anybody && rules.to.is_empty() {
        return Err(directive.wrong("transfer has no destination: write a line to ADDRESS in braces, or to *"));
    }
    Ok(rules)
}

/// An address, whose port would be for notifications.
fn host(text: &str) -> Option<IpAddr> {
    let address = text.parse().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|host| host.ip()));
    let bare = || text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).and_then(|text| text.parse().ok());
    address.or_else(bare).map(|address| address.to_canonical())
}
