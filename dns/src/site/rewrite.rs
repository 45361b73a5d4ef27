//! Questions that are answered as others, and their answers as if they hadn't been.

use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RData};
use regex::{Captures, Regex};

use crate::wire::RecordType;
use crate::{NameError, WireName};

use super::text;

/// A rule.
#[derive(Debug, Clone)]
pub struct Rewrite {
    /// What it changes.
    pub change: Change,
    /// The rules behind it are looked at too.
    pub goes_on: bool,
}

/// What a rule changes.
#[derive(Debug, Clone)]
pub enum Change {
    /// The name of a question, and names in its answer.
    Name {
        /// Which names.
        from: Pattern,
        /// What they become.
        to: String,
        /// What names in answers become besides.
        answers: Vec<AnswerRule>,
    },
    /// The type of a question.
    Type(RecordType, RecordType),
    /// The TTL of answers.
    Ttl {
        /// To which names.
        names: Pattern,
        /// The lowest.
        least: u32,
        /// The highest.
        most: u32,
    },
}

/// Which names a rule is for, as text in lower case with a dot at its end.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// This name.
    Exact(String),
    /// Those that begin so.
    Prefix(String),
    /// Those that end so.
    Suffix(String),
    /// Those that have it in them.
    Substring(String),
    /// Those that an expression describes.
    Regex(Box<Regex>),
}

/// How names in answers change.
#[derive(Debug, Clone)]
pub struct AnswerRule {
    /// Names in the records' data, in place of their owners.
    pub values: bool,
    /// Which names.
    pub from: Pattern,
    /// What they become.
    pub to: String,
}

impl Pattern {
    /// What a name becomes, if it is one of these.
    fn replace(&self, name: &str, to: &str) -> Option<String> {
        match self {
            Self::Exact(from) => (name == from).then(|| to.to_owned()),
            Self::Prefix(from) => name.strip_prefix(from.as_str()).map(|rest| format!("{to}{rest}")),
            Self::Suffix(from) => name.strip_suffix(from.as_str()).map(|rest| format!("{rest}{to}")),
            Self::Substring(from) => name.contains(from.as_str()).then(|| name.replace(from.as_str(), to)),
            Self::Regex(regex) => {
                // Written with the dot at its end or without.
                let found = regex.captures(name)?;
                Some(filled(to, &found))
            }
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b))
            | (Self::Prefix(a), Self::Prefix(b))
            | (Self::Suffix(a), Self::Suffix(b))
            | (Self::Substring(a), Self::Substring(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.is_like(other)
    }
}

impl PartialEq for AnswerRule {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values && self.from == other.from && self.to == other.to
    }
}

impl PartialEq for Change {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name { from, to, answers }, Self::Name { from: from_2, to: to_2, answers: answers_2 }) => {
                from == from_2 && to == to_2 && answers == answers_2
            }
            (Self::Type(a, b), Self::Type(c, d)) => (a, b) == (c, d),
            (Self::Ttl { names, least, most }, Self::Ttl { names: names_2, least: least_2, most: most_2 }) => {
                names == names_2 && (least, most) == (least_2, most_2)
            }
            _ => false,
        }
    }
}

impl PartialEq for Rewrite {
    fn eq(&self, other: &Self) -> bool {
        self.change == other.change && self.goes_on == other.goes_on
    }
}

/// A text with `{1}` and so on replaced by what an expression's groups found.
fn filled(text: &str, found: &Captures<'_>) -> String {
    let mut out = text.to_owned();
    for (number, group) in found.iter().enumerate() {
        out = out.replace(&format!("{{{number}}}"), group.map_or("", |group| group.as_str()));
    }
    out
}

/// A question as it is answered, and how its answer changes back.
#[derive(Debug, Clone, PartialEq)]
pub struct Rewritten {
    /// The name, in lower case and wire format.
    pub name: WireName,
    /// The type.
    pub record_type: RecordType,
    /// How the answer changes back.
    pub undo: Undo,
}

/// How an answer changes back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Undo {
    answers: Vec<AnswerRule>,
    ttl: Option<(u32, u32)>,
}

/// What a question becomes. `Ok(None)`: it stays as it is.
///
/// # Errors
/// What a rule makes of the name is none.
pub fn rewrite(rules: &[Rewrite], name: &[u8], record_type: RecordType) -> Result<Option<Rewritten>, NameError> {
    if rules.is_empty() {
        return Ok(None);
    }
    let Some(mut now) = text::of_wire(name) else { return Ok(None) };
    let mut kind = record_type;
    let mut undo = Undo::default();
    let mut changed = false;
    for rule in rules {
        let meets = match &rule.change {
            Change::Name { from, to, answers } => match from.replace(&now, to) {
                Some(new) => {
                    now = if new.ends_with('.') { new } else { new + "." };
                    undo.answers.extend(answers.iter().cloned());
                    true
                }
                None => false,
            },
            Change::Type(from, to) if *from == kind => {
                kind = *to;
                true
            }
            Change::Type(..) => false,
            Change::Ttl { names, least, most } => {
                let meets = names.replace(&now, "").is_some();
                if meets {
                    undo.ttl = Some((*least, *most));
                }
                meets
            }
        };
        changed |= meets;
        if meets && !rule.goes_on {
            break;
        }
    }
    if !changed {
        return Ok(None);
    }
    let name = WireName::parse(&now)?;
    Ok(Some(Rewritten { name, record_type: kind, undo }))
}

/// Whether [`rewrite`] says anything about a question.
#[must_use]
pub fn touches(rules: &[Rewrite], name: &[u8], record_type: RecordType) -> bool {
    rewrite(rules, name, record_type) != Ok(None)
}

impl Undo {
    /// Changes an answer back: `asked` is the name of the question that it answers, `original` the client's.
    pub fn apply(&self, message: &mut Message, asked: &Name, original: &Name) {
        let Message { answers, authorities, additionals, .. } = message;
        for record in answers.iter_mut().chain(authorities).chain(additionals) {
            if record.name == *asked {
                record.name = original.clone();
            } else if let Some(name) = self.renamed(&record.name, false) {
                record.name = name;
            }
            if let Some((least, most)) = self.ttl {
                record.ttl = record.ttl.clamp(least, most.max(least));
            }
            let target = match &mut record.data {
                RData::CNAME(cname) => Some(&mut cname.0),
                RData::PTR(ptr) => Some(&mut ptr.0),
                RData::NS(ns) => Some(&mut ns.0),
                RData::SRV(srv) => Some(&mut srv.target),
                RData::MX(mx) => Some(&mut mx.exchange),
                _ => None,
            };
            if let Some(target) = target
                && let Some(name) = self.renamed(target, true)
            {
                *target = name;
            }
        }
    }

    fn renamed(&self, name: &Name, values: bool) -> Option<Name> {
        let before = text::of_wire(&crate::name::wire_of(name))?;
        let mut now = before.clone();
        // What was changed last is changed back first.
        for rule in self.answers.iter().rev().filter(|rule| rule.values == values) {
            if let Some(new) = rule.from.replace(&now, &rule.to) {
                now = new;
            }
        }
        if now == before { None } else { text::name(&now) }
    }
}

#[cfg(test)]
mod tests;
