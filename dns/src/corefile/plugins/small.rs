//! Plugins with little to say.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::super::syntax::{Directive, Mistake, Word};
use super::{duration, listen, record_type, zones};
use crate::WireName;
use crate::site::acl::{AclRule, Prefix, Verdict};
use crate::wire::RecordType;

/// `health [ADDRESS] { lameduck DURATION }`.
pub(crate) fn health(directive: &Directive) -> Result<(Option<SocketAddr>, Option<Duration>), Mistake> {
    let mut lameduck = None;
    for line in &directive.body {
        match line.name.text.as_str() {
            "lameduck" => lameduck = Some(duration(line.plain()?.one()?)?),
            _ => return Err(line.unknown("health", "lameduck")),
        }
    }
    Ok((directive.at_most_one()?.map(listen).transpose()?, lameduck))
}

/// `ready [ADDRESS] { monitor MODE }`.
pub(crate) fn ready(directive: &Directive, notes: &mut Vec<String>) -> Result<Option<SocketAddr>, Mistake> {
    for line in &directive.body {
        if line.name.text != "monitor" {
            return Err(line.unknown("ready", "monitor"));
        }
        let mode = line.plain()?.one()?;
        if !matches!(mode.text.as_str(), "until-ready" | "continuously") {
            return Err(mode.wrong(format!("{:?} is not a mode: use until-ready or continuously", mode.text)));
        }
        notes.push(format!("{}: a server stays ready while the API server is away, in both modes", line.name.place));
    }
    directive.at_most_one()?.map(listen).transpose()
}

/// `errors { OPTIONS }`: failures are written to the log in any case.
pub(crate) fn errors(directive: &Directive, notes: &mut Vec<String>) -> Result<(), Mistake> {
    if let Some(word) = directive.args.first() {
        return Err(word.wrong(format!("errors takes no value: remove {:?}", word.text)));
    }
    for line in &directive.body {
        match line.plain()?.name.text.as_str() {
            option @ ("consolidate" | "stacktrace") => notes.push(format!(
                "{}: {option} has no effect: failures of a server are logged every 10 s at most",
                line.name.place
            )),
            _ => return Err(line.unknown("errors", "consolidate, stacktrace")),
        }
    }
    Ok(())
}

/// `loadbalance [round_robin]`: addresses change places in any case.
pub(crate) fn loadbalance(directive: &Directive) -> Result<(), Mistake> {
    if let Some(word) = directive.args.iter().find(|word| word.text != "round_robin") {
        return Err(word.wrong(format!("{:?} is not supported: use round_robin", word.text)));
    }
    match directive.body.first() {
        None => Ok(()),
        Some(line) => Err(line.wrong(format!(
            "loadbalance has no {}: remove it; addresses of a client's own zone are the Service's matter \
             (trafficDistribution)",
            line.name.text
        ))),
    }
}

/// A plugin with an address: `prometheus [ADDRESS]`.
pub(crate) fn place(directive: &Directive) -> Result<Option<SocketAddr>, Mistake> {
    directive.plain()?.at_most_one()?.map(listen).transpose()
}

/// `bind ADDRESS...`.
pub(crate) fn bind(directive: &Directive) -> Result<Vec<IpAddr>, Mistake> {
    if directive.plain()?.args.is_empty() {
        return Err(directive.wrong("bind needs an address: write it after the word"));
    }
    let address = |word: &Word| {
        word.text.parse().map_err(|_| {
            word.wrong(format!("{:?} is not an address: write addresses; interfaces are not looked up here", word.text))
        })
    };
    directive.args.iter().map(address).collect()
}

/// `acl [ZONES...] { ACTION [type TYPE...] [net NETWORK...] }`.
pub(crate) fn acl(directive: &Directive, block: &[WireName]) -> Result<Vec<AclRule>, Mistake> {
    let zones = zones(&directive.args, block)?;
    let mut rules = Vec::new();
    for line in &directive.body {
        let verdict = match line.plain()?.name.text.as_str() {
            "allow" => Verdict::Allow,
            "block" => Verdict::Block,
            "filter" => Verdict::Filter,
            "drop" => Verdict::Drop,
            _ => return Err(line.unknown("acl", "allow, block, filter, drop")),
        };
        let (mut types, mut sources) = (Vec::new(), Vec::new());
        let (mut all_types, mut all_sources) = (false, false);
        let mut section = None;
        for word in &line.args {
            match (section, word.text.as_str()) {
                (_, "type" | "net") => section = Some(word.text.as_str()),
                (Some("type"), "*" | "ANY") => all_types = true,
                (Some("type"), _) => types.push(record_type(word)?),
                (Some(_), "*") => all_sources = true,
                (Some(_), text) => sources.push(Prefix::parse(text).ok_or_else(|| {
                    word.wrong(format!("{text:?} is not a network: write an address, with /LENGTH for more than one"))
                })?),
                (None, text) => return Err(word.wrong(format!("{text:?} is neither type nor net: write one of them"))),
            }
        }
        if all_types {
            types = Vec::<RecordType>::new();
        }
        if all_sources {
            sources = Vec::new();
        }
        rules.push(AclRule { zones: zones.clone(), verdict, types, sources });
    }
    if rules.is_empty() {
        return Err(directive.wrong("acl has no rule: write one per line in braces, such as block net 192.0.2.0/24"));
    }
    Ok(rules)
}
