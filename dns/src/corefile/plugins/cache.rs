//! What is kept.

use super::super::syntax::{Directive, Mistake, Place};
use super::{duration, number, zones};
use crate::WireName;
use crate::forward::Rules;
use crate::name::strip_suffix;

/// How long records are kept where nothing is said, in seconds.
const SUCCESS: u32 = 3600;
/// How long it is kept that there are none.
const DENIAL: u32 = 1800;
/// The longest of both.
const MOST: u32 = 86_400;

/// What the plugin says, and the zones of which something is not to be kept.
pub(crate) type Kept = (Option<Rules>, Vec<(WireName, Place)>);

/// `cache [TTL] [ZONES...] { OPTIONS }`. Without rules it is not for all zones of the block.
pub(crate) fn cache(directive: &Directive, block: &[WireName], notes: &mut Vec<String>) -> Result<Kept, Mistake> {
    let mut disabled = Vec::new();
    let mut words = &directive.args[..];
    let mut rules = Rules { ttl: SUCCESS, denial: DENIAL, stale: 0, prefetch: false, ..Rules::default() };
    if let [first, rest @ ..] = words
        && first.text.parse::<u32>().is_ok()
    {
        rules.ttl = number(first, 1..=MOST)?;
        rules.denial = rules.ttl;
        words = rest;
    }
    let meant = zones(words, block)?;
    let whole = |zone: &WireName| meant.iter().any(|own| strip_suffix(zone.as_wire(), own.as_wire()).is_some());
    if !block.iter().all(whole) {
        notes.push(format!(
            "{}: answers of other zones are not cached by zone: this cache is ignored",
            directive.name.place
        ));
        return Ok((None, disabled));
    }
    for line in &directive.body {
        let args = &line.plain()?.args[..];
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
                    notes.push(format!(
                        "{}: the least time of {kind} has no effect: nothing is kept for longer than its TTL",
                        line.name.place
                    ));
                }
                notes.push(format!("{}: the capacity is in bytes here, 16 MiB", line.name.place));
            }
            "prefetch" => rules.prefetch = line.args.first().is_none_or(|amount| amount.text != "0"),
            "serve_stale" => {
                let time = line.args.first().map(duration).transpose()?;
                rules.stale = time.map_or(3600, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX).min(604_800));
            }
            "servfail" => {
                duration(line.one()?)?;
                notes.push(format!("{}: failures are kept for 5 s, silence for 1 s", line.name.place));
            }
            "disable" => {
                for zone in zones(args.get(1..).unwrap_or_default(), block)? {
                    if zone.as_wire().len() == 1 {
                        return Err(line.wrong("disable for all zones: remove cache instead"));
                    }
                    disabled.push((zone, line.name.place.clone()));
                }
            }
            _ => return Err(line.unknown("cache", "success, denial, prefetch, serve_stale, servfail, disable")),
        }
    }
    Ok((Some(rules), disabled))
}
