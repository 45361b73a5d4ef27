//! The query log.

use super::super::syntax::{Directive, Mistake};
use super::zones;
use crate::WireName;
use crate::site::log::{Kinds, LogRule, format};

/// `log [NAMES...] [FORMAT] { class CLASSES... }`.
pub(crate) fn log(directive: &Directive, block: &[WireName]) -> Result<LogRule, Mistake> {
    let (names, text) = match &directive.args[..] {
        [names @ .., last] if last.text.contains('{') => (names, Some(last)),
        names => (names, None),
    };
    let mut kinds = None;
    for line in &directive.body {
        if line.name.text != "class" {
            return Err(line.unknown("log", "class"));
        }
        let kinds = kinds.get_or_insert(Kinds::NONE);
        for word in &line.plain()?.args {
            match word.text.as_str() {
                "all" => *kinds = Kinds::ALL,
                "success" => kinds.success = true,
                "denial" => kinds.denial = true,
                "error" => kinds.error = true,
                text => return Err(word.wrong(format!("{text:?}: use all, success, denial or error"))),
            }
        }
    }
    let format = match text {
        Some(word) => format(&word.text).map_err(|error| word.wrong(error))?,
        None => crate::site::log::COMMON.to_owned(),
    };
    Ok(LogRule { zones: zones(names, block)?, sources: Vec::new(), kinds: kinds.unwrap_or(Kinds::ALL), format })
}
