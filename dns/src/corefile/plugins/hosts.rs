//! Fixed addresses.

use std::path::PathBuf;

use super::super::syntax::{Directive, Mistake, beside};
use super::{duration, fall, number, zones};
use crate::WireName;
use crate::hosts::Hosts;
use crate::plan::HostsPlan;
use crate::site::HostsRules;
use crate::site::scope::Fall;

/// `hosts [FILE [ZONES...]] { INLINE... OPTIONS }`.
pub(crate) fn hosts(directive: &Directive, block: &[WireName]) -> Result<(HostsRules, HostsPlan), Mistake> {
    let (file, rest) = match &directive.args[..] {
        [] => (PathBuf::from("/etc/hosts"), &[][..]),
        [file, rest @ ..] => (beside(&file.place.file, &file.text), rest),
    };
    let zones = zones(rest, block)?;
    let mut rules =
        HostsRules { zones, fall: Fall::Nowhere, ttl: 3600, reverse: true, first: true, other_types: false };
    let mut inline = Hosts::default();
    for line in &directive.body {
        match line.plain()?.name.text.as_str() {
            "fallthrough" => rules.fall = fall(line)?,
            "fallthrough_unsupported" => {
                line.bare()?;
                rules.other_types = true;
            }
            "ttl" => rules.ttl = number(line.one()?, 1..=65535)?,
            "no_reverse" => {
                line.bare()?;
                rules.reverse = false;
            }
            // Files are looked at often enough.
            "reload" => drop(duration(line.one()?)?),
            _ => {
                let words = std::iter::once(&line.name).chain(&line.args).map(|word| word.text.as_str());
                let text = words.collect::<Vec<_>>().join(" ");
                let more = Hosts::parse(&text).map_err(|_| {
                    let known = "fallthrough, fallthrough_unsupported, ttl, no_reverse or reload";
                    line.wrong(format!("{text:?} is neither an address with names nor one of {known}"))
                })?;
                inline = inline.and(more);
            }
        }
    }
    if rules.other_types && rules.fall == Fall::Nowhere {
        return Err(directive.wrong("fallthrough_unsupported needs fallthrough: add it, or remove both"));
    }
    Ok((rules, HostsPlan { inline, file: Some(file), lenient: true }))
}
