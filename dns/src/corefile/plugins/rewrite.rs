//! Rewriting.

use regex::Regex;

use super::super::syntax::{Directive, Mistake, Word};
use super::{number, record_type};
use crate::WireName;
use crate::site::rewrite::{AnswerRule, Change, Pattern, Rewrite};

const FIELDS: &str = "name, type and ttl";

/// `rewrite [continue|stop] FIELD ...`, or the same in braces.
///
/// # Errors
/// It is something else, or changes what is not changed here.
pub fn rewrite(directive: &Directive) -> Result<Rewrite, Mistake> {
    let lines = directive.body.iter().flat_map(|line| std::iter::once(&line.name).chain(&line.args));
    let words: Vec<&Word> = directive.args.iter().chain(lines).collect();
    let (goes_on, words) = match &words[..] {
        [first, rest @ ..] if first.text == "continue" => (true, rest),
        [first, rest @ ..] if first.text == "stop" => (false, rest),
        rest => (false, rest),
    };
    let [field, rest @ ..] = words else {
        return Err(directive.wrong(format!("rewrite needs a field: one of {FIELDS}")));
    };
    let change = match field.text.as_str() {
        "name" => name(field, rest)?,
        "type" => match rest {
            [from, to] => Change::Type(record_type(from)?, record_type(to)?),
            _ => return Err(field.wrong("type takes two types: rewrite type ANY HINFO")),
        },
        "ttl" => ttl(field, rest)?,
        other => return Err(field.wrong(format!("{other:?} is not rewritten here, only {FIELDS}: remove the rule"))),
    };
    Ok(Rewrite { change, goes_on })
}

fn name(field: &Word, words: &[&Word]) -> Result<Change, Mistake> {
    let (kind, rest) = kind(words);
    let [from, to, options @ ..] = rest else {
        return Err(field.wrong("name takes two names: rewrite name exact FROM TO"));
    };
    let is_regex = kind == "regex";
    let pattern = pattern(kind, from)?;
    let target = if is_regex { to.text.to_ascii_lowercase() } else { normal(&to.text) };
    if kind == "exact" {
        for word in [from, to] {
            WireName::parse(&word.text).map_err(|error| word.wrong(error.to_string()))?;
        }
    }
    let mut answers = Vec::new();
    let mut options = options;
    while let [first, rest @ ..] = options {
        if first.text != "answer" {
            return Err(first.wrong(format!(
                "{:?} is not an option of name: use answer auto, answer name or answer value",
                first.text
            )));
        }
        match rest {
            [auto, rest @ ..] if auto.text == "auto" => {
                let back = back(&pattern, &target)
                    .ok_or_else(|| auto.wrong("a regular expression can't be reversed: use answer name FROM TO"))?;
                answers.extend([false, true].map(|values| AnswerRule { values, ..back.clone() }));
                options = rest;
            }
            [what, from, to, rest @ ..] if matches!(what.text.as_str(), "name" | "value") => {
                let to = if to.text.ends_with('.') { to.text.clone() } else { format!("{}.", to.text) };
                let from = Pattern::Regex(Box::new(regex(from)?));
                answers.push(AnswerRule { values: what.text == "value", from, to: to.to_ascii_lowercase() });
                options = rest;
            }
            _ => return Err(first.wrong("answer needs more: answer auto, answer name FROM TO or answer value FROM TO")),
        }
    }
    if kind == "exact" && answers.is_empty() {
        answers.extend(back(&pattern, &target));
    }
    Ok(Change::Name { from: pattern, to: target, answers })
}

fn ttl(field: &Word, words: &[&Word]) -> Result<Change, Mistake> {
    let (kind, rest) = kind(words);
    let [from, seconds] = rest else {
        return Err(field.wrong("ttl takes a name and seconds: rewrite ttl suffix .example.org 60"));
    };
    let parse = |text: &str| {
        let word = Word { text: text.to_owned(), ..(*seconds).clone() };
        number(&word, 0..=i32::MAX.cast_unsigned())
    };
    let (least, most) = match seconds.text.split_once('-') {
        None => (parse(&seconds.text)?, parse(&seconds.text)?),
        Some((least, "")) => (parse(least)?, u32::MAX),
        Some(("", most)) => (0, parse(most)?),
        Some((least, most)) => (parse(least)?, parse(most)?),
    };
    if least > most {
        return Err(seconds.wrong(format!("{:?} ends before it begins: write the lower number first", seconds.text)));
    }
    Ok(Change::Ttl { names: pattern(kind, from)?, least, most })
}

/// How names are compared, and the words behind that.
fn kind<'a, 'w>(words: &'a [&'w Word]) -> (&'w str, &'a [&'w Word]) {
    match words {
        [first, rest @ ..]
            if rest.len() > 1
                && matches!(first.text.as_str(), "exact" | "prefix" | "suffix" | "substring" | "regex") =>
        {
            (first.text.as_str(), rest)
        }
        _ => ("exact", words),
    }
}

fn pattern(kind: &str, word: &Word) -> Result<Pattern, Mistake> {
    Ok(match kind {
        "regex" => Pattern::Regex(Box::new(regex(word)?)),
        "prefix" => Pattern::Prefix(normal(&word.text)),
        "suffix" => Pattern::Suffix(normal(&word.text)),
        "substring" => Pattern::Substring(normal(&word.text)),
        _ => Pattern::Exact(normal(&word.text)),
    })
}

/// In lower case with a dot at its end, as names are compared.
fn normal(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    if text.ends_with('.') { text } else { text + "." }
}

pub(super) fn regex(word: &Word) -> Result<Regex, Mistake> {
    let bounded = regex::RegexBuilder::new(&word.text).size_limit(1 << 20).build();
    bounded.map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        word.wrong(format!("{:?} is not a regular expression: {last}", word.text))
    })
}

/// The rule that undoes one.
fn back(from: &Pattern, to: &str) -> Option<AnswerRule> {
    let to = to.to_owned();
    let (from, to) = match from {
        Pattern::Exact(name) => (Pattern::Exact(to), name),
        Pattern::Prefix(name) => (Pattern::Prefix(to), name),
        Pattern::Suffix(name) => (Pattern::Suffix(to), name),
        Pattern::Substring(name) => (Pattern::Substring(to), name),
        Pattern::Regex(_) => return None,
    };
    Some(AnswerRule { values: false, from, to: to.clone() })
}
