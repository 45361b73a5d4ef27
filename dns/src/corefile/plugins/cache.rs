//! What is kept.

use std::time::Duration;

use super::super::syntax::{Directive, Mistake};
use super::{duration, number, zones};
use crate::WireName;
use crate::forward::Rules;
use crate::site::scope::covers;

const KNOWN: &str = "success, denial, prefetch, serve_stale, servfail, disable, keepttl";

/// How long records are kept where nothing is said, in seconds.
const SUCCESS: u32 = 3600;
/// How long it is kept that there are none.
const DENIAL: u32 = 1800;
/// The longest of both.
const MOST: u32 = 86_400;

/// The longest time for which a failure is kept.
const MOST_OF_FAILURE: Duration = Duration::from_mins(5);

/// `cache [TTL] [ZONES...] { OPTIONS }`.
pub(crate) fn cache(directive: &Directive, block: &[WireName], notes: &mut Vec<String>) -> Result<Rules, Mistake> {
    let mut words = &directive.args[..];
    let mut rules = Rules { ttl: SUCCESS, denial: DENIAL, stale: 0, prefetch: false, ..Rules::default() };
    if let [first, rest @ ..] = words
        && first.text.parse::<u32>().is_ok()
    {
        rules.ttl = number(first, 1..=MOST)?;
        rules.denial = rules.ttl;
        words = rest;
    }
    rules.scope.zones = zones(words, block)?;
    if block.iter().all(|zone| covers(&rules.scope.zones, zone.as_wire())) {
        rules.scope.zones.clear();
    }
    for line in &directive.body {
        option(line, &mut rules, notes)?;
    }
    Ok(rules)
}

fn option(line: &Directive, rules: &mut Rules, notes: &mut Vec<String>) -> Result<(), Mistake> {
    let args = &line.plain()?.args[..];
    let mut note = |text: &str| notes.push(format!("{}: {text}", line.name.place));
    match line.name.text.as_str() {
        kind @ ("success" | "denial") => {
            let [capacity, rest @ ..] = args else { return Err(line.wrong(format!("{kind} needs a number"))) };
            number(capacity, 0..=u32::MAX)?;
            if let Some(ttl) = rest.first() {
                let ttl = number(ttl, 1..=MOST)?;
                if kind == "success" { rules.ttl = ttl } else { rules.denial = ttl }
            }
            if let Some(least) = rest.get(1) {
                number(least, 0..=MOST)?;
                note(&format!("the least time of {kind} has no effect: nothing is kept for longer than its TTL"));
            }
            note("the capacity is in bytes here, 16 MiB");
        }
        "prefetch" => {
            let [amount, rest @ ..] = args else { return Err(line.wrong("prefetch needs a number")) };
            rules.prefetch = number(amount, 0..=u32::MAX)? > 0;
            rest.first().map(duration).transpose()?;
            if rules.prefetch {
                note("answers are renewed in the last tenth of their life, when there were three queries in it");
            }
        }
        "serve_stale" => {
            let time = args.first().map(duration).transpose()?;
            rules.stale = time.map_or(3600, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX).min(604_800));
            if let Some(mode) = args.get(1).filter(|mode| !matches!(mode.text.as_str(), "immediate" | "verify")) {
                return Err(mode.wrong(format!("{:?} is not a mode: use immediate or verify", mode.text)));
            }
            note("old answers are served only while no server answers, after 1.8 s and with a TTL of 30 s");
        }
        "servfail" => {
            let word = line.one()?;
            rules.failure = duration(word)?;
            if rules.failure > MOST_OF_FAILURE {
                return Err(word.wrong("failures may not be kept for longer than 5m: write a shorter time"));
            }
        }
        "disable" => {
            let [kind, names @ ..] = args else { return Err(line.wrong("disable needs success or denial")) };
            let scope = &mut rules.scope;
            let disabled = match kind.text.as_str() {
                "success" => &mut scope.no_records,
                "denial" => &mut scope.no_denials,
                text => return Err(kind.wrong(format!("{text:?} can't be disabled: use success or denial"))),
            };
            // Without names it is for all.
            disabled.extend(zones(names, &WireName::parse(".").into_iter().collect::<Vec<_>>())?);
        }
        "keepttl" => {
            line.bare()?;
            rules.constant = true;
        }
        "serve_stale_policy" => {
            return Err(line.wrong(
                "serve_stale_policy is not supported: what a server says now counts more than an old answer; remove it",
            ));
        }
        _ => return Err(line.unknown("cache", KNOWN)),
    }
    Ok(())
}
